"""Storing lessons: duplicates become support, and support becomes trust.

Authority comes from who said it. An operator's correction is a lesson at once; anybody else's is
a candidate until enough independent principals have said the same. What the operator took out is
known too, and only the operator brings it back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.learning.propose import ProposedLesson
from config.sections import Learning
from store import lessons, namespaces
from store.db import Session
from store.lessons import Support
from store.models import Lesson
from store.schema import LessonStatus, Trust

TAKEN_OUT = (LessonStatus.RETIRED, LessonStatus.QUARANTINED)


@dataclass(frozen=True)
class SizedLesson:
    """A lesson as it was stated, and its length."""

    lesson: ProposedLesson
    tokens: int


def keep(
    session: Session,
    namespace: str,
    support: Support,
    stated: Sequence[SizedLesson],
    settings: Learning,
    now: datetime,
) -> list[Lesson]:
    """Store what one correction teaches; nothing where it has taught something before.

    Each lesson is added, or its support to the lesson that says the same already.
    """
    namespaces.hold(session, namespace)  # what is known stays so until the end
    if lessons.has_taught(session, support):
        return []
    return [_keep_one(session, namespace, support, one, settings, now) for one in stated]


def _keep_one(
    session: Session,
    namespace: str,
    support: Support,
    stated: SizedLesson,
    settings: Learning,
    now: datetime,
) -> Lesson:
    proposed = stated.lesson
    said = lessons.render(proposed.when, proposed.do)
    known = _known(session, namespace, said, support.trust, settings.duplicate_ratio)
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


def _known(
    session: Session, namespace: str, said: str, trust: Trust, ratio: float
) -> Lesson | None:
    """The lesson that says the same: one that counts or may, or else one that was taken out."""
    known = lessons.find_duplicate(session, namespace, said, ratio)
    if known or trust is Trust.OPERATOR:
        return known
    return lessons.find_duplicate(session, namespace, said, ratio, TAKEN_OUT)


def _status(trust: Trust, principals: int, settings: Learning) -> LessonStatus:
    enough = trust is Trust.OPERATOR or (
        trust is Trust.USER and principals >= settings.corroboration
    )
    return LessonStatus.ACTIVE if enough else LessonStatus.CANDIDATE
