"""What is old goes, a little at a time: texts first, then what is left of the interactions.

What is old is looked for in a transaction that reads, as that may take a while; a few rows at a
time are deleted in one that writes, so that no other writer waits for long. What a lesson rests on
stays: its provenance is asked for as long as the lesson is in use.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select

from store.db import Session
from store.models import Conversation, Feedback, Interaction, LessonSupport, Payload

BATCH_SIZE = 200


def old_texts(session: Session, before: datetime) -> list[str]:
    """Some interactions that began before a time and still have texts, the oldest first."""
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
    """Some interactions that began before a time and that no lesson rests on, the oldest first."""
    old = select(Interaction.id).where(Interaction.created_at < before, _IS_FREE)
    return list(session.scalars(old.order_by(Interaction.id).limit(BATCH_SIZE)))


def drop_interactions(session: Session, ids: Sequence[str]) -> None:
    """Delete interactions, with all that hangs off them, but for what a lesson rests on by now."""
    held = select(Interaction.id).where(Interaction.id.in_(ids)).with_for_update()
    session.execute(held).all()  # what is being said about them comes before, or not at all
    free = select(Interaction.id, Interaction.conversation)
    rows = session.execute(free.where(Interaction.id.in_(ids), _IS_FREE)).all()
    going = [row.id for row in rows]
    session.execute(delete(Payload).where(Payload.interaction.in_(going)))
    session.execute(delete(Feedback).where(Feedback.interaction.in_(going)))
    session.execute(delete(Interaction).where(Interaction.id.in_(going)))
    _drop_empty(session, {row.conversation for row in rows})


_IS_FREE = ~exists().where(LessonSupport.interaction == Interaction.id)


def _drop_empty(session: Session, conversations: Collection[str]) -> None:
    session.execute(
        delete(Conversation).where(
            Conversation.id.in_(conversations),
            ~exists().where(Interaction.conversation == Conversation.id),
        )
    )
