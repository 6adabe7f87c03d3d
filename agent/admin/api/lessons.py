"""Lessons: what the model is told to keep to, where it is from, and what the operator decides."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agent import tokens
from agent.admin.api.control import (
    PAGE,
    After,
    Asking,
    Control,
    Limit,
    Parts,
    Reading,
    Writing,
    found,
    page,
)
from agent.gateway.auth import Caller
from agent.gateway.errors import RequestError
from store import audit, lessons
from store.db import Session
from store.lessons import Support
from store.models import Lesson
from store.schema import LessonKind, LessonStatus, Trust

router = APIRouter(prefix="/lessons", tags=["lessons"])
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"\S")]


class NewLesson(BaseModel):
    """A lesson to add."""

    model_config = ConfigDict(extra="forbid")
    do: Text
    when: Text | None = None
    kind: LessonKind = LessonKind.FACT


class Change(BaseModel):
    """What is to become of a lesson: another wording, or another status."""

    model_config = ConfigDict(extra="forbid")
    do: Text | None = None
    status: Literal["active", "retired"] | None = None


@router.get("")
def list_lessons(
    session: Reading,
    caller: Asking,
    status: LessonStatus | None = None,
    after: After = None,
    limit: Limit = PAGE,
) -> dict[str, Any]:
    """Lessons, oldest first."""
    rows = lessons.listing(session, caller.namespace, (status,) if status else ())
    rest = [row for row in rows if after is None or row.id > after]
    return page([_shown(row) for row in rest[:limit]], _next(rest, limit))


@router.get("/{lesson_id}")
def get_lesson(session: Reading, caller: Asking, lesson_id: str) -> dict[str, Any]:
    """A lesson and what it rests on."""
    lesson = _own(session, caller, lesson_id)
    support = [
        {
            "interaction": each.interaction,
            "feedback": each.feedback,
            "span": each.span,
            "principal": each.principal,
            "trust": each.trust.value,
        }
        for each in lessons.supports(session, lesson)
    ]
    return _shown(lesson) | {"support": support}


@router.post("", status_code=201)
def add_lesson(session: Writing, parts: Parts, caller: Asking, new: NewLesson) -> dict[str, Any]:
    """Add a lesson; it is in the next prompt."""
    said = lessons.render(new.when, new.do.strip())
    length = _length(parts, said)
    ratio = parts.settings.learning.duplicate_ratio
    known = lessons.find_duplicate(session, caller.namespace, said, ratio)
    if known:
        message = f"{known.id} says this already, and is {known.status.value}."
        raise RequestError(409, message, code="lesson_known")
    lesson = lessons.add(
        session,
        caller.namespace,
        kind=new.kind,
        when=new.when,
        do=new.do.strip(),
        trust=Trust.OPERATOR,
        tokens=length,
        support=[Support(None, None, new.do, caller.principal, Trust.OPERATOR)],
        now=parts.now(),
    )
    _note(session, parts, caller, "lesson added", lesson.id)
    return _shown(lesson)


@router.patch("/{lesson_id}")
def change_lesson(
    session: Writing, parts: Parts, caller: Asking, lesson_id: str, change: Change
) -> dict[str, Any]:
    """Reword a lesson, which makes a new one of it, or use it, or use it no longer."""
    lesson = _own(session, caller, lesson_id)
    if change.do is not None:
        length = _length(parts, lessons.render(lesson.when, change.do.strip()))
        lesson = lessons.edit(session, lesson, change.do.strip(), parts.now(), length)
        _note(session, parts, caller, "lesson edited", lesson_id)
    if change.status is not None:
        lessons.set_status(session, lesson, LessonStatus(change.status))
        _note(session, parts, caller, f"lesson {change.status}", lesson.id)
    return _shown(lesson)


def _length(parts: Control, said: str) -> int:
    """Tokens of a lesson.

    Raises:
        RequestError: No prompt would ever have room for it (400).
    """
    length, most = tokens.count(parts.settings.model_folder, said), parts.settings.learning
    if length > most.token_budget:
        message = (
            f"The lesson has {length} tokens, and learning.token_budget is {most.token_budget}. "
            "Say it in several lessons, or as a system prompt."
        )
        raise RequestError(400, message, code="lesson_too_long", param="do")
    return length


def _note(session: Session, parts: Control, caller: Caller, action: str, lesson_id: str) -> None:
    detail = {"namespace": caller.namespace}
    audit.append(session, caller.principal, action, lesson_id, detail, parts.now())


def _own(session: Session, caller: Caller, lesson_id: str) -> Lesson:
    row = lessons.get(session, lesson_id)
    own: Lesson | None = row if row and row.namespace == caller.namespace else None
    return found(own, "lesson", lesson_id)


def _next(rows: list[Lesson], limit: int) -> str | None:
    return rows[limit - 1].id if len(rows) > limit else None


def _shown(lesson: Lesson) -> dict[str, Any]:
    return {
        "id": lesson.id,
        "status": lesson.status.value,
        "kind": lesson.kind.value,
        "trust": lesson.trust.value,
        "tokens": lesson.tokens,
        "pinned": lesson.pinned,
        "text": lessons.text(lesson),
        "supersedes": lesson.supersedes,
        "created_at": lesson.created_at.isoformat(),
    }
