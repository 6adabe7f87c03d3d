"""`byheart train`: plans, starts, lists, shows and cancels training runs."""

from typing import Annotated

import typer

from agent.cli.errors import InputError
from agent.cli.evaluation import frontier_lines, numbers, statement_counts
from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    console,
    open_settings_and_database,
    print_row,
    print_rows,
)
from agent.process.checks import check_trainable
from agent.training.plan import open_run, untried_lessons
from config.sections import Distill
from store import adapters, audit, interactions, lessons, namespaces, prompts, runs, snapshots
from store.adapter_tables import Evaluation, Run
from store.clock import utcnow

app = typer.Typer(help="Plan, start, list, show and cancel training runs.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(help="Id that `byheart train ls` lists.")]
POSITION_KEYS = {"stage", "step", "total"}
"""Keys of a run's progress that say how far it has come; the others are measurements."""


@app.command("plan")
def plan(
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a run would train on, and what the next automatic run waits for."""
    with open_settings_and_database(config) as (settings, db), db.read() as session:
        namespaces.require(session, namespace)
        budget = settings.distill.max_lesson_tokens
        used = snapshots.select_lessons(session, namespace, budget)
        left_out = len(lessons.in_use(session, namespace)) - len(used)
        registered = prompts.system_prompt(session, namespace)
        fresh = len(untried_lessons(session, namespace, budget))
        running = runs.unfinished(session, namespace)
        row = {
            "namespace": namespace,
            "system_prompt_tokens": registered.tokens if registered else 0,
            "lessons": [lessons.text(lesson) for lesson in used],
            "lessons_left_out": left_out,
            "new_lessons": f"{fresh} of {settings.distill.min_new_lessons} needed to start a run",
            "logged_prompts": len(interactions.logged_prompts(session, namespace, False, 1000)),
            "held_out_prompts": len(interactions.logged_prompts(session, namespace, True, 1000)),
            "seeds": len(prompts.seeds(session, namespace)),
            "anchors": len(prompts.anchors(session, namespace)),
            "next_run": _next_run(settings.distill, fresh, running.id if running else None),
        }
    print_row(row, output)


def _next_run(settings: Distill, fresh: int, running: str | None) -> str:
    if running:
        return f"after {running} has finished"
    if not settings.auto:
        return "with `byheart train now` only: distill.auto is off"
    if fresh < settings.min_new_lessons:
        return f"after {settings.min_new_lessons - fresh} more lessons, or with `byheart train now`"
    return f"automatically, {settings.settle_s:.0f} s after the last new lesson"


@app.command("now")
def now(namespace: NamespaceOption = namespaces.DEFAULT, config: ConfigOption = None) -> None:
    """Queue a run over the namespace's whole context, even without new lessons.

    Prints the run's id. The daemon does the work; `byheart train show ID` shows its progress.
    """
    with open_settings_and_database(config) as (settings, db), db.begin() as session:
        check_trainable(settings)
        namespaces.require(session, namespace)
        if not lessons.in_use(session, namespace) and not prompts.system_prompt(session, namespace):
            raise InputError(
                f"Namespace {namespace!r} has nothing to learn. Add lessons (`byheart lessons "
                "add`) or a system prompt (`byheart compile`) first."
            )
        run = open_run(session, namespace, settings, "requested by the operator", utcnow())
        audit.append(session, OPERATOR, "run started", run, {"namespace": namespace}, utcnow())
    console.print(run)


@app.command("ls")
def ls(
    namespace: NamespaceOption = "",
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List runs, newest first; of all namespaces by default."""
    with open_settings_and_database(config) as (_, db), db.read() as session:
        if namespace:
            namespaces.require(session, namespace)
        rows = [_row(run) for run in runs.listing(session, namespace or None)]
    print_rows(rows, output, "No runs yet. `byheart train plan` shows what the next one waits for.")


@app.command("show")
def show_run(
    run_id: RunId, config: ConfigOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Show a run: its trigger, progress, measurements, gate results and log file."""
    with open_settings_and_database(config) as (settings, db), db.read() as session:
        run = runs.get(session, run_id)
        if run is None:
            raise runs.UnknownRun(run_id)
        curves = {name: run.progress[name] for name in run.progress.keys() - POSITION_KEYS}
        row = {**_row(run), "trigger": run.trigger, "reason": run.reason, **curves}
        if run.adapter:
            row |= _evaluated(adapters.evaluation(session, run.adapter), output)
        row["log"] = settings.data_dir / "logs" / f"{run.id}.log"
    print_row(row, output)


def _evaluated(verdict: Evaluation, output: Output) -> dict[str, object]:
    """Return what the run has measured: all of it as JSON, the numbers in a table."""
    measured = verdict.measured
    counts, frontier = statement_counts(measured), measured.get("frontier", [])
    row = {"gate": list(verdict.reasons), "statements": counts, "frontier": frontier}
    if output is Output.JSON:
        return {**row, "measured": measured}
    lines = {"statements": "{learned} of {total} learned".format_map(counts)}
    return {**row, **lines, "frontier": frontier_lines(frontier), "measured": numbers(measured)}


@app.command("cancel")
def cancel(run_id: RunId, config: ConfigOption = None) -> None:
    """Cancel a run. The live version keeps serving."""
    with open_settings_and_database(config) as (_, db), db.begin() as session:
        run = runs.cancel(session, run_id, utcnow())
        detail = {"namespace": run.namespace}
        audit.append(session, OPERATOR, "run cancelled", run_id, detail, utcnow())


def _position(run: Run) -> str | None:
    """Return the stage and step of an unfinished run."""
    if "stage" not in run.progress or run.status not in runs.UNFINISHED:
        return None
    return "{stage} {step}/{total}".format_map({"step": 0, "total": "?"} | run.progress)


def _row(run: Run) -> dict[str, object]:
    return {
        "id": run.id,
        "namespace": run.namespace,
        "status": run.status.value,
        "at": _position(run),
        "adapter": run.adapter,
        "created_at": run.created_at.isoformat(timespec="seconds"),
    }
