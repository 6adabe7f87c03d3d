"""Storing lessons: duplicates become support, and support becomes trust.

Authority comes from who said it. An operator's correction is a lesson at once; anybody else's is
a candidate until enough independent principals have said the same.
"""

from dataclasses import dataclass
from datetime import datetime

from agent.learning.propose import Proposed
from config.settings import Learning
from store import lessons
from store.db import Session
from store.lessons import Support
from store.models import Lesson
from store.schema import LessonStatus, Trust


@dataclass(frozen=True)
class Stated:
    """A lesson as the model stated it, who said what it rests on, and how long it is."""

    lesson: Proposed
    support: Support
    tokens: int


def keep(
    session: Session, namespace: str, stated: Stated, settings: Learning, now: datetime
) -> Lesson:
    """Store a stated lesson, or add its support to the one that says the same already."""
    proposed, support = stated.lesson, stated.support
    said = lessons.render(proposed.when, proposed.do)
    known = lessons.find_duplicate(session, namespace, said, settings.duplicate_ratio)
    if known is None:
        return lessons.add(
            session,
            namespace,
            kind=proposed.kind,
            when=proposed.when,
            do=proposed.do,
            why=proposed.why,
            trust=support.trust,
            tokens=stated.tokens,
            support=[support],
            status=_status(support.trust, principals=1, settings=settings),
            now=now,
        )
    lessons.add_support(session, known, support)
    principals = len(lessons.principals(session, known))
    if known.status is LessonStatus.CANDIDATE and (
        _status(support.trust, principals, settings) is LessonStatus.ACTIVE
    ):
        lessons.set_status(session, known, LessonStatus.ACTIVE)
    return known


def _status(trust: Trust, principals: int, settings: Learning) -> LessonStatus:
    enough = trust is Trust.OPERATOR or (
        trust is Trust.USER and principals >= settings.corroboration
    )
    return LessonStatus.ACTIVE if enough else LessonStatus.CANDIDATE
