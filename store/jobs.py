"""The job queue, stored in a table, so that a crash loses no job.

A job is enqueued in the same transaction as its cause, claimed under a lease, and ended by the
worker that holds its current fence. A worker that stops renewing its lease loses the job to the
next claim, which increments the fence, so the first worker can no longer end the job. Attempts are
counted when a job is claimed, so a job that kills its worker runs out of attempts too. The fence
protects only the job's row: a job may run more than once, even concurrently, so its effects must be
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
    """Another worker claimed the job, or it has ended."""

    def __init__(self, job: str) -> None:
        super().__init__(
            f"Job {job} was taken over or cancelled: stop working on it and discard its result."
        )


@dataclass(frozen=True)
class Claim:
    """A claimed job, as its worker sees it."""

    id: str
    kind: str
    payload: dict[str, Any]
    fence: int
    attempts: int
    """Including this one."""


def enqueue(  # noqa: PLR0913 — a job's columns
    session: Session,
    kind: str,
    payload: dict[str, Any],
    now: datetime,
    unique_key: str | None = None,
    run_at: datetime | None = None,
    max_attempts: int = 3,
) -> str | None:
    """Add a job; return its id, or None if an unfinished job has the same `unique_key`.

    The unfinished job may already have read its input. A cause that must not be missed therefore
    has to be visible in the tables when the scheduler next looks for due work.
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
    """Claim the job that has been due longest, for `lease_s` seconds; None if no job is due.

    A due job without attempts left is marked failed, and the next one is tried.
    """
    while (job := session.scalars(_due(kinds, now)).first()) is not None:
        if job.attempts < job.max_attempts:
            job.status = JobStatus.RUNNING
            job.fence += 1
            job.attempts += 1
            job.lease_until = now + timedelta(seconds=lease_s)
            session.flush()
            return Claim(job.id, job.kind, job.payload, job.fence, job.attempts)
        error = f"Its worker died or hung in each of {job.attempts} attempts."
        _end(job, JobStatus.FAILED, f"{error} Last error: {job.error}" if job.error else error, now)
        session.flush()
    return None


def heartbeat(session: Session, claim: Claim, now: datetime, lease_s: float) -> bool:
    """Renew the lease; return False if the job is lost and the worker must stop."""
    job = _claimed(session, claim)
    if job is None:
        return False
    job.lease_until = now + timedelta(seconds=lease_s)
    return True


def finish(session: Session, claim: Claim, now: datetime) -> None:
    """Mark the job done, after its effects are stored.

    Raises:
        LeaseLost: Another worker claimed the job, or it has ended.
    """
    _end(_require_claim(session, claim), JobStatus.DONE, None, now)


def fail(
    session: Session, claim: Claim, error: str, now: datetime, retry_in_s: float | None
) -> None:
    """Record an error and schedule a retry, or fail the job if it has no attempts left.

    Args:
        session: In a write transaction.
        claim: The worker's claim.
        error: A human-readable error message.
        now: The current time.
        retry_in_s: Seconds until the next attempt; None fails the job without a retry.

    Raises:
        LeaseLost: Another worker claimed the job, or it has ended.
    """
    job = _require_claim(session, claim)
    if retry_in_s is None or job.attempts >= job.max_attempts:
        _end(job, JobStatus.FAILED, error, now)
        return
    job.status = JobStatus.READY
    job.run_at = now + timedelta(seconds=retry_in_s)
    job.lease_until = None
    job.error = error


def release(session: Session, claim: Claim, now: datetime) -> None:
    """Make the job claimable immediately, for a worker that shuts down; the attempt is not counted.

    Raises:
        LeaseLost: Another worker claimed the job, or it has ended.
    """
    job = _require_claim(session, claim)
    job.status = JobStatus.READY
    job.run_at = now
    job.lease_until = None
    job.attempts -= 1


def cancel(session: Session, job_id: str, now: datetime) -> bool:
    """Cancel an unfinished job, whose worker stops at its next heartbeat; False if it has ended."""
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.status not in UNFINISHED:
        return False
    _end(job, JobStatus.CANCELLED, "Cancelled.", now)
    return True


def latest(session: Session, unique_key: str) -> Job | None:
    """Return the newest job with a unique key, finished or not."""
    rows = select(Job).where(Job.unique_key == unique_key)
    return session.scalar(rows.order_by(Job.id.desc()).limit(1))


def count_unfinished(session: Session) -> int:
    """Return the number of ready and running jobs."""
    return session.scalar(select(func.count()).where(Job.status.in_(UNFINISHED))) or 0


def listing(session: Session, limit: int) -> list[Job]:
    """Return the newest jobs, newest first."""
    return list(session.scalars(select(Job).order_by(Job.id.desc()).limit(limit)))


def _due(kinds: Sequence[str], now: datetime) -> Select[Job]:
    waiting = and_(Job.status == JobStatus.READY, Job.run_at <= now)
    abandoned = and_(Job.status == JobStatus.RUNNING, Job.lease_until <= now)
    return (
        select(Job)
        .where(Job.kind.in_(kinds), or_(waiting, abandoned))
        .order_by(Job.run_at, Job.id)
        .limit(1)
        # PostgreSQL skips jobs that another worker is claiming; SQLite has a single writer.
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )


def _claimed(session: Session, claim: Claim) -> Job | None:
    """Return the job, locked, if the claim is still valid."""
    job = session.get(Job, claim.id, with_for_update=True, populate_existing=True)
    is_valid = job is not None and job.status is JobStatus.RUNNING and job.fence == claim.fence
    return job if is_valid else None


def _require_claim(session: Session, claim: Claim) -> Job:
    job = _claimed(session, claim)
    if job is None:
        raise LeaseLost(claim.id)
    return job


def _end(job: Job, status: JobStatus, error: str | None, now: datetime) -> None:
    job.status = status
    job.error = error
    job.lease_until = None
    job.finished_at = now
