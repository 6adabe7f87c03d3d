"""`byheart serve`, `worker` and `status`: runs the processes, and shows what they do."""

import asyncio
from typing import Annotated, Any

import typer

from agent.cli.lessons import APPROVE
from agent.cli.options import (
    ConfigOption,
    Output,
    OutputOption,
    console,
    open_settings_and_database,
    print_rows,
)
from agent.learning.operator_edits import WAITING
from agent.process.data_dir import read_address
from config.settings import load
from store import adapters, jobs, lessons, namespaces, runs
from store.schema import LessonStatus


def serve(
    config: ConfigOption = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (overrides server.host).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 picks a free one (overrides server.port).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder of the base model (overrides engine.model).")
    ] = None,
) -> None:
    """Run the daemon: serve the model, learn from its conversations, roll out adapters.

    Example: byheart serve --config byheart.toml

    Without configuration, it serves the embedded SmolLM2-135M-Instruct on 127.0.0.1:8080, with
    SQLite as its database.
    """
    # Slow to import, and only this verb needs it.
    import uvloop

    from agent import daemon

    options = {("server", "host"): host, ("server", "port"): port, ("engine", "model"): model}
    overrides: dict[str, dict[str, Any]] = {}
    for (section, key), value in options.items():
        if value is not None:
            overrides.setdefault(section, {})[key] = value
    settings = load(config, overrides=overrides)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(daemon.serve(settings, _print_status))


def worker(config: ConfigOption = None) -> None:
    """Run jobs (extraction, training) for a daemon on another machine.

    Needs the daemon's database, its data folder (mounted under any path), and `engine.urls`: the
    servers that the daemon is attached to.
    """
    from agent.worker import check_worker_settings, run_remote_worker

    check_worker_settings(load(config))
    with open_settings_and_database(config) as (settings, db):
        asyncio.run(run_remote_worker(settings, db, _print_status))


def status(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Show which version serves each namespace, its lessons, and the run in progress."""
    with open_settings_and_database(config) as (settings, db):
        serving = read_address(settings.data_dir)
        with db.read() as session:
            rows = []
            for name in namespaces.names(session):
                live = adapters.live(session, name)
                run = runs.unfinished(session, name)
                trained = namespaces.trained_snapshot(session, name)
                to_unlearn = lessons.texts_no_longer_used(session, trained) if trained else []
                rows.append(
                    {
                        "namespace": name,
                        "version": live.name if live else "base",
                        "lessons_active": lessons.count_active(session, name),
                        "lessons_internalised": len(
                            lessons.listing(session, name, (LessonStatus.INTERNALISED,))
                        ),
                        "lessons_to_unlearn": len(to_unlearn),
                        "lessons_waiting": len(lessons.listing(session, name, WAITING)),
                        "run": f"{run.id} {run.status}" if run else None,
                    }
                )
            waiting = jobs.count_unfinished(session)
    if output is Output.TABLE:
        console.print(f"serving at {serving}" if serving else "no daemon is running", markup=False)
        console.print(f"unfinished jobs: {waiting}\n")
    print_rows(rows, output, "No namespaces yet.")
    if output is Output.TABLE and any(row["lessons_waiting"] for row in rows):
        console.print(f"\nlessons waiting for approval: {APPROVE}", markup=False)


def _print_status(text: str) -> None:
    print(f"byheart: {text}", flush=True)
