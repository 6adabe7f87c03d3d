"""Runs of the daemon's database: `python -m distill run ID` reads a run's row and records its end.

Training shares only database rows and the adapter folder with serving. The folder appears by an
atomic rename; the candidate's row, the run's end and the rollout job are one transaction. A crash
therefore leaves all or nothing, and a killed run is restarted and resumes from its last checkpoint.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from config.renamed import with_current_names
from config.settings import Settings
from distill import train
from distill.data.split import MAX_HELD_OUT
from distill.evaluate import preflight
from distill.model.adapter_files import MANIFEST
from distill.model.distributed import init_parallel
from distill.model.engine_sampler import EngineAddress, EngineUnavailable
from distill.progress import PlainProgress, Report, no_report
from distill.roles import LORA_SHAPE
from distill.run import checkpoint
from distill.run.checkpoint import freeze_inputs
from distill.run.folders import FolderError
from distill.run.plot import plot_curves
from distill.settings import TrainerSettings
from distill.spec import Parent, RunSpec
from distill.train import Outcome
from store import adapters, interactions, jobs, prompts, relapses, runs, snapshots
from store.adapter_tables import Run
from store.anchors import Anchor
from store.clock import utcnow
from store.db import DATABASE_UNAVAILABLE, Database, Session
from store.durable_files import sha256
from store.runs import TRAINED, UnknownRun
from store.schema import RunStatus

MAX_LOGGED = 400
PROGRESS_EVERY_S = 0.5


def run(run_id: str, settings: Settings, db: Database) -> None:
    """Execute the run and record its end.

    Raises:
        UnknownRun: There is no such run.
        NothingToLearn: The context changes no answers; recorded as `nothing_to_learn`.
        DATABASE_UNAVAILABLE, EngineUnavailable, FolderError, OSError, SafetensorError: The database
            or the sampling engine is unavailable, a folder is unusable or locked, or the disk is
            full. Nothing is recorded or removed, and the run can be resumed.
        Exception: The run failed; recorded as its reason.
    """
    if not init_parallel().is_main_process:
        train_as_worker(run_id, settings, db)
        return
    with db.begin() as session:
        row = runs.start(session, run_id, utcnow())
    try:
        with db.read() as session:
            spec, snapshot = read_spec(session, row, settings)
        spec = freeze_inputs(spec, writes=True)
        outcome = train.run(spec, database_progress(db, run_id))
    except (*DATABASE_UNAVAILABLE, EngineUnavailable, FolderError, OSError, SafetensorError):
        raise
    except preflight.NothingToLearn as error:
        _finish(db, run_id, RunStatus.NOTHING_TO_LEARN, str(error))
        raise
    except Exception as error:
        _finish(db, run_id, RunStatus.FAILED, f"{type(error).__name__}: {error}")
        raise
    assert outcome, "the main process has the outcome"
    plot_curves(outcome.curves, spec.work / "curves.png", outcome.adapter.name)
    with db.begin() as session:
        register(session, run_id, snapshot, spec.parent, outcome, settings.data_dir)


def train_as_worker(run_id: str, settings: Settings, db: Database) -> None:
    """Take part in a run as a process other than the main one; writes no rows."""
    with db.read() as session:
        row = runs.get(session, run_id)
        if row is None:
            raise UnknownRun(run_id)
        spec, _ = read_spec(session, row, settings)
    train.run(freeze_inputs(spec, writes=False), no_report)


def read_spec(session: Session, row: Run, settings: Settings) -> tuple[RunSpec, str]:
    """Read a run's specification and the name of its snapshot."""
    snapshot = snapshots.get(session, row.snapshot, row.namespace)
    if snapshot is None:
        raise UnknownRun(row.id)
    # As of the run's creation, so that a resumed run reads the same prompts.
    until = row.created_at
    logged = interactions.logged_prompts(session, row.namespace, False, MAX_LOGGED, until)
    held_out = interactions.logged_prompts(session, row.namespace, True, MAX_HELD_OUT, until)
    seed_prompts = [prompt.messages for prompt in prompts.seeds(session, row.namespace)]
    relapsed = relapses.since_live(session, row.namespace)
    failed = relapses.failed_prompts(session, row.namespace, relapsed)
    distill = TrainerSettings.model_validate(with_current_names("distill", row.settings))
    spec = RunSpec(
        model=settings.model_folder,
        context=snapshots.context_of(snapshot),
        prompts=tuple(map(tuple, [*seed_prompts, *failed, *logged])),
        settings=distill,
        out=settings.data_dir / "adapters" / row.namespace,
        work=settings.data_dir / "runs" / row.id,
        held_out=tuple(map(tuple, held_out)),
        anchors=tuple(
            Anchor(tuple(anchor.messages), anchor.expect)
            for anchor in prompts.anchors(session, row.namespace)
        ),
        lesson_kinds=tuple(lesson["kind"] for lesson in snapshot.lessons),
        relapsed=tuple(sorted(relapsed)),
        drop_long=True,
        run=row.id,
        engine=sampling_engine(settings, distill),
        template=settings.engine.template_arguments,
        parent=parent_adapter(session, row.namespace, distill, settings.data_dir),
    )
    return spec, snapshot.hash


