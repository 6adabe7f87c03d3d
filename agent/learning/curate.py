"""Saves proposed lessons: duplicates become support, and support becomes trust.

A lesson's authority is that of its source. An operator's correction becomes an active lesson
immediately. Any other correction becomes a candidate until `learning.corroboration` independent
principals have said the same. A lesson that was retired or quarantined stays so, unless the
operator states it again. A lesson that the live adapter has internalised and got wrong all the same
returns to the prompt (store/relapses.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.learning.extractors import ProposedLesson
from config.sections import Learning
from store import adapters, interactions, lessons, namespaces, relapses
from store.db import Session
from store.lessons import Support
from store.models import Lesson
from store.schema import LessonStatus, Trust

REMOVED = (LessonStatus.RETIRED, LessonStatus.QUARANTINED)


@dataclass(frozen=True)
class SizedLesson:
    """A proposed lesson and its length in tokens."""

    lesson: ProposedLesson
    tokens: int


def save(
    session: Session,
    namespace: str,
    support: Support,
    proposed: Sequence[SizedLesson],
    settings: Learning,
    now: datetime,
) -> list[Lesson]:
    """Store what one correction teaches, and return the lessons that it now supports.

    Each proposed lesson is added, or supports the lesson that says the same. A correction that has
    taught a lesson before changes nothing.
    """
    namespaces.lock(session, namespace)  # locked, so that nobody adds a duplicate meanwhile
    if lessons.has_taught(session, support):
        return []
    return [_save_one(session, namespace, support, item, settings, now) for item in proposed]


def _save_one(
    session: Session,
    namespace: str,
    support: Support,
    sized: SizedLesson,
    settings: Learning,
    now: datetime,
) -> Lesson:
    proposed = sized.lesson
    text = lessons.render(proposed.when, proposed.do)
    duplicate = _duplicate(session, namespace, text, support.trust, settings.duplicate_ratio)
    if duplicate is None:
        return lessons.add(
            session,
            namespace,
            kind=proposed.kind,
            when=proposed.when,
            do=proposed.do,
            why=proposed.why,
            trust=support.trust,
            tokens=sized.tokens,
            support=[support],
            status=_status(support.trust, principals=1, settings=settings),
            now=now,
        )
    lessons.add_support(session, duplicate, support)
    principals = len(lessons.principals(session, duplicate))
    if duplicate.status is LessonStatus.CANDIDATE and (
        _status(support.trust, principals, settings) is LessonStatus.ACTIVE
    ):
        lessons.set_status(session, duplicate, LessonStatus.ACTIVE)
    elif duplicate.status is LessonStatus.INTERNALISED and _is_of_live(session, support, namespace):
        cause = f"{support.principal} corrected the answer."
        relapses.record_lesson(session, duplicate, cause, support.interaction, now)
    return duplicate


def _is_of_live(session: Session, support: Support, namespace: str) -> bool:
    """Return whether the adapter that serves now also answered where the correction was made."""
    live = adapters.live(session, namespace)
    answered = interactions.get(session, support.interaction) if support.interaction else None
    return bool(live and answered and answered.version == live.name)


def _duplicate(
    session: Session, namespace: str, text: str, trust: Trust, ratio: float
) -> Lesson | None:
    """Return the lesson that says the same: one in use or waiting, otherwise a removed one.

    An operator's correction is not compared with removed lessons, so it can add one again.
    """
    duplicate = lessons.find_duplicate(session, namespace, text, ratio)
    if duplicate or trust is Trust.OPERATOR:
        return duplicate
    return lessons.find_duplicate(session, namespace, text, ratio, REMOVED)


def _status(trust: Trust, principals: int, settings: Learning) -> LessonStatus:
    is_corroborated = trust is Trust.USER and principals >= settings.corroboration
    is_trusted = trust is Trust.OPERATOR or is_corroborated
    return LessonStatus.ACTIVE if is_trusted else LessonStatus.CANDIDATE
