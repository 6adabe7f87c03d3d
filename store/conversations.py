"""Conversations: what was said in them, and whether somebody still has to read it.

A conversation counts its signals, which are turns and feedback that may be learned from, and how
many of them there were when it was last read. Counts and not times, because a turn is recorded
after it began: one that began before a reading may not have been in it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    exists,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from store.bulk_insert import insert_all
from store.db import Session
from store.jobs import UNFINISHED
from store.models import UNREAD, Conversation
from store.operations import Job
from store.schema import JobStatus

HELD_OUT_ONE_IN = 5
KEY_PREFIX = "extract "


@dataclass(frozen=True)
class Activity:
    """A sign of life of a conversation, which may be its first."""

    conversation: str
    namespace: str
    at: datetime
    is_signal: bool
    """Whether it also has to be read."""


def touch_all(connection: Connection, signs: Sequence[Activity]) -> None:
    """Move the last sign of life of conversations on; those that are not there begin."""
    insert_all(connection, _UPSERT[connection.dialect.name], [_row(sign) for sign in signs])


def touch(session: Session, conversation_id: str, at: datetime, is_signal: bool) -> None:
    """Move the last sign of life of a conversation on that is there."""
    session.execute(
        update(Conversation)
        .where(Conversation.id == conversation_id)
        .values(last_at=_later_of(at), signals=Conversation.signals + int(is_signal))
    )


def _later_of(at: ColumnElement[datetime] | datetime) -> ColumnElement[datetime]:
    return case((Conversation.last_at < at, at), else_=Conversation.last_at)


def _upsert(row: sqlite.Insert | postgresql.Insert) -> sqlite.Insert | postgresql.Insert:
    return row.on_conflict_do_update(
        index_elements=[Conversation.id],
        set_={
            "last_at": _later_of(row.excluded.last_at),
            "signals": Conversation.signals + row.excluded.signals,
        },
    )


_UPSERT = {
    "sqlite": _upsert(sqlite.insert(Conversation)),
    "postgresql": _upsert(postgresql.insert(Conversation)),
}
"""Built once: it is executed for every batch."""


def _row(sign: Activity) -> dict[str, Any]:
    digest = hashlib.sha256(sign.conversation.encode()).digest()
    return {
        "id": sign.conversation,
        "namespace": sign.namespace,
        "held_out": int.from_bytes(digest[:8]) % HELD_OUT_ONE_IN == 0,
        "last_at": sign.at,
        "signals": int(sign.is_signal),
        "signals_read": 0,
    }


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
