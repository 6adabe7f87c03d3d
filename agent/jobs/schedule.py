"""What is due: the scheduler's tick. It only enqueues; the job table does the rest.

Every piece of work has a unique key, so ticks of several processes, or a tick after a crash,
enqueue it once.
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
    namespaces,
    runs,
)
from store.db import Database, Session
from store.schema import JobStatus, RunStatus

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 500
"""Extractions enqueued by one tick; the next one goes on."""
RETRY_AFTER = timedelta(minutes=10)
"""Until a rollout that gave up is tried again, and an extraction, where nothing new was said."""

RETAIN, RETAIN_EVERY = "retain", timedelta(hours=1)


def enqueue_due(db: Database, settings: Settings, now: datetime) -> None:
    """Enqueue every piece of work whose time has come."""
    if settings.learning.enabled:
        _enqueue_extractions(db, settings, now)
    with db.begin() as session:
        for namespace in namespaces.names(session):
            if settings.distill.auto:
                _open_due_run(session, namespace, settings, now)
        _enqueue_unfinished(session, settings, now)
        if settings.store.texts_days or settings.store.interactions_days:
            _enqueue_retention(session, now)


def _enqueue_retention(session: Session, now: datetime) -> None:
    last = jobs.latest(session, RETAIN)
    if last is None or (last.finished_at and last.finished_at <= now - RETAIN_EVERY):
        jobs.enqueue(session, RETAIN, {}, now, unique_key=RETAIN)


def _enqueue_extractions(db: Database, settings: Settings, now: datetime) -> None:
    idle_before = now - timedelta(seconds=settings.learning.idle_s)
    with db.read() as session:  # with many conversations, the writers must not wait for the look
        due = conversations.due(session, idle_before, now - RETRY_AFTER, MOST_AT_ONCE)
    if not due:
        return
    with db.begin() as session:
        for one in due:
            payload = {"namespace": one.namespace, "conversation": one.id}
            key = conversations.job_key(one.id)
            jobs.enqueue(session, "extract", payload, now, unique_key=key)


def _open_due_run(session: Session, namespace: str, settings: Settings, now: datetime) -> None:
    namespaces.hold(session, namespace)  # another process may be opening the same run
    if runs.unfinished(session, namespace):
        return
    fresh = untried_lessons(session, namespace, settings.distill.max_lesson_tokens)
    latest = max((lesson.created_at for lesson in fresh), default=now)
    settled = latest <= now - timedelta(seconds=settings.distill.settle_s)
    if len(fresh) >= settings.distill.min_new_lessons and settled:
        open_run(session, namespace, settings, f"{len(fresh)} lessons are new", now)
    elif gone := lessons_to_unlearn(session, namespace, now):
        open_run(session, namespace, settings, f"{len(gone)} lessons were taken out", now)


def _enqueue_unfinished(session: Session, settings: Settings, now: datetime) -> None:
    """End the runs whose job gave up; enqueue what has no job, so that no candidate is forgotten.

    A run that was killed too often and still got further is not given up: machines that are taken
    away now and then finish it in the end. A rollout gives up when the engine is away for long,
    which says nothing about the candidate.
    """
    for run in runs.all_unfinished(session):
        last = jobs.latest(session, f"train {run.id}")
        stuck = last and steps_taken(run) <= last.payload.get("from_step", 0)
        if last and stuck and last.status is JobStatus.FAILED:
            runs.finish(session, run.id, RunStatus.FAILED, last.error or "The job failed.", now)
        else:
            enqueue_train(session, run, now)
    for candidate in adapters.candidates(session):
        if adapters.evaluation(session, candidate.name).passed and not settings.gate.auto_promote:
            continue  # it waits for approval
        payload, key = {"adapter": candidate.name}, f"rollout {candidate.name}"
        last = jobs.latest(session, key)
        if last and last.finished_at and last.finished_at > now - RETRY_AFTER:
            continue
        jobs.enqueue(session, "rollout", payload, now, unique_key=key)
