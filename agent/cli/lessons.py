"""`byheart lessons`: what the model is told to keep to, and where it comes from."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from agent.cli.errors import InputError
from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    console,
    opened,
    show,
    show_one,
)
from agent.learning.operator_edits import WAITING, LessonEditor
from config.settings import Settings
from store import lessons, namespaces
from store.clock import utcnow
from store.db import Session
from store.models import Lesson
from store.schema import LessonKind, LessonStatus

app = typer.Typer(help="What was learned: list, add, edit, retire.", no_args_is_help=True)

EXPIRES = "When it is retired: a date or time in ISO 8601, UTC if it names no zone."
APPROVE = "`byheart lessons approve ID...` uses them, `retire ID...` drops them"


@app.command("ls")
def ls(
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the lessons of a namespace."""
    with opened(config) as (_, db), db.read() as session:
        namespaces.require(session, namespace)
        rows = [_row(lesson) for lesson in lessons.listing(session, namespace)]
    show(rows, output, "No lessons yet: give feedback on an answer, or `byheart lessons add`.")
    waiting = [row for row in rows if row["status"] in WAITING]
    if waiting and output is Output.TABLE:
        console.print(f"\n{len(waiting)} not in use: {APPROVE}", markup=False)


@app.command("show")
def show_lesson(
    lesson_id: str, config: ConfigOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Show a lesson and the interactions that support it."""
    with opened(config) as (_, db), db.read() as session:
        lesson = _get(session, lesson_id)
        support = [
            f"{row.trust} {row.principal} {row.interaction or '-'}: {row.span!r}"
            for row in lessons.supports(session, lesson)
        ]
    show_one(
        {**_row(lesson), "why": lesson.why, "expires_at": lesson.expires_at, "support": support},
        output,
    )


@app.command("add")
def add(
    text: Annotated[str, typer.Argument(help="One statement that stands by itself.")],
    kind: Annotated[LessonKind, typer.Option(help="What sort of statement.")] = LessonKind.FACT,
    when: Annotated[str | None, typer.Option(help="Only when this holds.")] = None,
    pin: Annotated[
        bool, typer.Option("--pin", help="Put it first in prompts and runs, before others.")
    ] = False,
    expires: Annotated[str | None, typer.Option(help=EXPIRES)] = None,
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
) -> None:
    """Add a lesson; it is in the prompt of the next request."""
    if not text.strip():
        raise InputError("A lesson needs a text.")
    with opened(config) as (settings, db), db.begin() as session:
        namespaces.ensure(session, namespace, utcnow())
        lesson = _editor(settings).add(
            session,
            namespace,
            text.strip(),
            when,
            kind,
            pinned=pin,
            expires_at=_expiry(expires) if expires else None,
        )
    console.print(lesson.id)


@app.command("edit")
def edit(
    lesson_id: str,
    text: Annotated[str | None, typer.Argument(help="The new text.")] = None,
    pin: Annotated[
        bool | None, typer.Option("--pin/--no-pin", help="Put it first in prompts and runs.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help=f"{EXPIRES} `never` removes it.")] = None,
    config: ConfigOption = None,
) -> None:
    """Change a lesson: its text, whether it is pinned, when it expires.

    A new text makes a new lesson, whose id is printed; the old one is kept, retired.
    """
    if text is not None and not text.strip():
        raise InputError("A lesson needs a text: `byheart lessons retire` retires one.")
    if (text, pin, expires) == (None, None, None):
        raise InputError("Nothing to change: give a text, --pin, --no-pin or --expires.")
    with opened(config) as (settings, db), db.begin() as session:
        lesson, editor = _get(session, lesson_id), _editor(settings)
        if text is not None:
            lesson = editor.reword(session, lesson, text.strip())
        if pin is not None:
            editor.pin(session, lesson, pin)
        if expires is not None:
            editor.set_expiry(session, lesson, None if expires == "never" else _expiry(expires))
    console.print(lesson.id)


@app.command("approve")
def approve(lesson_ids: list[str], config: ConfigOption = None) -> None:
    """Use lessons that wait for corroboration: all of them, or none if one cannot be used."""
    _set(config, lesson_ids, LessonStatus.ACTIVE)


@app.command("retire")
def retire(lesson_ids: list[str], config: ConfigOption = None) -> None:
    """Stop using lessons; a run starts to unlearn those that are in the weights.

    Where nothing else was learned, `byheart rollback` takes them out.
    """
    _set(config, lesson_ids, LessonStatus.RETIRED)


def _set(config: ConfigOption, lesson_ids: list[str], status: LessonStatus) -> None:
    with opened(config) as (settings, db), db.begin() as session:
        for lesson_id in lesson_ids:
            _editor(settings).set_status(session, _get(session, lesson_id), status)


def _editor(settings: Settings) -> LessonEditor:
    return LessonEditor(OPERATOR, settings, utcnow())


def _expiry(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"--expires {text}: not a date or time, such as 2027-01-31.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _get(session: Session, lesson_id: str) -> Lesson:
    lesson = lessons.get(session, lesson_id)
    if lesson is None:
        raise InputError(f"There is no lesson {lesson_id!r}: `byheart lessons ls` lists them.")
    return lesson


def _row(lesson: Lesson) -> dict[str, object]:
    return {
        "id": lesson.id,
        "status": lesson.status.value,
        "kind": lesson.kind.value,
        "trust": lesson.trust.value,
        "tokens": lesson.tokens,
        "pinned": lesson.pinned,
        "text": lessons.text(lesson),
    }
