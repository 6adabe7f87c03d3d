"""`byheart lessons`: what the model is told to keep to, and where it comes from."""

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
    show_one({**_row(lesson), "why": lesson.why, "support": support}, output)


@app.command("add")
def add(
    text: Annotated[str, typer.Argument(help="One statement that stands by itself.")],
    kind: Annotated[LessonKind, typer.Option(help="What sort of statement.")] = LessonKind.FACT,
    when: Annotated[str | None, typer.Option(help="Only when this holds.")] = None,
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
) -> None:
    """Add a lesson; it is in the prompt of the next request."""
    if not text.strip():
        raise InputError("A lesson needs a text.")
    with opened(config) as (settings, db), db.begin() as session:
        namespaces.ensure(session, namespace, utcnow())
        lesson = _editor(settings).add(session, namespace, text.strip(), when, kind)
    console.print(lesson.id)


@app.command("edit")
def edit(lesson_id: str, text: str, config: ConfigOption = None) -> None:
    """Replace a lesson's text; the old one is kept, retired."""
    if not text.strip():
        raise InputError("A lesson needs a text: `byheart lessons retire` takes one out.")
    with opened(config) as (settings, db), db.begin() as session:
        new = _editor(settings).reword(session, _get(session, lesson_id), text.strip())
    console.print(new.id)


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
        "text": lessons.text(lesson),
    }
