"""What each adapter has learned, statement by statement.

Adapters of earlier releases have no such list. A lesson with numbers counts as learned if one of
their measured held-out answers gives all of these, and the teacher's answer to the same prompt does
too. No evaluation shows any other lesson, or the statements of a system prompt: these return to the
prompt.
Revision: 0009_statements. Forward only: to go back, restore a backup.
"""

import re
from typing import Any

import sqlalchemy as sa
import structlog
from alembic import op

revision = "0009_statements"
down_revision = "0008_alias"

log = structlog.get_logger(__name__)

NUMBER = re.compile(r"\d+")

adapters = sa.table("adapters", *map(sa.column, ("name", "namespace", "snapshot")))
aliases = sa.table("aliases", sa.column("namespace"), sa.column("adapter"))
evaluations = sa.table("evaluations", sa.column("adapter"), sa.column("measured", sa.JSON()))
lessons = sa.table("lessons", *map(sa.column, ("id", "namespace", "when", "do", "status")))
namespaces = sa.table("namespaces", sa.column("name"), sa.column("revision", sa.Integer()))
system_prompts = sa.table("system_prompts", *map(sa.column, ("id", "namespace", "text")))
snapshots = sa.table(
    "snapshots",
    *map(sa.column, ("hash", "namespace", "system_prompt")),
    sa.column("lessons", sa.JSON()),
)


def upgrade() -> None:
    statements = _create_table()
    for adapter in op.get_bind().execute(sa.select(adapters)).all():
        if rows := _lessons_of(adapter):
            op.bulk_insert(statements, rows)
    for namespace, adapter in op.get_bind().execute(sa.select(aliases)).all():
        if adapter is not None:
            _return_to_prompt(statements, namespace, adapter)


def _create_table() -> sa.Table:
    statements = op.create_table(
        "adapter_statements",
        sa.Column(
            "adapter",
            sa.Text(),
            sa.ForeignKey("adapters.name", name="fk_adapter_statements_adapter"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("lesson", sa.Boolean(), nullable=False),
        sa.Column("spans", sa.JSON(), nullable=False),
        sa.Column("support", sa.JSON(), nullable=False),
        sa.Column("learned", sa.Boolean(), nullable=False),
        sa.Column("relapsed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("relapse_cause", sa.Text(), nullable=True),
        sa.Column(
            "relapse_interaction",
            sa.Text(),
            sa.ForeignKey(
                "interactions.id",
                name="fk_adapter_statements_relapse_interaction",
                ondelete="SET NULL",
            ),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("adapter", "position", name="pk_adapter_statements"),
    )
    op.create_index(
        "ix_adapter_statements_relapse_interaction", "adapter_statements", ["relapse_interaction"]
    )
    return statements


def _lessons_of(adapter: sa.Row[Any]) -> list[dict[str, Any]]:
    """Return the rows of an adapter: the lessons that it was trained on."""
    measured = op.get_bind().scalar(
        sa.select(evaluations.c.measured).where(evaluations.c.adapter == adapter.name)
    )
    answers = (measured or {}).get("answers") or []
    snapshot = sa.select(snapshots.c.lessons).where(
        snapshots.c.hash == adapter.snapshot, snapshots.c.namespace == adapter.namespace
    )
    return [
        {
            "adapter": adapter.name,
            "position": position,
            "text": lesson["text"],
            "lesson": True,
            "spans": [],
            "support": [],
            "learned": _is_shown(lesson["text"], answers),
        }
        for position, lesson in enumerate(op.get_bind().scalar(snapshot) or [])
    ]


def _is_shown(lesson: str, answers: list[dict[str, str]]) -> bool:
    """Return whether the teacher and the candidate give the numbers of a lesson in one answer."""
    numbers = set(NUMBER.findall(lesson))
    return bool(numbers) and any(
        all(numbers <= set(NUMBER.findall(answer.get(arm, ""))) for arm in ("teacher", "candidate"))
        for answer in answers
    )


def _return_to_prompt(statements: sa.Table, namespace: str, adapter: str) -> None:
    """Make what the live adapter is not known to have learned a part of prompts again."""
    connection = op.get_bind()
    own = sa.select(statements.c.text).where(statements.c.adapter == adapter)
    learned = set(connection.scalars(own.where(statements.c.learned)))
    held = connection.execute(
        sa.select(lessons).where(
            lessons.c.namespace == namespace, lessons.c.status == "internalised"
        )
    ).all()
    returned = [row.id for row in held if _text(row) not in learned]
    returned_prompt = _was_trained_on_prompt(namespace, adapter)
    connection.execute(sa.update(lessons).where(lessons.c.id.in_(returned)).values(status="active"))
    connection.execute(
        sa.update(namespaces)
        .where(namespaces.c.name == namespace)
        .values(revision=namespaces.c.revision + 1)
    )
    if returned or returned_prompt:
        log.warning(
            "what the live adapter is not known to have learned is in the prompt again",
            namespace=namespace,
            adapter=adapter,
            lessons=len(returned),
            system_prompt=returned_prompt,
        )


def _was_trained_on_prompt(namespace: str, adapter: str) -> bool:
    """Return whether the adapter was trained on the system prompt that is registered."""
    connection = op.get_bind()
    newest = sa.select(system_prompts.c.text).where(system_prompts.c.namespace == namespace)
    registered = connection.scalar(newest.order_by(system_prompts.c.id.desc()).limit(1))
    trained = connection.scalar(
        sa.select(snapshots.c.system_prompt)
        .join(adapters, adapters.c.snapshot == snapshots.c.hash)
        .where(adapters.c.name == adapter, snapshots.c.namespace == namespace)
    )
    return bool(registered) and registered == trained


def _text(lesson: sa.Row[Any]) -> str:
    return f"When {lesson.when}: {lesson.do}" if lesson.when else str(lesson.do)
