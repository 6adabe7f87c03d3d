"""Options of a lesson: pinned ones come first in the prompt, expired ones are retired."""

from datetime import datetime

from sqlalchemy import select

from store import audit, lessons, namespaces
from store.db import Session
from store.models import Lesson
from store.schema import LessonStatus


def set_pinned(session: Session, lesson: Lesson, pinned: bool) -> None:
    """Pin or unpin a lesson: a pinned one is the first to get a place in prompts and runs."""
    namespaces.bump_revision(session, lesson.namespace)
    lesson.pinned = pinned
    session.flush()


def set_expiry(session: Session, lesson: Lesson, expires_at: datetime | None) -> None:
    """Set when a lesson expires; None means never."""
    lesson.expires_at = expires_at
    session.flush()


def retire_expired(session: Session, namespace: str, now: datetime) -> list[Lesson]:
    """Retire the namespace's expired lessons and return them."""
    expired = (
        select(Lesson)
        .where(
            Lesson.namespace == namespace,
            Lesson.status != LessonStatus.RETIRED,
            Lesson.expires_at <= now,
        )
        .order_by(Lesson.id)
    )
    if session.scalar(expired.limit(1)) is None:
        return []
    # Also serialises concurrent changes of the same lessons.
    namespaces.bump_revision(session, namespace)
    retired = list(session.scalars(expired.execution_options(populate_existing=True)))
    for lesson in retired:
        lessons.set_status(session, lesson, LessonStatus.RETIRED)
        detail = {"namespace": namespace, "reason": "expired"}
        audit.append(session, audit.BYHEART, "lesson retired", lesson.id, detail, now)
    return retired
