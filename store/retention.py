"""Retention: delete old texts, and later the interactions themselves, in small batches.

A read transaction finds old rows, which may take a while; a write transaction deletes a small batch
of them, so that no other writer waits long. Interactions that support a lesson are kept, because
the lesson's provenance must stay available.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select

from store.db import Session
from store.models import Conversation, Feedback, Interaction, LessonSupport, Payload

BATCH_SIZE = 200


def old_texts(session: Session, before: datetime) -> list[str]:
    """Return a batch of interactions from before a time that still have texts, oldest first."""
    old = (
        select(Payload.interaction)
        .join(Interaction, Interaction.id == Payload.interaction)
        .where(Interaction.created_at < before)
        .order_by(Payload.interaction)  # identifiers sort by time
    )
    return list(session.scalars(old.limit(BATCH_SIZE)))


def drop_texts(session: Session, ids: Sequence[str]) -> None:
    """Delete the texts of interactions."""
    session.execute(delete(Payload).where(Payload.interaction.in_(ids)))


def old_interactions(session: Session, before: datetime) -> list[str]:
    """Return a batch of interactions from before a time that support no lesson, oldest first."""
    old = select(Interaction.id).where(Interaction.created_at < before, _IS_UNREFERENCED)
    return list(session.scalars(old.order_by(Interaction.id).limit(BATCH_SIZE)))


def drop_interactions(session: Session, ids: Sequence[str]) -> None:
    """Delete interactions with their texts and feedback, except those that support a lesson."""
    locked = select(Interaction.id).where(Interaction.id.in_(ids)).with_for_update()
    session.execute(locked).all()  # concurrent feedback commits before this, or finds no target
    unreferenced = select(Interaction.id, Interaction.conversation)
    rows = session.execute(unreferenced.where(Interaction.id.in_(ids), _IS_UNREFERENCED)).all()
    deleted = [row.id for row in rows]
    session.execute(delete(Payload).where(Payload.interaction.in_(deleted)))
    session.execute(delete(Feedback).where(Feedback.interaction.in_(deleted)))
    session.execute(delete(Interaction).where(Interaction.id.in_(deleted)))
    _drop_empty(session, {row.conversation for row in rows})


_IS_UNREFERENCED = ~exists().where(LessonSupport.interaction == Interaction.id)


def _drop_empty(session: Session, conversations: Collection[str]) -> None:
    session.execute(
        delete(Conversation).where(
            Conversation.id.in_(conversations),
            ~exists().where(Interaction.conversation == Conversation.id),
        )
    )
