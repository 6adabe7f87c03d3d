"""`byheart namespaces`: one application or tenant each, with lessons and adapters of its own."""

from typing import Annotated

import typer

from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    Output,
    OutputOption,
    YesOption,
    console,
    opened,
    show,
)
from store import audit, namespaces, prompts
from store.clock import utcnow

app = typer.Typer(help="Namespaces: list, add, clear.", no_args_is_help=True)


@app.command("ls")
def ls(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List the namespaces by name; `byheart status` says what serves each."""
    with opened(config) as (_, db), db.read() as session:
        rows = [{"namespace": name} for name in namespaces.names(session)]
    show(rows, output, "No namespaces yet.")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What clients send as X-Byheart-Namespace.")],
    config: ConfigOption = None,
) -> None:
    """Create a namespace, for clients to ask in; nothing happens if it is there."""
    with opened(config) as (_, db), db.begin() as session:
        if name not in namespaces.names(session):
            namespaces.ensure(session, name, utcnow())
            audit.append(session, OPERATOR, "namespace added", name, {}, utcnow())
    console.print(name, markup=False)


@app.command("clear")
def clear(
    name: Annotated[str, typer.Argument(help="As `byheart namespaces ls` lists it.")],
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Take out what `byheart compile` gave: system prompt, seeds and anchors; lessons stay.

    An adapter that has internalised the system prompt keeps it until the next run or
    `byheart rollback`.
    """
    if not yes:
        typer.confirm(f"Take the system prompt, seeds and anchors out of {name}?", abort=True)
    with opened(config) as (_, db), db.begin() as session:
        namespaces.require(session, name)
        prompts.clear(session, name, utcnow())
        audit.append(session, OPERATOR, "namespace cleared", name, {}, utcnow())
    console.print(name, markup=False)
