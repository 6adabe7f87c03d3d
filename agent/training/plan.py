"""Training runs: when one is due, why one is not repeated, and how it is opened.

A run is due in a namespace (the scheduler asks, see `agent/jobs/schedule.py`) when

- at least `distill.min_new_lessons` active lessons were not in the last run, or have relapsed since
  it was opened, and none of them was added within the last `distill.settle_s` seconds
  (`untried_lessons`), or
- the live adapter was trained on lessons that have been retired since (`lessons_to_unlearn`).

A run always learns the namespace's whole current context. A run that failed, or whose adapter was
rejected, is not repeated on the same lessons, because nothing would be different: lessons count as
tried after the last run, regardless of its outcome, and unlearning is retried only once a day. The
exception is a last run with lessons that have been retired since: it does not show what the
remaining lessons achieve alone, so they count as untried. Lessons that have relapsed so often that
this base cannot learn them stay in the prompt and start no run.
"""

from datetime import datetime, timedelta

import structlog

from config.settings import Settings
from store import jobs, lessons, namespaces, prompts, runs, snapshots, statements
from store.adapter_tables import Run
from store.db import Session
from store.models import Lesson, Snapshot
from store.schema import LessonStatus

log = structlog.get_logger(__name__)

UNLEARN_RETRY_AFTER = timedelta(days=1)
"""Delay before unlearning is retried after a run that failed or whose adapter was rejected."""


def lessons_to_unlearn(session: Session, namespace: str, now: datetime) -> list[str]:
    """Return the retired lessons that the live adapter was trained on.

    Empty if the last run was already without them and is less than a day old, or if no lesson and
    no system prompt would be left to train on: then only a rollback helps.
    """
    live = namespaces.trained_snapshot(session, namespace)
    tried = _last_tried(session, namespace)
    retired = lessons.texts_no_longer_used(session, live) if live else []
    nothing_left = not lessons.in_use(session, namespace) and not prompts.system_prompt(
        session, namespace
    )
    tried_recently = (
        tried is not None
        and not lessons.texts_no_longer_used(session, tried)
        and runs.listing(session, namespace)[0].created_at > now - UNLEARN_RETRY_AFTER
    )
    return [] if nothing_left or tried_recently else retired


def untried_lessons(session: Session, namespace: str, token_budget: int) -> list[Lesson]:
    """Return the active lessons of the next run that no run has tried as they are now.

    They were not in the last run, or have relapsed since it was opened. Lessons that do not fit
    into `token_budget` would not be in the next run, so they do not trigger it. A last run with
    lessons that have been retired since is disregarded.
    """
    excluded = _tried_texts(session, namespace) | statements.unlearnable(session, namespace)
    return [
        lesson
        for lesson in snapshots.select_lessons(session, namespace, token_budget)
        if lesson.status is LessonStatus.ACTIVE and lessons.text(lesson) not in excluded
    ]


def _tried_texts(session: Session, namespace: str) -> frozenset[str]:
    """Return the lessons that the last run had and that have not relapsed since."""
    snapshot = _last_tried(session, namespace)
    if snapshot is None or lessons.texts_no_longer_used(session, snapshot):
        return frozenset()
    opened_at = runs.listing(session, namespace)[0].created_at
    relapsed = statements.relapsed_since(session, namespace, opened_at)
    return lessons.snapshot_texts(snapshot.lessons) - relapsed


def _last_tried(session: Session, namespace: str) -> Snapshot | None:
    """Return the snapshot of the namespace's last run, regardless of its outcome."""
    past = runs.listing(session, namespace)
    return snapshots.get(session, past[0].snapshot, namespace) if past else None


def open_run(
    session: Session, namespace: str, settings: Settings, trigger: str, now: datetime
) -> str:
    """Open a run over the namespace's whole current context and enqueue its job."""
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
    """Enqueue a run's job, which resumes from the last checkpoint."""
    payload = {"run": run.id, "from_step": steps_taken(run)}
    jobs.enqueue(session, "train", payload, now, unique_key=f"train {run.id}")


def steps_taken(run: Run) -> int:
    """Return the optimiser steps that a run has reported; 0 before it trains."""
    return int(run.progress.get(runs.TRAINED, 0))
