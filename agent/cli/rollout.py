"""`byheart rollout` and `byheart rollback`: shows and changes which version serves."""

from typing import Annotated

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
    open_settings_and_database,
    print_rows,
)
from store import adapters, namespaces, rollouts
from store.clock import utcnow
from store.rollouts import approve
from store.schema import AdapterStatus

app = typer.Typer(help="Show rollouts, and approve candidates.", no_args_is_help=True)


@app.command("status")
def status(
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the version changes of a namespace, newest first, with reasons."""
    with open_settings_and_database(config) as (_, db), db.read() as session:
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
    print_rows(rows, output, "The base model serves; no adapter has been rolled out.")


@app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(help="Name that `byheart adapters ls` lists.")],
    config: ConfigOption = None,
) -> None:
    """Approve a candidate that passed its gate, if `gate.auto_promote` is off.

    The daemon loads the candidate, probes it, and makes it live.
    """
    with open_settings_and_database(config) as (_, db), db.begin() as session:
        adapter = adapters.get(session, name)
        if adapter is None:
            raise adapters.UnknownAdapter(name)
        if adapter.status is not AdapterStatus.CANDIDATE:
            raise InputError(f"Adapter {name} is {adapter.status}, not a candidate.")
        approve(session, adapter, OPERATOR, utcnow())
    console.print("approved: the daemon loads and probes the adapter, then makes it live")


def rollback(
    namespace: NamespaceOption = namespaces.DEFAULT,
    reason: str = typer.Option("rolled back by the operator", help="Reason for the audit log."),
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Replace the live adapter with the last good version; its lessons return to the prompt.

    Example: byheart rollback --reason "wrong prices"
    """
    with open_settings_and_database(config) as (_, db):
        with db.read() as session:
            live = adapters.live(session, namespace)
        if live and not yes:
            typer.confirm(f"Roll back {live.name} in namespace {namespace}?", abort=True)
        with db.begin() as session:
            expected = live.name if live else None
            bad, good = rollouts.rollback(session, namespace, OPERATOR, reason, utcnow(), expected)
    console.print(f"{bad} is rolled back; {good or 'the base model'} serves {namespace}")
