"""`byheart rollout` and `byheart rollback`: which version serves."""

import typer

from agent.cli.errors import InputError
from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    YesOption,
    console,
    opened,
    show,
)
from store import adapters, namespaces, rollouts
from store.clock import utcnow
from store.rollouts import approve
from store.schema import AdapterStatus

app = typer.Typer(help="Which version serves, and since when.", no_args_is_help=True)


@app.command("status")
def status(
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """The changes of version of a namespace, newest first, with their reasons."""
    with opened(config) as (_, db), db.read() as session:
        namespaces.require(session, namespace)
        rows = [
            {
                "at": event.created_at.isoformat(timespec="seconds"),
                "adapter": event.adapter,
                "change": f"{event.before} -> {event.after}",
                "reason": event.reason,
            }
            for event in rollouts.events(session, namespace, 20)
        ]
    show(rows, output, "The base serves; no adapter was ever rolled out.")


@app.command("promote")
def promote(name: str, config: ConfigOption = None) -> None:
    """Let a candidate that passed its gate go live (with `gate.auto_promote` off)."""
    with opened(config) as (_, db), db.begin() as session:
        adapter = adapters.get(session, name)
        if adapter is None:
            raise adapters.UnknownAdapter(name)
        if adapter.status is not AdapterStatus.CANDIDATE:
            raise InputError(f"Adapter {name} is {adapter.status}, not a candidate.")
        approve(session, adapter, OPERATOR, utcnow())
    console.print("approved; the daemon loads it, lets it prove itself, and promotes it")


def rollback(
    namespace: NamespaceOption = namespaces.DEFAULT,
    reason: str = typer.Option("the operator rolled it back", help="For the record."),
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Take the live adapter out and let the last good version serve; its lessons return."""
    with opened(config) as (_, db):
        with db.read() as session:
            live = adapters.live(session, namespace)
        if live and not yes:
            typer.confirm(f"Roll back {live.name} in namespace {namespace}?", abort=True)
        with db.begin() as session:
            expected = live.name if live else None
            bad, good = rollouts.rollback(session, namespace, OPERATOR, reason, utcnow(), expected)
    console.print(f"{bad} is rolled back; {good or 'the base'} serves {namespace}")
