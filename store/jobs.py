"""The job queue: the table is the queue, so a crash loses nothing and a job rides on its cause.

A job is enqueued in the transaction that creates the reason for it, claimed under a lease, and
ended by the worker whose fence it carries. A worker that stops renewing its lease loses the job to
the next claim, which raises the fence: the first one cannot end the job any more. Attempts are
counted at the claim, so that a job which kills its worker also runs out of them. The fence protects
the job's row alone: a job may run more than once, even twice at a time, so its effects must be
idempotent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, func, or_, select

from store.db import Session, insert_if_absent, new_id
from store.operations import Job
from store.schema import JobStatus

UNFINISHED = (JobStatus.READY, JobStatus.RUNNING)


class LeaseLost(Exception):
    """The job belongs to another worker by now, or is over."""

    def __init__(self, job: str) -> None:
        super().__init__(
            f"Job {job} was taken over or cancelled: stop working on it, its result is not wanted."
        )


@dataclass(frozen=True)
class Claim:
    """A job as its worker has it."""

    id: str
    kind: str
    payload: dict[str, Any]
    fence: int
    attempts: int
    """With this one."""


def enqueue(  # noqa: PLR0913 — what a job is
    session: Session,
    kind: str,
    payload: dict[str, Any],
    now: datetime,
    unique_key: str | None = None,
    run_at: datetime | None = None,
    max_attempts: int = 3,
) -> str | None:
    """Add a job; its id, or None where an unfinished job has the key.

    That job may be running and have read its input already: a cause that must not be missed has to
    be visible in rows, to the next look for due work.
    """
    job = new_id("job")
    added = insert_if_absent(
        session,
        Job,
        {
            "id": job,
            "kind": kind,
            "payload": payload,
            "unique_key": unique_key,
            "status": JobStatus.READY,
            "run_at": run_at or now,
            "max_attempts": max_attempts,
            "created_at": now,
        },
    )
    return job if added else None


def claim(session: Session, kinds: Sequence[str], now: datetime, lease_s: float) -> Claim | None:
    """Take the job that is due the longest, for `lease_s` seconds; None where none is due.

    A job that was claimed as often as it may be fails here, and the next one is looked at.
    """
    while (job := session.scalars(_due(kinds, now)).first()) is not None:
        if job.attempts < job.max_attempts:
            job.status = JobStatus.RUNNING
            job.fence += 1
            job.attempts += 1
            job.lease_until = now + timedelta(seconds=lease_s)
            session.flush()
            return Claim(job.id, job.kind, job.payload, job.fence, job.attempts)
        died = f"Its worker died or hung in each of {job.attempts} attempts."
        _end(job, JobStatus.FAILED, f"{died} Last error: {job.error}" if job.error else died, now)
        session.flush()
    return None


def heartbeat(session: Session, claim: Claim, now: datetime, lease_s: float) -> bool:
    """Renew the lease; False where the job is lost and the worker must stop."""
    job = _held(session, claim)
    if job is None:
        return False
    job.lease_until = now + timedelta(seconds=lease_s)
    return True


def finish(session: Session, claim: Claim, now: datetime) -> None:
    """Mark the job done, after its effects.

    Raises:
        LeaseLost: It is not this worker's any more.
    """
    _end(_must_hold(session, claim), JobStatus.DONE, None, now)


def fail(
    session: Session, claim: Claim, error: str, now: datetime, retry_in_s: float | None
) -> None:
    """Give the job back with its error, to be tried again while it has attempts left.

    Args:
        session: In a write transaction.
        claim: What the worker claimed.
        error: What went wrong, for a person.
        now: The time.
        retry_in_s: Seconds until the next attempt; None gives the job up.

    Raises:
        LeaseLost: It is not this worker's any more.
    """
    job = _must_hold(session, claim)
    if retry_in_s is None or job.attempts >= job.max_attempts:
        _end(job, JobStatus.FAILED, error, now)
        return
    job.status = JobStatus.READY
    job.run_at = now + timedelta(seconds=retry_in_s)
    job.lease_until = None
    job.error = error


def release(session: Session, claim: Claim, now: datetime) -> None:
    """Let another worker have the job at once, because this one shuts down; no attempt is counted.

    Raises:
        LeaseLost: It is not this worker's any more.
    """
    job = _must_hold(session, claim)
    job.status = JobStatus.READY
    job.run_at = now
    job.lease_until = None
    job.attempts -= 1


def cancel(session: Session, job_id: str, now: datetime) -> bool:
    """End an unfinished job; its worker stops at the next heartbeat. False where it is over."""
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.status not in UNFINISHED:
        return False
    _end(job, JobStatus.CANCELLED, "Cancelled.", now)
    return True


def latest(session: Session, unique_key: str) -> Job | None:
    """The newest job of a key, finished or not."""
    rows = select(Job).where(Job.unique_key == unique_key)
    return session.scalar(rows.order_by(Job.id.desc()).limit(1))


def count_unfinished(session: Session) -> int:
    """How many jobs wait or run."""
    return session.scalar(select(func.count()).where(Job.status.in_(UNFINISHED))) or 0


def listing(session: Session, limit: int) -> list[Job]:
    """The newest jobs, newest first."""
    return list(session.scalars(select(Job).order_by(Job.id.desc()).limit(limit)))


def _due(kinds: Sequence[str], now: datetime) -> Select[Job]:
    waiting = and_(Job.status == JobStatus.READY, Job.run_at <= now)
    abandoned = and_(Job.status == JobStatus.RUNNING, Job.lease_until <= now)
    return (
        select(Job)
        .where(Job.kind.in_(kinds), or_(waiting, abandoned))
        .order_by(Job.run_at, Job.id)
        .limit(1)
        # PostgreSQL passes over jobs that another worker is claiming; SQLite has one writer anyway.
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )


def _held(session: Session, claim: Claim) -> Job | None:
    """The job, locked, if it is still this worker's."""
    job = session.get(Job, claim.id, with_for_update=True, populate_existing=True)
    is_held = job is not None and job.status is JobStatus.RUNNING and job.fence == claim.fence
    return job if is_held else None


def _must_hold(session: Session, claim: Claim) -> Job:
    job = _held(session, claim)
    if job is None:
        raise LeaseLost(claim.id)
    return job


def _end(job: Job, status: JobStatus, error: str | None, now: datetime) -> None:
    job.status = status
    job.error = error
    job.lease_until = None
    job.finished_at = now
