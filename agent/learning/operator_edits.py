"""What an operator writes, on the command line or over HTTP: lessons, and system prompts.

Every change of a lesson is in the audit log, with who made it.
"""

from dataclasses import dataclass
from datetime import datetime

from agent.engine import tokens
from config.settings import Settings
from store import audit, lessons
from store.db import Session
from store.lessons import Support
from store.models import Lesson
from store.schema import LessonKind, LessonStatus, Trust

WAITING = (LessonStatus.CANDIDATE, LessonStatus.QUARANTINED)
"""Not in use until they are approved."""


MIN_FREE_TOKENS = 256
"""Tokens for question and answer beside a system prompt."""


class LessonTooLong(ValueError):
    """No prompt would ever have room for the lesson."""


class PromptTooLong(ValueError):
    """The engine would refuse every request that the prompt stands in front of."""


class DuplicateLesson(Exception):
    """A lesson says the same already."""


def prompt_length(settings: Settings, text: str) -> int:
    """Tokens of a system prompt, which can stand in front of requests until it is internalised.

    Raises:
        PromptTooLong: It cannot.
    """
    length, most = tokens.count(settings.model_folder, text), settings.engine.max_model_len
    beside = settings.learning.token_budget + MIN_FREE_TOKENS
    if not settings.engine.urls and length + beside > most:
        raise PromptTooLong(
            f"The system prompt has {length} tokens, and engine.max_model_len is {most}, for "
            f"lessons, question and answer too ({beside}). Shorten it, or raise "
            "engine.max_model_len."
        )
    return length


@dataclass(frozen=True)
class LessonEditor:
    """Who changes lessons, when, and by which settings."""

    name: str
    settings: Settings
    now: datetime

    def add(
        self, session: Session, namespace: str, do: str, when: str | None, kind: LessonKind
    ) -> Lesson:
        """Add a lesson; it is in the next prompt.

        Raises:
            LessonTooLong: It has more tokens than the budget for all of them.
            DuplicateLesson: There is one that says this.
        """
        length = self._length(when, do)
        ratio = self.settings.learning.duplicate_ratio
        known = lessons.find_duplicate(session, namespace, lessons.render(when, do), ratio)
        if known:
            raise DuplicateLesson(_known(known))
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
        )
        self._note(session, "lesson added", lesson)
        return lesson

    def reword(self, session: Session, old: Lesson, do: str) -> Lesson:
        """Put a lesson of another wording in the place of one, which is kept, retired.

        Raises:
            LessonTooLong: It has more tokens than the budget for all of them.
        """
        new = lessons.edit(session, old, do, self.now, self._length(old.when, do))
        self._note(session, "lesson edited", old, by=new.id)
        return new

    def decide(self, session: Session, lesson: Lesson, status: LessonStatus) -> None:
        """Use a lesson, or use it no longer.

        Raises:
            IllegalTransition: It cannot become that.
        """
        lessons.set_status(session, lesson, status)
        self._note(session, f"lesson {status}", lesson)

    def _length(self, when: str | None, do: str) -> int:
        length = tokens.count(self.settings.model_folder, lessons.render(when, do))
        most = self.settings.learning.token_budget
        if length > most:
            raise LessonTooLong(
                f"The lesson has {length} tokens and would never be used: learning.token_budget is "
                f"{most}. Say it in several lessons, or as a system prompt: `byheart compile`."
            )
        return length

    def _note(self, session: Session, action: str, lesson: Lesson, **more: str) -> None:
        detail = {"namespace": lesson.namespace, **more}
        audit.append(session, self.name, action, lesson.id, detail, self.now)


def _known(lesson: Lesson) -> str:
    waits = ", and waits to be approved" if lesson.status in WAITING else ""
    return f"{lesson.id} says this already ({lesson.status}){waits}."
