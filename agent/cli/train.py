"""`byheart train`: the runs that turn context into an adapter."""

import typer

from agent.cli.errors import InputError
from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    console,
    opened,
    show,
    show_one,
)
from agent.process.checks import check_trainable
from agent.training.plan import open_run, untried_lessons
from config.sections import Distill
from store import adapters, audit, interactions, lessons, namespaces, prompts, runs, snapshots
from store.clock import utcnow
from store.models import Run

app = typer.Typer(help="Runs: plan, start, list, show, cancel.", no_args_is_help=True)

PLACE = {"phase", "step", "total"}
"""Of a run's progress, what says where it is; the rest is measured."""


@app.command("plan")
def plan(
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """What a run would be trained on now, and what the next one waits for."""
    with opened(config) as (settings, db), db.read() as session:
        namespaces.require(session, namespace)
        budget = settings.distill.max_lesson_tokens
        used = snapshots.chosen(session, namespace, budget)
        left_out = len(lessons.in_use(session, namespace)) - len(used)
        registered = prompts.system_prompt(session, namespace)
        fresh = len(untried_lessons(session, namespace, budget))
        running = runs.unfinished(session, namespace)
        row = {
            "namespace": namespace,
            "system_prompt_tokens": registered.tokens if registered else 0,
            "lessons": [lessons.text(lesson) for lesson in used],
            "lessons_left_out": left_out,
            "new_lessons": f"{fresh} of the {settings.distill.min_new_lessons} that start a run",
            "logged_prompts": len(interactions.logged_prompts(session, namespace, False, 1000)),
            "held_out_prompts": len(interactions.logged_prompts(session, namespace, True, 1000)),
            "seeds": len(prompts.seeds(session, namespace)),
            "anchors": len(prompts.anchors(session, namespace)),
            "next_run": _next_run(settings.distill, fresh, running.id if running else None),
        }
    show_one(row, output)


def _next_run(settings: Distill, fresh: int, running: str | None) -> str:
    if running:
        return f"after {running} and its candidate"
    if not settings.auto:
        return "`byheart train now`; distill.auto is off"
    if fresh < settings.min_new_lessons:
        return f"with {settings.min_new_lessons - fresh} more lessons, or `byheart train now`"
    return f"by the daemon, {settings.settle_s:.0f} s after the last new lesson"


@app.command("now")
def now(namespace: NamespaceOption = namespaces.DEFAULT, config: ConfigOption = None) -> None:
    """Start a run over the namespace's whole context, whatever is new; the daemon does the work."""
    with opened(config) as (settings, db), db.begin() as session:
        check_trainable(settings)
        namespaces.require(session, namespace)
        if not lessons.in_use(session, namespace) and not prompts.system_prompt(session, namespace):
            raise InputError(
                f"Namespace {namespace!r} has no context to learn: add lessons (`byheart lessons "
                "add`) or a system prompt (`byheart compile`) first."
            )
        run = open_run(session, namespace, settings, "the operator asked for it", utcnow())
        audit.append(session, OPERATOR, "run started", run, {"namespace": namespace}, utcnow())
    console.print(run)


@app.command("ls")
def ls(
    namespace: NamespaceOption = "",
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the runs, newest first."""
    with opened(config) as (_, db), db.read() as session:
        if namespace:
            namespaces.require(session, namespace)
        rows = [_row(run) for run in runs.listing(session, namespace or None)]
    show(rows, output, "No runs yet: `byheart train plan` says what the next one waits for.")


@app.command("show")
def show_run(run_id: str, config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Show a run: why it started, how far it is, and why it ended."""
    with opened(config) as (settings, db), db.read() as session:
        run = runs.get(session, run_id)
        if run is None:
            raise runs.UnknownRun(run_id)
        curves = {name: run.progress[name] for name in run.progress.keys() - PLACE}
        row = {**_row(run), "trigger": run.trigger, "reason": run.reason, **curves}
        if run.adapter:
            verdict = adapters.evaluation(session, run.adapter)
            row |= {"gate": list(verdict.reasons), "measured": verdict.measured}
        row["log"] = settings.data_dir / "logs" / f"{run.id}.log"
    show_one(row, output)


@app.command("cancel")
def cancel(run_id: str, config: ConfigOption = None) -> None:
    """End a run; traffic stays as it is."""
    with opened(config) as (_, db), db.begin() as session:
        run = runs.cancel(session, run_id, utcnow())
        detail = {"namespace": run.namespace}
        audit.append(session, OPERATOR, "run cancelled", run_id, detail, utcnow())


def _at(run: Run) -> str | None:
    """The stage of a run under way and how far it is there."""
    if "phase" not in run.progress or run.status not in runs.UNFINISHED:
        return None
    return "{phase} {step}/{total}".format_map({"step": 0, "total": "?"} | run.progress)


def _row(run: Run) -> dict[str, object]:
    return {
        "id": run.id,
        "namespace": run.namespace,
        "status": run.status.value,
        "at": _at(run),
        "adapter": run.adapter,
        "created_at": run.created_at.isoformat(timespec="seconds"),
    }
