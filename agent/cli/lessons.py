"""`byheart lessons`: lists, adds, edits, approves and retires lessons."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from agent.cli.errors import InputError
from agent.cli.evaluation import knowledge_line
from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    console,
    open_settings_and_database,
    print_row,
    print_rows,
)
from agent.learning.operator_edits import WAITING, LessonEditor
from config.settings import Settings
from store import knowledge, lessons, namespaces, statements
from store.clock import utcnow
from store.db import Session
from store.models import Lesson
from store.schema import LessonKind, LessonStatus

app = typer.Typer(help="List, add, edit, approve and retire lessons.", no_args_is_help=True)

LessonId = Annotated[str, typer.Argument(help="Id that `byheart lessons ls` lists.")]
LessonIds = Annotated[list[str], typer.Argument(help="Ids that `byheart lessons ls` lists.")]
EXPIRES = "Date or time (ISO 8601; UTC by default) at which the lesson is retired."
APPROVE = "use them with `byheart lessons approve ID...`, or drop them with `retire ID...`"


@app.command("ls")
def ls(
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the lessons of a namespace."""
    with open_settings_and_database(config) as (_, db), db.read() as session:
        namespaces.require(session, namespace)
        rows = [_row(lesson) for lesson in lessons.listing(session, namespace)]
    print_rows(
        rows, output, "No lessons yet. Send feedback on an answer, or use `byheart lessons add`."
    )
    waiting = [row for row in rows if row["status"] in WAITING]
    if waiting and output is Output.TABLE:
        console.print(f"\n{len(waiting)} waiting for approval: {APPROVE}", markup=False)


@app.command("show")
def show_lesson(
    lesson_id: LessonId, config: ConfigOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Show a lesson, the interactions that support it, and which adapters have learned it."""
    with open_settings_and_database(config) as (_, db), db.read() as session:
        lesson = _get(session, lesson_id)
        support = [
            f"{row.trust} {row.principal} {row.interaction or '-'}: {row.span!r}"
            for row in lessons.supports(session, lesson)
        ]
        text = lessons.text(lesson)
        known = knowledge.of_statement(session, lesson.namespace, text)
        learnable = text not in statements.unlearnable(session, lesson.namespace)
    row = {
        **_row(lesson),
        "why": lesson.why,
        "expires_at": lesson.expires_at,
        "support": support,
        "learnable": learnable,
        "adapters": [asdict(each) for each in known],
    }
    if output is Output.TABLE:
        row["learnable"] = "yes" if learnable else knowledge.UNLEARNABLE
        row["adapters"] = [knowledge_line(each, each.adapter) for each in known]
    print_row(row, output)


@app.command("add")
def add(
    text: Annotated[str, typer.Argument(help="One statement that is clear without context.")],
    kind: Annotated[LessonKind, typer.Option(help="Kind of statement.")] = LessonKind.FACT,
    when: Annotated[
        str | None, typer.Option(help="Condition under which the lesson holds.")
    ] = None,
    pin: Annotated[
        bool, typer.Option("--pin", help="Give the lesson priority in prompts and runs.")
    ] = False,
    expires: Annotated[str | None, typer.Option(help=EXPIRES)] = None,
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
) -> None:
    """Add a lesson. The next request has it in its prompt.

    If the live adapter should have known it from another lesson, that one returns to the prompt.

    Example: byheart lessons add "Returns are accepted within 45 days."
    """
    if not text.strip():
        raise InputError("TEXT must not be blank.")
    with open_settings_and_database(config) as (settings, db), db.begin() as session:
        namespaces.ensure(session, namespace, utcnow())
        added = _editor(settings).add(
            session,
            namespace,
            text.strip(),
            when,
            kind,
            pinned=pin,
            expires_at=_expiry(expires) if expires else None,
        )
    console.print(added.lesson.id)
    if added.message:
        typer.echo(added.message, err=True)


@app.command("edit")
def edit(
    lesson_id: LessonId,
    text: Annotated[str | None, typer.Argument(help="The new text.")] = None,
    pin: Annotated[
        bool | None,
        typer.Option("--pin/--no-pin", help="Give the lesson priority in prompts and runs."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help=f"{EXPIRES} `never` removes the expiry.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Change a lesson: its text, whether it is pinned, when it expires.

    A new text creates a new lesson, whose id is printed, and retires the old one.
    """
    if text is not None and not text.strip():
        raise InputError(
            "TEXT must not be blank. To remove a lesson, use `byheart lessons retire`."
        )
    if (text, pin, expires) == (None, None, None):
        raise InputError("Nothing to change: pass TEXT, --pin, --no-pin or --expires.")
    with open_settings_and_database(config) as (settings, db), db.begin() as session:
        lesson, editor = _get(session, lesson_id), _editor(settings)
        if text is not None:
            lesson = editor.reword(session, lesson, text.strip())
        if pin is not None:
            editor.pin(session, lesson, pin)
        if expires is not None:
            editor.set_expiry(session, lesson, None if expires == "never" else _expiry(expires))
    console.print(lesson.id)


@app.command("approve")
def approve(lesson_ids: LessonIds, config: ConfigOption = None) -> None:
    """Approve lessons that are waiting for approval. On an error, none of them is changed.

    Example: byheart lessons approve les_0199... les_019a...
    """
    _set_status(config, lesson_ids, LessonStatus.ACTIVE)


@app.command("retire")
def retire(lesson_ids: LessonIds, config: ConfigOption = None) -> None:
    """Stop using lessons. The daemon starts a run to unlearn those that are in the weights.

    If the adapter has learned nothing else, `byheart rollback` removes them instead.
    """
    _set_status(config, lesson_ids, LessonStatus.RETIRED)


def _set_status(config: ConfigOption, lesson_ids: list[str], status: LessonStatus) -> None:
    with open_settings_and_database(config) as (settings, db), db.begin() as session:
        for lesson_id in lesson_ids:
            _editor(settings).set_status(session, _get(session, lesson_id), status)


def _editor(settings: Settings) -> LessonEditor:
    return LessonEditor(OPERATOR, settings, utcnow())


def _expiry(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"--expires {text}: not a date or time, such as 2027-01-31.") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _get(session: Session, lesson_id: str) -> Lesson:
    lesson = lessons.get(session, lesson_id)
    if lesson is None:
        raise InputError(f"Unknown lesson {lesson_id!r}. `byheart lessons ls` lists them.")
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
