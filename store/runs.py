"""Runs: one distillation each, from the snapshot it learns to the adapter it publishes.

The daemon or the operator opens a run; the training process starts it, reports progress and
finishes it. The operator can cancel it, and the scheduler fails it if its job gives up. A finished
run is immutable, so a training process that the daemon considered dead cannot overwrite its
outcome.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import select

from store import namespaces, snapshots
from store.adapter_tables import Run
from store.db import Session, new_id
from store.schema import IllegalTransition as IllegalTransition
from store.schema import RunStatus

TRANSITIONS: dict[RunStatus, tuple[RunStatus, ...]] = {
    RunStatus.QUEUED: (RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED),
    # A killed run restarts from its last checkpoint.
    RunStatus.RUNNING: (
        RunStatus.RUNNING,
        RunStatus.PUBLISHED,
        RunStatus.NOTHING_TO_LEARN,
        RunStatus.FAILED,
        RunStatus.CANCELLED,
    ),
    RunStatus.PUBLISHED: (),
    RunStatus.NOTHING_TO_LEARN: (),
    RunStatus.FAILED: (),
    RunStatus.CANCELLED: (),
}
TRAINED = "trained"
"""Key in a run's progress: the optimiser steps taken when last checked, over all stages."""
UNFINISHED = (RunStatus.QUEUED, RunStatus.RUNNING)


class UnknownRun(Exception):
    """There is no such run."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"There is no run {run_id!r}: `byheart train ls` lists them.")


def open_run(
    session: Session,
    namespace: str,
    settings: dict[str, Any],
    trigger: str,
    token_budget: int,
    now: datetime,
) -> Run:
    """Queue a run over the namespace's whole current context."""
    namespaces.bump_revision(session, namespace)  # serialises with changes of the context
    run = Run(
        id=new_id("run"),
        namespace=namespace,
        status=RunStatus.QUEUED,
        snapshot=snapshots.take(session, namespace, token_budget, now).hash,
        settings=settings,
        trigger=trigger,
        created_at=now,
    )
    session.add(run)
    session.flush()
    return run


def get(session: Session, run_id: str) -> Run | None:
    """Return the run with that id, or None."""
    return session.get(Run, run_id)


def listing(session: Session, namespace: str | None = None) -> list[Run]:
    """Return the runs of one namespace, or of all, newest first."""
    rows = select(Run).order_by(Run.id.desc())
    return list(session.scalars(rows.where(Run.namespace == namespace) if namespace else rows))


def unfinished(session: Session, namespace: str) -> Run | None:
    """Return the oldest unfinished run of a namespace, or None."""
    rows = select(Run).where(Run.namespace == namespace, Run.status.in_(UNFINISHED))
    return session.scalar(rows.order_by(Run.id).limit(1))


def all_unfinished(session: Session) -> list[Run]:
    """Return the unfinished runs of all namespaces, oldest first."""
    return list(session.scalars(select(Run).where(Run.status.in_(UNFINISHED)).order_by(Run.id)))


def start(session: Session, run_id: str, now: datetime) -> Run:
    """Start a run, or resume it after its process was killed.

    Raises:
        UnknownRun: There is no such run.
        IllegalTransition: It has finished.
    """
    run = _move(session, run_id, RunStatus.RUNNING)
    run.started_at = run.started_at or now
    return run


def progress(session: Session, run_id: str, values: dict[str, Any]) -> None:
    """Update the progress of a running run; values of the same names are replaced.

    Raises:
        UnknownRun: There is no such run.
        IllegalTransition: The run is not running; this stops the process of a cancelled run.
    """
    run = _move(session, run_id, RunStatus.RUNNING)
    run.progress = run.progress | values


def finish(
    session: Session,
    run_id: str,
    status: RunStatus,
    reason: str,
    now: datetime,
    adapter: str | None = None,
) -> Run:
    """End a run and record the reason.

    Raises:
        UnknownRun: There is no such run.
        IllegalTransition: It has already finished, or cannot finish with this status.
    """
    run = _move(session, run_id, status)
    run.reason = reason
    run.adapter = adapter
    run.finished_at = now
    return run


def cancel(session: Session, run_id: str, now: datetime) -> Run:
    """Cancel a run on behalf of the operator.

    Raises:
        UnknownRun: There is no such run.
        IllegalTransition: It has already finished.
    """
    return finish(session, run_id, RunStatus.CANCELLED, "Cancelled by the operator.", now)


def _move(session: Session, run_id: str, status: RunStatus) -> Run:
    run = session.get(Run, run_id, with_for_update=True, populate_existing=True)
    if run is None:
        raise UnknownRun(run_id)
    if status not in TRANSITIONS[run.status]:
        raise IllegalTransition(f"Run {run_id}", run.status, status)
    run.status = status
    return run
