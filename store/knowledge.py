"""What adapters know of statements, and why not: the story behind an answer, a lesson, an adapter.

Read from `adapter_statements` and the evaluations; nothing is decided here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from store import adapters, statements
from store.adapter_tables import Adapter, AdapterStatement
from store.db import Session
from store.models import Interaction

UNLEARNABLE = "not learnable by this base: stays in the prompt"


@dataclass(frozen=True)
class Knowledge:
    """What one adapter knows of one statement."""

    adapter: str
    text: str
    lesson: bool
    """Whether it is a lesson, not a part of the system prompt."""
    learned: bool
    """Whether the run has measured it as learned."""
    internalised: bool
    """Whether it is left out of the adapter's prompts."""
    reason: str
    """Why it is in the adapter's prompts; empty if it is not."""
    relapsed_at: datetime | None
    relapse_cause: str | None
    relapse_interaction: str | None


def of_adapter(session: Session, adapter: Adapter) -> list[Knowledge]:
    """Return what an adapter knows of each statement of its context, in order."""
    return _described(session, statements.of(session, adapter), adapter)


def of_statement(session: Session, namespace: str, text: str) -> list[Knowledge]:
    """Return what each adapter of a namespace that was trained on a statement knows of it.

    The oldest adapter comes first.
    """
    trained = (
        select(Adapter)
        .join(AdapterStatement, AdapterStatement.adapter == Adapter.name)
        .where(Adapter.namespace == namespace, AdapterStatement.text == text)
        .order_by(Adapter.created_at, Adapter.run)
        .distinct()
    )
    return [
        each
        for adapter in session.scalars(trained).all()
        for each in of_adapter(session, adapter)
        if each.text == text
    ]


def internalised_at(session: Session, answered: Interaction) -> list[str]:
    """Return the statements that were left out of the prompt when an interaction was answered."""
    adapter = adapters.get(session, answered.version)
    if adapter is None:
        return []
    at = answered.created_at
    known = (row for row in statements.of(session, adapter) if row.learned)
    held = [row.text for row in known if row.relapsed_at is None or row.relapsed_at > at]
    never = statements.unlearnable(session, adapter.namespace, at)
    return [text for text in held if text not in never]


def relapses_of(session: Session, answered: Interaction) -> list[AdapterStatement]:
    """Return the statements that relapsed because of an interaction's answer."""
    rows = select(AdapterStatement).where(AdapterStatement.relapse_interaction == answered.id)
    return list(session.scalars(rows.order_by(AdapterStatement.position)))


def _described(
    session: Session, rows: Sequence[AdapterStatement], adapter: Adapter
) -> list[Knowledge]:
    measured = adapters.evaluation(session, adapter.name).measured.get("statements", [])
    reasons = {position: each.get("reason", "") for position, each in enumerate(measured)}
    never = statements.unlearnable(session, adapter.namespace)
    described = []
    for row in rows:
        reason = _reason(row, reasons.get(row.position, ""), never)
        described.append(
            Knowledge(
                adapter=row.adapter,
                text=row.text,
                lesson=row.lesson,
                learned=row.learned,
                internalised=not reason,
                reason=reason,
                relapsed_at=row.relapsed_at,
                relapse_cause=row.relapse_cause,
                relapse_interaction=row.relapse_interaction,
            )
        )
    return described


def _reason(row: AdapterStatement, measured: str, never: frozenset[str]) -> str:
    if row.text in never:
        return UNLEARNABLE
    if row.relapsed_at:
        return f"relapsed: {row.relapse_cause}"
    return "" if row.learned else measured or "not learned"
