"""`byheart compile`: internalises a system prompt, before any traffic.

Registers the file as the namespace's system prompt, with seed prompts and anchors, and queues a
run. The daemon trains, gates and rolls out.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    NamespaceOption,
    console,
    open_settings_and_database,
)
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
    file: Annotated[Path, typer.Argument(help="Text file with the system prompt.")],
    namespace: NamespaceOption = namespaces.DEFAULT,
    seeds: Annotated[
        Path | None,
        typer.Option(
            help='Seed prompts that resemble your traffic: JSON lines, {"prompt": "..."}.'
        ),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            help='Checks that the gate runs: JSON lines, {"prompt": "...", "expect": {"contains": '
            '["..."]}}. Expectations: contains, contains_any, regex, json_schema; all must hold.'
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the adapter is live or the run has failed.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Internalise a system prompt: register it, distil it, gate the adapter, roll it out.

    Example: byheart compile prompt.txt --seeds seeds.jsonl --anchors anchors.jsonl --wait

    About 30 seed prompts are enough; the model writes more questions. Seeds and anchors from an
    earlier call stay unless this one replaces them. The daemon does the work; with --wait, exit
    code 0 means that the adapter is live, 3 that there was nothing to learn.
    """
    text = input_files.read_system_prompt(file)
    seed_prompts = input_files.read_prompts(seeds)
    checks_in_file = input_files.read_anchors(anchors)
    with open_settings_and_database(config) as (settings, db):
        check_trainable(settings)
        length = prompt_length(settings, text)
        with db.begin() as session:
            is_new = namespaces.ensure(session, namespace, utcnow())
            changes = {"namespace added": namespace} if is_new else {}
            row = prompts.register_system_prompt(session, namespace, text, length, utcnow())
            changes["prompt registered"] = row.id
            if seed_prompts:
                changes["seeds replaced"] = namespace
                prompts.replace_seeds(session, namespace, [*map(list, seed_prompts)])
            if checks_in_file:
                changes["anchors replaced"] = namespace
                checks = [(list(anchor.messages), anchor.expect) for anchor in checks_in_file]
                prompts.replace_anchors(session, namespace, checks)
            run = open_run(session, namespace, settings, f"compile {file.name}", utcnow())
            changes["run started"] = run
            for action, subject in changes.items():
                detail = {"namespace": namespace}
                audit.append(session, OPERATOR, action, subject, detail, utcnow())
        counts = f"{len(seed_prompts)} seeds, {len(checks_in_file)} anchors"
        console.print(f"system prompt: {length} tokens; {counts}", markup=False)
        console.print(f"run {run}", markup=False)
        if wait:
            _wait(settings, db, run)
        elif not daemon_is_running(settings.data_dir):
            console.print("no daemon is running; the run starts with `byheart serve`")


def _wait(settings: Settings, db: Database, run_id: str) -> None:
    """Show the run's progress until its adapter is live, or the run has ended without one.

    Raises:
        StartError: No daemon is running.
    """
    with stages() as show:
        while (ended := outcome(settings, db, run_id)) is None:
            if not daemon_is_running(settings.data_dir):
                raise StartError(
                    f"No daemon is running in {settings.data_dir}. Run {run_id} stays queued and "
                    "continues with `byheart serve`."
                )
            with db.read() as session:
                run = runs.get(session, run_id)
                progress = dict(run.progress) if run else {}
            stage = str(progress.get("stage", "waiting for the daemon"))
            show(stage, progress.get("step"), progress.get("total"))
            time.sleep(POLL_S)
    message, code = ended
    console.print(message, markup=False)
    if code:
        raise typer.Exit(code)


def outcome(settings: Settings, db: Database, run_id: str) -> tuple[str, int] | None:
    """Return the final message and exit code, or None while the run continues."""
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
        return f"unknown adapter {run.adapter}", 1
    if adapter.status is AdapterStatus.CANDIDATE:
        needs_approval = verdict.passed and not settings.gate.auto_promote
        hint = (
            f"{adapter.name} passed the gate; approve it: `byheart rollout promote {adapter.name}`"
        )
        return (f"{hint}\n{reasons}", 1) if needs_approval else None
    is_live = adapter.status is AdapterStatus.LIVE
    return f"{adapter.name} is {adapter.status}:\n{reasons}", 0 if is_live else 1
