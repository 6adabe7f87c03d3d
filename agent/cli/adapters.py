"""`byheart adapters`: lists adapters, shows their origin, and verifies their files."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.evaluation import knowledge_line, numbers
from agent.cli.options import (
    ConfigOption,
    Output,
    OutputOption,
    open_settings_and_database,
    print_row,
    print_rows,
)
from store import adapters, knowledge, rollouts, snapshots
from store.adapter_tables import Adapter
from store.adapters import UnknownAdapter
from store.manifests import AdapterCorrupt, verify_files

app = typer.Typer(
    help="List adapters, show their origin and gate results, verify their files.",
    no_args_is_help=True,
)


@app.command("ls")
def ls(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List adapters, newest first."""
    with open_settings_and_database(config) as (_, db), db.read() as session:
        rows = [_row(adapter) for adapter in adapters.listing(session)]
    print_rows(rows, output, "No adapters yet. `byheart train now` starts a run that makes one.")


@app.command("show")
def show_adapter(
    name: Annotated[str, typer.Argument(help="Name that `byheart adapters ls` lists.")],
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show an adapter: its run, what it was taught and has learned, its gate results and history.

    Example: byheart adapters show NAME, with a name from `byheart adapters ls`.
    """
    with open_settings_and_database(config) as (settings, db), db.read() as session:
        adapter = adapters.get(session, name)
        if adapter is None:
            raise UnknownAdapter(name)
        snapshot = snapshots.get(session, adapter.snapshot, adapter.namespace)
        verdict = adapters.evaluation(session, name)
        history = rollouts.events(session, adapter.namespace, 100)
        known = knowledge.of_adapter(session, adapter)
        row: dict[str, Any] = {
            **_row(adapter),
            "run": adapter.run,
            "path": str(adapters.folder(adapter, settings.data_dir)),
            "manifest_sha256": adapter.manifest_sha256,
            "system_prompt": snapshot.system_prompt if snapshot else None,
            "lessons": [lesson["text"] for lesson in snapshot.lessons] if snapshot else [],
            "statements": [asdict(each) for each in known],
            "gate": list(verdict.reasons),
            "measured": verdict.measured,
            "history": [
                f"{event.created_at:%F %T} {event.before} -> {event.after}: {event.reason}"
                for event in reversed(history)
                if event.adapter == name
            ],
        }
    if output is Output.TABLE:
        row["statements"] = [knowledge_line(each, each.text) for each in known]
        row["measured"] = numbers(verdict.measured)
    print_row(row, output)


@app.command("verify")
def verify(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Verify every adapter's files against the manifest that the gate evaluated.

    Compares SHA-256 hashes. Exits with 1 if any file differs.
    """
    with open_settings_and_database(config) as (settings, db), db.read() as session:
        rows = [
            {"name": adapter.name, "files": _state(adapter, settings.data_dir)}
            for adapter in adapters.listing(session)
        ]
    print_rows(rows, output, "No adapters yet.")
    if any(row["files"] != "intact" for row in rows):
        raise typer.Exit(1)


def _state(adapter: Adapter, data_dir: Path) -> str:
    try:
        verify_files(adapters.folder(adapter, data_dir), adapter.manifest_sha256)
    except AdapterCorrupt as error:
        return str(error)
    return "intact"


def _row(adapter: Adapter) -> dict[str, object]:
    return {
        "name": adapter.name,
        "namespace": adapter.namespace,
        "status": adapter.status.value,
        "created_at": adapter.created_at.isoformat(timespec="seconds"),
    }
