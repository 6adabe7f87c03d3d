"""The operator's inputs to a namespace: system prompt, seed prompts and anchors.

Every conversation starts with what the live adapter has not internalised of the system prompt.
Runs train on seed prompts in addition to logged ones. The gate checks candidates with anchors.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select

from store import namespaces
from store.contexts import Message
from store.db import Session, new_id
from store.models import Anchor, SeedPrompt, SystemPrompt
from store.schema import storable


def register_system_prompt(
    session: Session, namespace: str, text: str, tokens: int, now: datetime
) -> SystemPrompt:
    """Register the namespace's system prompt; returns the newest row if it has the same text.

    Raises:
        UnknownNamespace: There is no such namespace.
    """
    namespaces.bump_revision(session, namespace)
    newest = system_prompt(session, namespace)
    if newest is not None and newest.text == storable(text):
        return newest
    row = SystemPrompt(
        id=new_id("sys"), namespace=namespace, text=storable(text), tokens=tokens, created_at=now
    )
    session.add(row)
    session.flush()
    return row


def system_prompt(session: Session, namespace: str) -> SystemPrompt | None:
    """Return the newest registered system prompt; None if there is none or it is empty."""
    rows = select(SystemPrompt).where(SystemPrompt.namespace == namespace)
    newest = session.scalar(rows.order_by(SystemPrompt.id.desc()).limit(1))
    return newest if newest and newest.text else None


def clear(session: Session, namespace: str, now: datetime) -> None:
    """Remove the system prompt, seed prompts and anchors; earlier system prompts stay on record.

    Raises:
        UnknownNamespace: There is no such namespace.
    """
    namespaces.bump_revision(session, namespace)
    if system_prompt(session, namespace):
        register_system_prompt(session, namespace, "", 0, now)
    replace_seeds(session, namespace, [])
    replace_anchors(session, namespace, [])


def replace_seeds(session: Session, namespace: str, seeds: Sequence[list[Message]]) -> None:
    """Set the seed prompts, which runs train on in addition to logged ones."""
    session.execute(delete(SeedPrompt).where(SeedPrompt.namespace == namespace))
    session.add_all(
        SeedPrompt(id=new_id("seed"), namespace=namespace, messages=messages) for messages in seeds
    )
    session.flush()


def seeds(session: Session, namespace: str) -> list[SeedPrompt]:
    """Return the seed prompts in the order they were given."""
    rows = select(SeedPrompt).where(SeedPrompt.namespace == namespace).order_by(SeedPrompt.id)
    return list(session.scalars(rows))


def replace_anchors(
    session: Session, namespace: str, anchors: Sequence[tuple[list[Message], dict[str, Any]]]
) -> None:
    """Set the anchors: messages, and the checks of the answer."""
    session.execute(delete(Anchor).where(Anchor.namespace == namespace))
    session.add_all(
        Anchor(id=new_id("anchor"), namespace=namespace, messages=messages, expect=expect)
        for messages, expect in anchors
    )
    session.flush()


def anchors(session: Session, namespace: str) -> list[Anchor]:
    """Return the anchors in the order they were given."""
    rows = select(Anchor).where(Anchor.namespace == namespace).order_by(Anchor.id)
    return list(session.scalars(rows))
