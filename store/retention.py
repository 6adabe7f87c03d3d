"""What is old goes, a little at a time: texts first, then what is left of the interactions.

Each call deletes a few rows in the caller's transaction, so that no writer waits for long. What a
lesson rests on stays: its provenance is asked for as long as the lesson is in use.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select

from store.db import Session
from store.models import Conversation, Feedback, Interaction, LessonSupport, Payload

AT_A_TIME = 200


def drop_texts(session: Session, before: datetime) -> int:
    """Delete the texts of some interactions that began before a time; how many."""
    old = (
        select(Payload.interaction)
        .join(Interaction, Interaction.id == Payload.interaction)
        .where(Interaction.created_at < before)
        .order_by(Payload.interaction)  # identifiers sort by time: the oldest are found first
        .limit(AT_A_TIME)
    )
    ids = list(session.scalars(old))
    session.execute(delete(Payload).where(Payload.interaction.in_(ids)))
    return len(ids)


def drop_interactions(session: Session, before: datetime) -> int:
    """Delete some interactions that began before a time, with all that hangs off them; how many."""
    old = (
        select(Interaction.id)
        .where(
            Interaction.created_at < before,
            ~exists().where(LessonSupport.interaction == Interaction.id),
        )
        .order_by(Interaction.id)
        .limit(AT_A_TIME)
    )
    ids = list(session.scalars(old))
    within = Interaction.id.in_(ids)
    conversations = list(session.scalars(select(Interaction.conversation).where(within).distinct()))
    session.execute(delete(Payload).where(Payload.interaction.in_(ids)))
    session.execute(delete(Feedback).where(Feedback.interaction.in_(ids)))
    session.execute(delete(Interaction).where(within))
    _drop_empty(session, conversations)
    return len(ids)


def _drop_empty(session: Session, conversations: Sequence[str]) -> None:
    session.execute(
        delete(Conversation).where(
            Conversation.id.in_(conversations),
            ~exists().where(Interaction.conversation == Conversation.id),
        )
    )
