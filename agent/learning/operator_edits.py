"""Edits by an operator, on the command line or over HTTP: lessons and system prompts.

Every change to a lesson is recorded in the audit log, with its author.
"""

from dataclasses import dataclass
from datetime import datetime

from agent.engine import tokens
from config.settings import Settings
from store import audit, lesson_options, lessons, relapses
from store.db import Session
from store.lessons import Support
from store.models import Lesson
from store.schema import LessonKind, LessonStatus, Trust

WAITING = (LessonStatus.CANDIDATE, LessonStatus.QUARANTINED)
"""Statuses of lessons that are not used until the operator approves them."""

MIN_FREE_TOKENS = 256
"""Tokens of the context window reserved for question and answer."""


class LessonTooLong(ValueError):
    """The lesson exceeds the token budget that all lessons share."""


class PromptTooLong(ValueError):
    """The system prompt leaves too little of the context window for a request."""


class ExpiryInPast(ValueError):
    """The expiry time of a lesson is in the past."""


class DuplicateLesson(Exception):
    """A lesson already says the same."""


def prompt_length(settings: Settings, text: str) -> int:
    """Return the length of a system prompt in tokens.

    Until it is internalised, the prompt precedes every request, so it must fit the context window.

    Raises:
        PromptTooLong: It leaves too little room for lessons, question and answer.
    """
    length, limit = tokens.count(settings.model_folder, text), settings.engine.max_model_len
    reserved = settings.learning.token_budget + MIN_FREE_TOKENS
    if not settings.engine.urls and length + reserved > limit:
        raise PromptTooLong(
            f"The system prompt has {length} tokens, and {reserved} more are reserved for lessons, "
            f"question and answer; engine.max_model_len is {limit}. Shorten the prompt, or raise "
            "engine.max_model_len."
        )
    return length


@dataclass(frozen=True)
class Added:
    """The lesson that says what the operator has added."""

    lesson: Lesson
    message: str | None = None
    """Why it is no new lesson; None if it is."""


@dataclass(frozen=True)
class LessonEditor:
    """Changes lessons on behalf of `name`, and records it in the audit log."""

    name: str
    settings: Settings
    now: datetime

    def add(  # noqa: PLR0913 - the fields of a lesson
        self,
        session: Session,
        namespace: str,
        do: str,
        when: str | None,
        kind: LessonKind,
        *,
        pinned: bool = False,
        expires_at: datetime | None = None,
    ) -> Added:
        """Add a lesson, used from the next request on.

        If the live adapter has internalised a lesson that says the same, that one returns to the
        prompt instead: the operator repeats it because the adapter does not know it.

        Raises:
            LessonTooLong: It exceeds the token budget that all lessons share.
            DuplicateLesson: A lesson already says this.
            ExpiryInPast: The expiry is in the past.
        """
        self._check_expiry(expires_at)
        length = self._length(when, do)
        ratio = self.settings.learning.duplicate_ratio
        duplicate = lessons.find_duplicate(session, namespace, lessons.render(when, do), ratio)
        if duplicate and duplicate.status is LessonStatus.INTERNALISED:
            return self._repeat(session, duplicate, pinned=pinned, expires_at=expires_at)
        if duplicate:
            raise DuplicateLesson(_duplicate_message(duplicate))
        lesson = lessons.add(
            session,
            namespace,
            kind=kind,
            when=when,
            do=do,
            trust=Trust.OPERATOR,
            tokens=length,
            support=[Support(None, None, do, self.name, Trust.OPERATOR)],
            now=self.now,
            pinned=pinned,
            expires_at=expires_at,
        )
        self._record(session, "lesson added", lesson)
        return Added(lesson)

    def _repeat(
        self, session: Session, lesson: Lesson, *, pinned: bool, expires_at: datetime | None
    ) -> Added:
        """Return an internalised lesson to the prompt."""
        relapses.record_lesson(session, lesson, f"{self.name} repeated it.", None, self.now)
        self._record(session, "lesson repeated", lesson)
        if pinned:
            self.pin(session, lesson, pinned)
        if expires_at:
            self.set_expiry(session, lesson, expires_at)
        return Added(lesson, _returned_message(lesson))

    def reword(self, session: Session, old: Lesson, do: str) -> Lesson:
        """Replace a lesson by one with another text; the old one is retired.

        Raises:
            LessonTooLong: It exceeds the token budget that all lessons share.
        """
        new = lessons.edit(session, old, do, self.now, self._length(old.when, do))
        self._record(session, "lesson edited", old, by=new.id)
        return new

    def pin(self, session: Session, lesson: Lesson, pinned: bool) -> None:
        """Pin or unpin a lesson."""
        lesson_options.set_pinned(session, lesson, pinned)
        self._record(session, "lesson pinned" if pinned else "lesson unpinned", lesson)

    def set_expiry(self, session: Session, lesson: Lesson, expires_at: datetime | None) -> None:
        """Set when a lesson expires; None: never.

        Raises:
            ExpiryInPast: It would have expired already.
        """
        self._check_expiry(expires_at)
        lesson_options.set_expiry(session, lesson, expires_at)
        at = expires_at.isoformat() if expires_at else "never"
        self._record(session, "lesson expiry set", lesson, expires_at=at)

    def set_status(self, session: Session, lesson: Lesson, status: LessonStatus) -> None:
        """Approve or retire a lesson.

        Raises:
            IllegalTransition: The lesson cannot change to that status.
        """
        lessons.set_status(session, lesson, status)
        self._record(session, f"lesson {status}", lesson)

    def _check_expiry(self, expires_at: datetime | None) -> None:
        if expires_at is not None and expires_at <= self.now:
            raise ExpiryInPast(
                f"A lesson cannot expire in the past ({expires_at.isoformat()}): retire it instead."
            )

    def _length(self, when: str | None, do: str) -> int:
        length = tokens.count(self.settings.model_folder, lessons.render(when, do))
        limit = self.settings.learning.token_budget
        if length > limit:
            raise LessonTooLong(
                f"The lesson has {length} tokens, and learning.token_budget is {limit}. Split it "
                "into several lessons, or make it a system prompt: `byheart compile`."
            )
        return length

    def _record(self, session: Session, action: str, lesson: Lesson, **more: str) -> None:
        detail = {"namespace": lesson.namespace, **more}
        audit.append(session, self.name, action, lesson.id, detail, self.now)


def _duplicate_message(lesson: Lesson) -> str:
    hint = (
        f" Approve it: `byheart lessons approve {lesson.id}`." if lesson.status in WAITING else ""
    )
    return f"Lesson {lesson.id} already says this ({lesson.status}).{hint}"


def _returned_message(lesson: Lesson) -> str:
    return (
        f"The live adapter should have known this from lesson {lesson.id}. That lesson is in the "
        "prompt again until a later adapter has learned it."
    )
