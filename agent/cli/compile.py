"""`byheart compile`: a system prompt into weights, before any traffic.

Registers the file as the namespace's system prompt, with seeds and anchors, and opens a run; the
daemon trains, gates and rolls out.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import OPERATOR, ConfigOption, NamespaceOption, console, opened
from agent.cli.progress import stages
from agent.learning.operator_edits import prompt_length
from agent.process.checks import check_trainable
from agent.process.data_dir import StartError, daemon_is_running
from agent.training.plan import open_run
from config.settings import Settings
from store import adapters, audit, input_files, namespaces, prompts, runs
from store.clock import utcnow
from store.db import Database
from store.schema import AdapterStatus, RunStatus

NOTHING_TO_LEARN = 3
POLL_S = 1.0


def compile_prompt(
    file: Annotated[Path, typer.Argument(help="The system prompt, as text.")],
    namespace: NamespaceOption = namespaces.DEFAULT,
    seeds: Annotated[Path | None, typer.Option(help='Prompts, {"prompt": ...} a line.')] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            help='Checks, {"prompt": ..., "expect": {"contains": [...]}} a line; also '
            "contains_any, regex, json_schema. All that is expected must hold."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it serves or failed.")] = False,
    config: ConfigOption = None,
) -> None:
    """Internalise a system prompt: register, distil, gate, roll out.

    About 30 seeds that resemble your traffic are enough; without any, the model writes its own
    questions. Seeds and anchors given earlier stay, unless new ones are given. Exit code 3 means
    that there was nothing to learn.
    """
    text = input_files.read_system_prompt(file)
    given_seeds = input_files.read_prompts(seeds)
    given_anchors = input_files.read_anchors(anchors)
    with opened(config) as (settings, db):
        check_trainable(settings)
        length = prompt_length(settings, text)
        with db.begin() as session:
            is_new = namespaces.ensure(session, namespace, utcnow())
            done = {"namespace added": namespace} if is_new else {}
            row = prompts.register_system_prompt(session, namespace, text, length, utcnow())
            done["prompt registered"] = row.id
            if given_seeds:
                done["seeds replaced"] = namespace
                prompts.replace_seeds(session, namespace, [*map(list, given_seeds)])
            if given_anchors:
                done["anchors replaced"] = namespace
                checks = [(list(anchor.messages), anchor.expect) for anchor in given_anchors]
                prompts.replace_anchors(session, namespace, checks)
            run = open_run(session, namespace, settings, f"compile {file.name}", utcnow())
            done["run started"] = run
            for action, subject in done.items():
                detail = {"namespace": namespace}
                audit.append(session, OPERATOR, action, subject, detail, utcnow())
        counts = f"{len(given_seeds)} seeds, {len(given_anchors)} anchors"
        console.print(f"system prompt of {length} tokens, {counts}", markup=False)
        console.print(f"run {run}", markup=False)
        if wait:
            _wait(settings, db, run)
        elif not daemon_is_running(settings.data_dir):
            console.print("no daemon is serving: the run starts with `byheart serve`")


def _wait(settings: Settings, db: Database, run_id: str) -> None:
    """Show the run's progress until its adapter serves, or it ended otherwise.

    Raises:
        StartError: No daemon is there to do it.
    """
    with stages() as show:
        while (ended := outcome(settings, db, run_id)) is None:
            if not daemon_is_running(settings.data_dir):
                raise StartError(
                    f"No daemon serves from {settings.data_dir}: run {run_id} waits for one, and "
                    "goes on by itself with `byheart serve`."
                )
            with db.read() as session:
                run = runs.get(session, run_id)
                at = dict(run.progress) if run else {}
            show(str(at.get("phase", "waiting for the daemon")), at.get("step"), at.get("total"))
            time.sleep(POLL_S)
    message, code = ended
    console.print(message, markup=False)
    if code:
        raise typer.Exit(code)


def outcome(settings: Settings, db: Database, run_id: str) -> tuple[str, int] | None:
    """The final message and exit code; None while it goes on."""
    with db.read() as session:
        run = runs.get(session, run_id)
        if run is None:
            raise runs.UnknownRun(run_id)
        if run.status in (RunStatus.QUEUED, RunStatus.RUNNING):
            return None
        if run.status is not RunStatus.PUBLISHED or not run.adapter:
            nothing = run.status is RunStatus.NOTHING_TO_LEARN
            return f"{run.status}: {run.reason}", NOTHING_TO_LEARN if nothing else 1
        adapter = adapters.get(session, run.adapter)
        verdict = adapters.evaluation(session, run.adapter)
        reasons = "\n".join(f"  {reason}" for reason in verdict.reasons)
    if adapter is None:
        return f"{run.adapter} is not known", 1
    if adapter.status is AdapterStatus.CANDIDATE:
        held = verdict.passed and not settings.gate.auto_promote
        waits = f"{adapter.name} passed and waits for `byheart rollout promote {adapter.name}`"
        return (f"{waits}:\n{reasons}", 1) if held else None
    serves = adapter.status is AdapterStatus.LIVE
    return f"{adapter.name} is {adapter.status}:\n{reasons}", 0 if serves else 1