def sampling_engine(settings: Settings, distill: TrainerSettings) -> EngineAddress | None:
    """Return the first engine if the run samples in the engine, otherwise None."""
    if distill.sampler == "local" or not settings.engine.urls:
        return None
    return EngineAddress(settings.engine.urls[0], settings.engine.api_key)


def parent_adapter(
    session: Session, namespace: str, settings: TrainerSettings, data_dir: Path
) -> Parent | None:
    """Return the live adapter if the run starts from it and has the same rank and alpha."""
    live = adapters.live(session, namespace)
    if settings.generation == "from_base" or live is None:
        return None
    snapshot = snapshots.get(session, live.snapshot, namespace)
    trained_by = runs.get(session, live.run)
    if snapshot is None or trained_by is None:
        return None
    same_shape = all(
        trained_by.settings.get(name) == getattr(settings, name) for name in LORA_SHAPE
    )
    return (
        Parent(adapters.folder(live, data_dir), snapshots.context_of(snapshot))
        if same_shape
        else None
    )


def register(
    session: Session,
    run_id: str,
    snapshot: str,
    parent: Parent | None,
    outcome: Outcome,
    data_dir: Path,
) -> None:
    """Record the candidate, the run's end and the rollout job, in one transaction."""
    statements, gap = outcome.evaluation.statements, outcome.evaluation.gap_closed
    learned = sum(each["learned"] for each in statements)
    row = runs.finish(
        session,
        run_id,
        RunStatus.PUBLISHED,
        f"{learned} of {len(statements)} statements learned, gap closed by {gap:.0%}.",
        utcnow(),
        adapter=outcome.adapter.name,
    )
    adapters.register(
        session,
        name=outcome.adapter.name,
        namespace=row.namespace,
        run=run_id,
        parent=parent.folder.name if parent else None,
        snapshot=snapshot,
        path=str(outcome.adapter.relative_to(data_dir)),
        manifest_sha256=sha256(outcome.adapter / MANIFEST),
        measured=nan_to_none(outcome.evaluation.as_dict()),
        now=utcnow(),
    )
    payload = {"adapter": outcome.adapter.name}
    unique_key = f"rollout {outcome.adapter.name}"
    jobs.enqueue(session, "rollout", payload, utcnow(), unique_key=unique_key)


def database_progress(
    db: Database, run_id: str, timer: Callable[[], float] = time.monotonic
) -> Report:
    """Return a callback that updates the run's row; it raises if the run was cancelled."""
    last: dict[str, Any] = {"stage": None, "at": 0.0}
    lines = PlainProgress()

    def report(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        lines(stage, done, total, metrics)
        if stage == last["stage"] and done < total and timer() - last["at"] < PROGRESS_EVERY_S:
            return
        last.update(stage=stage, at=timer())
        with db.begin() as session:
            values = {"stage": stage, "step": done, "total": total, **nan_to_none(metrics)}
            values |= {TRAINED: done} if stage == "train" else {}
            runs.progress(session, run_id, values)

    return report


def nan_to_none(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with NaN and infinities replaced by None, for JSON."""
    cleaned: dict[str, Any] = json.loads(json.dumps(values), parse_constant=lambda _: None)
    return cleaned


def clear_finished(db: Database, work: Path) -> None:
    """Remove the checkpoints of all finished runs, including cancelled ones.

    Args:
        db: Database with the runs' rows.
        work: Folder of the runs' work folders, which are named by run.
    """
    with db.read() as session:
        for folder in work.glob("run_*"):
            run = runs.get(session, folder.name)
            if run is not None and run.finished_at:
                checkpoint.clear(folder)


def _finish(db: Database, run_id: str, status: RunStatus, reason: str) -> None:
    with db.begin() as session:
        runs.finish(session, run_id, status, reason, utcnow())
