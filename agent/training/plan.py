"""When a run is due, and what it is opened over."""

from datetime import datetime, timedelta

import structlog

from config.settings import Settings
from store import jobs, lessons, namespaces, prompts, runs, snapshots
from store.db import Session
from store.models import Lesson, Run, Snapshot
from store.schema import LessonStatus

log = structlog.get_logger(__name__)

UNLEARN_AGAIN_AFTER = timedelta(days=1)
"""Until it is tried again, where the run failed or its adapter was rejected."""


def lessons_to_unlearn(session: Session, namespace: str, now: datetime) -> list[str]:
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
    enqueue_train(session, run, now)
    log.info("run opened", run=run.id, namespace=namespace, trigger=trigger)
    return run.id


def enqueue_train(session: Session, run: Run, now: datetime) -> None:
    """Enqueue a run's job, which goes on from its last resume point."""
    payload = {"run": run.id, "from_step": steps_taken(run)}
    jobs.enqueue(session, "train", payload, now, unique_key=f"train {run.id}")


def steps_taken(run: Run) -> int:
    """The optimiser steps that a run was seen to have taken; 0 until it trains."""
    return int(run.progress.get(runs.TRAINED, 0))
