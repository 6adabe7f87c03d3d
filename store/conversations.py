"""Conversations: what was said in them, and whether somebody still has to read it.

A conversation counts its signals, which are turns and feedback that may be learned from, and how
many of them there were when it was last read. Counts and not times, because a turn is recorded
after it began: one that began before a reading may not have been in it.
"""

import hashlib
from datetime import datetime

from sqlalchemy import and_, case, exists, literal, or_, select, text, update

from store.db import Session, insert_new
from store.jobs import UNFINISHED
from store.models import UNREAD, Conversation
from store.operations import Job
from store.schema import JobStatus

HELD_OUT_ONE_IN = 5
KEY_PREFIX = "extract "


def begin(session: Session, conversation_id: str, namespace: str, at: datetime) -> None:
    """Create the conversation, if it is not there."""
    digest = hashlib.sha256(conversation_id.encode()).digest()
    values = {
        "id": conversation_id,
        "namespace": namespace,
        "held_out": int.from_bytes(digest[:8]) % HELD_OUT_ONE_IN == 0,
        "last_at": at,
    }
    insert_new(session, Conversation, values)


def touch(session: Session, conversation_id: str, at: datetime, is_signal: bool) -> None:
    """Move its last sign of life on; a signal also has to be read."""
    session.execute(
        update(Conversation)
        .where(Conversation.id == conversation_id)
        .values(
            last_at=case((Conversation.last_at < at, at), else_=Conversation.last_at),
            signals=Conversation.signals + int(is_signal),
        )
    )


def signals(session: Session, conversation_id: str) -> int:
    """How many signals it has, to be noted with `mark_read` when they are read."""
    return session.get_one(Conversation, conversation_id).signals


def mark_read(session: Session, conversation_id: str, count: int) -> None:
    """Note that its first `count` signals were read."""
    session.get_one(Conversation, conversation_id).signals_read = count


def unread(session: Session, idle_before: datetime, limit: int) -> list[Conversation]:
    """Idle conversations of all namespaces with something to read, idle for the longest first.

    That is an unread signal where there are two: a single turn says nothing about its answer.
    """
    idle = select(Conversation).where(text(UNREAD), Conversation.last_at <= idle_before)
    return list(session.scalars(idle.order_by(Conversation.last_at).limit(limit)))


def due(
    session: Session, idle_before: datetime, retry_before: datetime, limit: int
) -> list[Conversation]:
    """The unread conversations that need a job: those that have none, or one that is over.

    A job that gave up on all that was said is not repeated until `retry_before` is past its end.
    """
    gave_up = and_(
        Job.status == JobStatus.FAILED,
        Job.created_at >= Conversation.last_at,
        Job.finished_at > retry_before,
    )
    has_job = exists().where(
        Job.unique_key == literal(KEY_PREFIX) + Conversation.id,
        or_(Job.status.in_(UNFINISHED), gave_up),
    )
    idle = select(Conversation).where(text(UNREAD), Conversation.last_at <= idle_before, ~has_job)
    return list(session.scalars(idle.order_by(Conversation.last_at).limit(limit)))


def job_key(conversation_id: str) -> str:
    """The unique key of the job that reads the conversation."""
    return KEY_PREFIX + conversation_id
