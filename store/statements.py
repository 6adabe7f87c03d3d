"""The statements of adapters: what each has learned, and what its prompts must still contain.

A statement is one lesson, or one sentence or line of a system prompt. A run measures each statement
of its context, and the rows are written when its adapter is registered; after that only a relapse
(relapses.py) changes them. Invariants others rely on:
- a statement is internalised under an adapter, and left out of its prompts, exactly if the adapter
  has learned it, it has not relapsed there, and it has relapsed under fewer than `RELAPSE_LIMIT`
  adapters of the namespace;
- what is in no list is not internalised.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from store.adapter_tables import Adapter, AdapterStatement
from store.db import Session
from store.residual import Segment

RELAPSE_LIMIT = 3
"""A statement that has relapsed under so many adapters cannot be learned by this base."""


def register(session: Session, adapter: Adapter, measured: Sequence[dict[str, Any]]) -> None:
    """Add the statements of a new adapter.

    Args:
        session: In the transaction that adds the adapter.
        adapter: The adapter.
        measured: The run's list: `text`, `lesson`, `spans`, `support` and `learned` of each
            statement, as `AdapterStatement` has them.
    """
    session.add_all(
        AdapterStatement(
            adapter=adapter.name,
            position=position,
            text=each["text"],
            lesson=each["lesson"],
            spans=each["spans"],
            support=each["support"],
            learned=each["learned"],
        )
        for position, each in enumerate(measured)
    )
    session.flush()


def of(session: Session, adapter: Adapter) -> list[AdapterStatement]:
    """Return the statements of an adapter, in the order of its context."""
    rows = select(AdapterStatement).where(AdapterStatement.adapter == adapter.name)
    rows = rows.order_by(AdapterStatement.position)
    return list(session.scalars(rows.execution_options(populate_existing=True)))


def internalised_rows(session: Session, adapter: Adapter | None) -> list[AdapterStatement]:
    """Return the statements that are internalised under an adapter; none for the base."""
    return _divided(session, adapter)[0]


def internalised(session: Session, adapter: Adapter | None) -> frozenset[str]:
    """Return the texts of the lessons that are internalised under an adapter; none for the base."""
    inside, outside = _divided(session, adapter)
    # Of a text that is listed twice, both must be learned.
    return _lesson_texts(inside) - _lesson_texts(outside)


def residual_segments(session: Session, adapter: Adapter) -> list[Segment] | None:
    """Return the segments of the adapter's system prompt that must stay in its prompts.

    Returns:
        Words and support of each statement that is not internalised; None if all of the prompt
        must stay, because nothing of it was measured, or it is unknown where such a statement is.
    """
    inside, outside = _divided(session, adapter)
    missing = [row for row in outside if not row.lesson]
    was_measured = missing or any(not row.lesson for row in inside)
    if not was_measured or not all(row.spans for row in missing):
        return None
    return [segment for row in missing for segment in (*row.spans, *row.support)]


def relapse_count(session: Session, namespace: str, text: str) -> int:
    """Return under how many adapters of a namespace a statement has relapsed."""
    return _relapse_counts(session, namespace).get(text, 0)


def unlearnable(session: Session, namespace: str, at: datetime | None = None) -> frozenset[str]:
    """Return the statements that have relapsed so often that they stay in the prompt.

    With `at`, those that had by then.
    """
    counts = _relapse_counts(session, namespace, at)
    return frozenset(text for text, count in counts.items() if count >= RELAPSE_LIMIT)


def relapsed_since(session: Session, namespace: str, since: datetime | None) -> frozenset[str]:
    """Return the statements that have relapsed in a namespace after a time; None: ever."""
    rows = select(AdapterStatement.text).join(Adapter, Adapter.name == AdapterStatement.adapter)
    rows = rows.where(Adapter.namespace == namespace, AdapterStatement.relapsed_at.is_not(None))
    if since is not None:
        rows = rows.where(AdapterStatement.relapsed_at > since)
    return frozenset(session.scalars(rows))


def _divided(
    session: Session, adapter: Adapter | None
) -> tuple[list[AdapterStatement], list[AdapterStatement]]:
    """Return the statements that are internalised under an adapter, and its others."""
    if adapter is None:
        return [], []
    inside, outside = list[AdapterStatement](), list[AdapterStatement]()
    never = unlearnable(session, adapter.namespace)
    for row in of(session, adapter):
        is_inside = row.learned and row.relapsed_at is None and row.text not in never
        (inside if is_inside else outside).append(row)
    return inside, outside


def _lesson_texts(rows: Sequence[AdapterStatement]) -> frozenset[str]:
    return frozenset(row.text for row in rows if row.lesson)


def _relapse_counts(session: Session, namespace: str, at: datetime | None = None) -> dict[str, int]:
    rows = (
        select(AdapterStatement.text, func.count(AdapterStatement.adapter.distinct()))
        .join(Adapter, Adapter.name == AdapterStatement.adapter)
        .where(Adapter.namespace == namespace, AdapterStatement.relapsed_at.is_not(None))
        .group_by(AdapterStatement.text)
    )
    if at is not None:
        rows = rows.where(AdapterStatement.relapsed_at <= at)
    return dict(session.execute(rows).all())
