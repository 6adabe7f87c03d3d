"""Lessons: list, get, add, edit, approve and retire."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from agent.control import knowledge_schemas, schemas
from agent.control.dependencies import (
    PAGE,
    AfterId,
    CallerDep,
    ControlDep,
    ControlState,
    Limit,
    ReadSession,
    Timestamp,
    WriteSession,
    item_or_404,
)
from agent.gateway.access.auth import Caller
from agent.learning.operator_edits import LessonEditor
from store import knowledge, lessons, statements
from store.db import Session
from store.models import Lesson
from store.schema import LessonKind, LessonStatus

router = APIRouter(prefix="/lessons", tags=["lessons"])
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"\S")]


class NewLesson(BaseModel):
    """A lesson to add."""

    model_config = ConfigDict(extra="forbid")
    do: Text
    when: Text | None = None
    kind: LessonKind = LessonKind.FACT
    pinned: bool = False
    expires_at: Timestamp | None = None


class Change(BaseModel):
    """Changes to a lesson; fields that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid")
    do: Text | None = None
    status: Literal["active", "retired"] | None = None
    pinned: bool | None = None
    expires_at: Timestamp | None = None
    """Null if the lesson never expires."""


@router.get("")
def list_lessons(
    session: ReadSession,
    caller: CallerDep,
    status: LessonStatus | None = None,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> schemas.Page[schemas.Lesson]:
    """List lessons, oldest first."""
    rows = lessons.listing(session, caller.namespace, (status,) if status else ())
    rest = [row for row in rows if after is None or row.id > after]
    following = rest[limit - 1].id if len(rest) > limit else None
    return schemas.Page(data=[_to_schema(row) for row in rest[:limit]], next=following)


@router.get("/{lesson_id}")
def get_lesson(
    session: ReadSession, caller: CallerDep, lesson_id: str
) -> knowledge_schemas.SupportedLesson:
    """Get a lesson, the interactions that support it, and which adapters have learned it."""
    lesson = _own(session, caller, lesson_id)
    support = [schemas.Support.model_validate(row) for row in lessons.supports(session, lesson)]
    text, namespace = lessons.text(lesson), lesson.namespace
    known = knowledge.of_statement(session, namespace, text)
    return knowledge_schemas.SupportedLesson(
        **dict(_to_schema(lesson)),
        support=support,
        adapters=[knowledge_schemas.Knowledge.model_validate(each) for each in known],
        learnable=text not in statements.unlearnable(session, namespace),
    )


@router.post("", status_code=201, responses={200: {"model": schemas.AddedLesson}})
def add_lesson(
    session: WriteSession,
    control: ControlDep,
    caller: CallerDep,
    new: NewLesson,
    response: Response,
) -> schemas.AddedLesson:
    """Add a lesson, used from the next request on.

    200, with a message: the live adapter should have known it from the lesson that is returned,
    which is in the prompt again.
    """
    added = _editor(control, caller).add(
        session,
        caller.namespace,
        new.do.strip(),
        new.when,
        new.kind,
        pinned=new.pinned,
        expires_at=new.expires_at,
    )
    if added.message:
        response.status_code = 200
    return schemas.AddedLesson(**dict(_to_schema(added.lesson)), message=added.message)


@router.patch("/{lesson_id}")
def change_lesson(
    session: WriteSession, control: ControlDep, caller: CallerDep, lesson_id: str, change: Change
) -> schemas.Lesson:
    """Change a lesson. A new text creates a new lesson and retires this one."""
    lesson, editor = _own(session, caller, lesson_id), _editor(control, caller)
    if change.do is not None:
        lesson = editor.reword(session, lesson, change.do.strip())
    if change.pinned is not None:
        editor.pin(session, lesson, change.pinned)
    if "expires_at" in change.model_fields_set:
        editor.set_expiry(session, lesson, change.expires_at)
    if change.status is not None:
        editor.set_status(session, lesson, LessonStatus(change.status))
    return _to_schema(lesson)


def _editor(control: ControlState, caller: Caller) -> LessonEditor:
    return LessonEditor(caller.principal, control.settings, control.now())


def _own(session: Session, caller: Caller, lesson_id: str) -> Lesson:
    row = lessons.get(session, lesson_id)
    own: Lesson | None = row if row and row.namespace == caller.namespace else None
    return item_or_404(own, "lesson", lesson_id)


def _to_schema(lesson: Lesson) -> schemas.Lesson:
    return schemas.Lesson(
        id=lesson.id,
        status=lesson.status,
        kind=lesson.kind,
        trust=lesson.trust,
        tokens=lesson.tokens,
        pinned=lesson.pinned,
        text=lessons.text(lesson),
        supersedes=lesson.supersedes,
        created_at=lesson.created_at,
        expires_at=lesson.expires_at,
    )
