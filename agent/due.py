"""What is due: the scheduler's tick. It only enqueues; the job table does the rest.

Every piece of work has a unique key, so ticks of several processes, or a tick after a crash,
enqueue it once.
"""

from datetime import datetime, timedelta

import structlog

from config.settings import Settings
from store import (
    adapters,
    audit,
    conversations,
    jobs,
    lessons,
    namespaces,
    prompts,
    runs,
    snapshots,
)
from store.db import Database, Session
from store.models import Adapter, Lesson, Run, Snapshot
from store.schema import JobStatus, LessonStatus, RunStatus

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 500
"""Extractions enqueued by one tick; the next one goes on."""
RETRY_AFTER = timedelta(minutes=10)
"""Until a rollout that gave up is tried again, and an extraction, where nothing new was said."""

RETAIN, RETAIN_EVERY = "retain", timedelta(hours=1)
UNLEARN_AGAIN_AFTER = timedelta(days=1)
"""Until it is tried again, where the run failed or its adapter was rejected."""


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
    elif gone := to_unlearn(session, namespace, now):
        open_run(session, namespace, settings, f"{len(gone)} lessons were taken out", now)


def to_unlearn(session: Session, namespace: str, now: datetime) -> list[str]:
    """Lessons taken out that the live adapter holds, unless a run without them was tried of late.

    None where nothing would be left to learn: then only a rollback helps.
    """
    live, tried = namespaces.internalised(session, namespace), _last_tried(session, namespace)
    gone = lessons.taken_out(session, live) if live else []
    nothing_left = not lessons.in_use(session, namespace) and not prompts.system_prompt(
        session, namespace
    )
    tried_of_late = (
        tried is not None
        and not lessons.taken_out(session, tried)
        and runs.listing(session, namespace)[0].created_at > now - UNLEARN_AGAIN_AFTER
    )
    return [] if nothing_left or tried_of_late else gone


def untried_lessons(session: Session, namespace: str, token_budget: int) -> list[Lesson]:
    """Lessons that the next run would have, that the last one did not and no live adapter has.

    A run that failed, or whose adapter was rejected, is so not repeated on the same lessons, and
    lessons that no run has room for start none. One that had lessons taken out since says nothing
    about those that are left.
    """
    snapshot = _last_tried(session, namespace)
    if snapshot and lessons.taken_out(session, snapshot):
        snapshot = None
    tried = lessons.snapshot_texts(snapshot.lessons) if snapshot else frozenset()
    return [
        lesson
        for lesson in snapshots.chosen(session, namespace, token_budget)
        if lesson.status is LessonStatus.ACTIVE and lessons.text(lesson) not in tried
    ]


def _last_tried(session: Session, namespace: str) -> Snapshot | None:
    past = runs.listing(session, namespace)
    return snapshots.get(session, past[0].snapshot, namespace) if past else None


def open_run(
    session: Session, namespace: str, settings: Settings, trigger: str, now: datetime
) -> str:
    """Open a run over the namespace's whole current context; its job is enqueued with it."""
    run = runs.open_run(
        session,
        namespace,
        settings.distill.model_dump(mode="json"),
        trigger,
        token_budget=settings.distill.max_lesson_tokens,
        now=now,
    )
    _enqueue_train(session, run, now)
    log.info("run opened", run=run.id, namespace=namespace, trigger=trigger)
    return run.id


def approve(session: Session, candidate: Adapter, actor: str, now: datetime) -> None:
    """Let a candidate that waits for it go on to be live; its rollout is enqueued."""
    payload = {"adapter": candidate.name, "approved": True}
    jobs.enqueue(session, "rollout", payload, now, unique_key=f"approved {candidate.name}")
    detail = {"namespace": candidate.namespace}
    audit.append(session, actor, "approved", candidate.name, detail, now)


def _enqueue_unfinished(session: Session, settings: Settings, now: datetime) -> None:
    """End the runs whose job gave up; enqueue what has no job, so that no candidate is forgotten.

    A run that was killed too often and still got further is not given up: machines that are taken
    away now and then finish it in the end. A rollout gives up when the engine is away for long,
    which says nothing about the candidate.
    """
    for run in runs.all_unfinished(session):
        last = jobs.latest(session, f"train {run.id}")
        stuck = last and _steps(run) <= last.payload.get("from_step", 0)
        if last and stuck and last.status is JobStatus.FAILED:
            runs.finish(session, run.id, RunStatus.FAILED, last.error or "The job failed.", now)
        else:
            _enqueue_train(session, run, now)
    for candidate in adapters.candidates(session):
        if adapters.evaluation(session, candidate.name).passed and not settings.gate.auto_promote:
            continue  # it waits for approval
        payload, key = {"adapter": candidate.name}, f"rollout {candidate.name}"
        last = jobs.latest(session, key)
        if last and last.finished_at and last.finished_at > now - RETRY_AFTER:
            continue
        jobs.enqueue(session, "rollout", payload, now, unique_key=key)


def _enqueue_train(session: Session, run: Run, now: datetime) -> None:
    payload = {"run": run.id, "from_step": _steps(run)}
    jobs.enqueue(session, "train", payload, now, unique_key=f"train {run.id}")


def _steps(run: Run) -> int:
    """The optimiser steps that a run was seen to have taken; 0 until it trains."""
    return int(run.progress.get(runs.TRAINED, 0))
