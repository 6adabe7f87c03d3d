"""The scheduler's tick: retires expired lessons, fails stuck runs, and enqueues jobs that are due.

Every job has a unique key, so it is enqueued only once, even by ticks of several processes or by a
tick after a crash.
"""

from datetime import datetime, timedelta

import structlog

from agent.training.plan import (
    enqueue_train,
    lessons_to_unlearn,
    open_run,
    steps_taken,
    untried_lessons,
)
from config.settings import Settings
from store import (
    adapters,
    conversations,
    jobs,
    lesson_options,
    namespaces,
    runs,
)
from store.db import Database, Session
from store.schema import JobStatus, RunStatus

log = structlog.get_logger(__name__)

MAX_EXTRACTIONS_PER_TICK = 500
"""The next tick enqueues the rest."""
RETRY_AFTER = timedelta(minutes=10)
"""Delay before a rollout that gave up is retried, or an extraction with no new interactions."""

RETAIN, RETAIN_INTERVAL = "retain", timedelta(hours=1)


def tick(db: Database, settings: Settings, now: datetime) -> None:
    """Retire expired lessons, fail stuck runs, and enqueue every job that is due."""
    if settings.learning.enabled:
        _enqueue_extractions(db, settings, now)
    with db.begin() as session:
        for namespace in namespaces.names(session):
            for lesson in lesson_options.retire_expired(session, namespace, now):
                log.info("lesson expired", lesson=lesson.id, namespace=namespace)
            if settings.distill.auto:
                _open_due_run(session, namespace, settings, now)
        _resume_or_fail_runs(session, now)
        _enqueue_rollouts(session, settings, now)
        if settings.store.texts_days or settings.store.interactions_days:
            _enqueue_retention(session, now)


def _enqueue_retention(session: Session, now: datetime) -> None:
    last = jobs.latest(session, RETAIN)
    if last is None or (last.finished_at and last.finished_at <= now - RETAIN_INTERVAL):
        jobs.enqueue(session, RETAIN, {}, now, unique_key=RETAIN)


def _enqueue_extractions(db: Database, settings: Settings, now: datetime) -> None:
    idle_before = now - timedelta(seconds=settings.learning.idle_s)
    with db.read() as session:  # a read transaction: a long query must not block writers
        due = conversations.due(session, idle_before, now - RETRY_AFTER, MAX_EXTRACTIONS_PER_TICK)
    if not due:
        return
    with db.begin() as session:
        for conversation in due:
            payload = {"namespace": conversation.namespace, "conversation": conversation.id}
            key = conversations.job_key(conversation.id)
            jobs.enqueue(session, "extract", payload, now, unique_key=key)


def _open_due_run(session: Session, namespace: str, settings: Settings, now: datetime) -> None:
    """Open a training run if one is due, and none is unfinished."""
    namespaces.lock(session, namespace)  # another process may be opening the same run
    if runs.unfinished(session, namespace):
        return
    fresh = untried_lessons(session, namespace, settings.distill.max_lesson_tokens)
    latest = max((lesson.created_at for lesson in fresh), default=now)
    settled = latest <= now - timedelta(seconds=settings.distill.settle_s)
    if len(fresh) >= settings.distill.min_new_lessons and settled:
        open_run(session, namespace, settings, f"{len(fresh)} new or relapsed lessons", now)
    elif retired := lessons_to_unlearn(session, namespace, now):
        open_run(session, namespace, settings, f"{len(retired)} retired lessons to unlearn", now)


def _resume_or_fail_runs(session: Session, now: datetime) -> None:
    """Fail runs that are stuck, and enqueue a job for each other unfinished run.

    A run whose job failed is stuck only if it made no progress: on machines that are preempted,
    many attempts may be killed and the run still finishes.
    """
    for run in runs.all_unfinished(session):
        last = jobs.latest(session, f"train {run.id}")
        stuck = last and steps_taken(run) <= last.payload.get("from_step", 0)
        if last and stuck and last.status is JobStatus.FAILED:
            runs.finish(session, run.id, RunStatus.FAILED, last.error or "The job failed.", now)
        else:
            enqueue_train(session, run, now)


def _enqueue_rollouts(session: Session, settings: Settings, now: datetime) -> None:
    """Enqueue a rollout for each candidate that does not wait for approval.

    A rollout gives up when the engine is unavailable for long. That says nothing about the
    candidate, so it is retried.
    """
    for candidate in adapters.candidates(session):
        if adapters.evaluation(session, candidate.name).passed and not settings.gate.auto_promote:
            continue  # it awaits approval
        payload, key = {"adapter": candidate.name}, f"rollout {candidate.name}"
        last = jobs.latest(session, key)
        if last and last.finished_at and last.finished_at > now - RETRY_AFTER:
            continue
        jobs.enqueue(session, "rollout", payload, now, unique_key=key)
