"""`byheart namespaces`: lists, adds and clears namespaces, one per application or tenant."""

from typing import Annotated

import typer

from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    Output,
    OutputOption,
    YesOption,
    console,
    open_settings_and_database,
    print_rows,
)
from store import audit, namespaces, prompts
from store.clock import utcnow

app = typer.Typer(
    help="List, add and clear namespaces: one per application or tenant.", no_args_is_help=True
)


@app.command("ls")
def ls(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List namespaces by name. `byheart status` shows which version serves each."""
    with open_settings_and_database(config) as (_, db), db.read() as session:
        rows = [{"namespace": name} for name in namespaces.names(session)]
    print_rows(rows, output, "No namespaces yet.")


@app.command("add")
def add(
    name: Annotated[
        str, typer.Argument(help="Name that clients send in the X-Byheart-Namespace header.")
    ],
    config: ConfigOption = None,
) -> None:
    """Create a namespace with its own lessons and adapters; does nothing if it exists."""
    with open_settings_and_database(config) as (_, db), db.begin() as session:
        if name not in namespaces.names(session):
            namespaces.ensure(session, name, utcnow())
            audit.append(session, OPERATOR, "namespace added", name, {}, utcnow())
    console.print(name, markup=False)


@app.command("clear")
def clear(
    name: Annotated[str, typer.Argument(help="A name that `byheart namespaces ls` lists.")],
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove what `byheart compile` registered: system prompt, seeds and anchors. Lessons stay.

    An adapter that was trained on the system prompt serves on until the next run or
    `byheart rollback`.
    """
    if not yes:
        typer.confirm(f"Remove the system prompt, seeds and anchors of {name}?", abort=True)
    with open_settings_and_database(config) as (_, db), db.begin() as session:
        namespaces.require(session, name)
        prompts.clear(session, name, utcnow())
        audit.append(session, OPERATOR, "namespace cleared", name, {}, utcnow())
    console.print(name, markup=False)
