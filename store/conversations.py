"""Conversations, and which of them extraction has yet to read.

A conversation counts its entries (turns and feedback that lessons may be extracted from) and how
many there were at the last extraction. It stores counts rather than times because a turn is
recorded after it started: one that started before an extraction may not have been visible to it.
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
    """Activity in a conversation, possibly its first."""

    conversation: str
    namespace: str
    at: datetime
    is_entry: bool
    """Whether extraction has to read it."""


def touch_all(connection: Connection, activities: Sequence[Activity]) -> None:
    """Record activity in conversations; creates those that do not exist."""
    insert_all(
        connection, _UPSERT[connection.dialect.name], [_row(activity) for activity in activities]
    )


def touch(session: Session, conversation_id: str, at: datetime, is_entry: bool) -> None:
    """Record activity in an existing conversation."""
    session.execute(
        update(Conversation)
        .where(Conversation.id == conversation_id)
        .values(last_at=_later_of(at), entries=Conversation.entries + int(is_entry))
    )


def _later_of(at: ColumnElement[datetime] | datetime) -> ColumnElement[datetime]:
    return case((Conversation.last_at < at, at), else_=Conversation.last_at)


def _upsert(row: sqlite.Insert | postgresql.Insert) -> sqlite.Insert | postgresql.Insert:
    return row.on_conflict_do_update(
        index_elements=[Conversation.id],
        set_={
            "last_at": _later_of(row.excluded.last_at),
            "entries": Conversation.entries + row.excluded.entries,
        },
    )


_UPSERT = {
    "sqlite": _upsert(sqlite.insert(Conversation)),
    "postgresql": _upsert(postgresql.insert(Conversation)),
}
"""Built once, because it is executed for every batch."""


def _row(activity: Activity) -> dict[str, Any]:
    digest = hashlib.sha256(activity.conversation.encode()).digest()
    return {
        "id": activity.conversation,
        "namespace": activity.namespace,
        "held_out": int.from_bytes(digest[:8]) % HELD_OUT_ONE_IN == 0,
        "last_at": activity.at,
        "entries": int(activity.is_entry),
        "entries_read": 0,
    }


def count_entries(session: Session, conversation_id: str) -> int:
    """Return its number of entries, for `mark_read` after they are read."""
    return session.get_one(Conversation, conversation_id).entries


def mark_read(session: Session, conversation_id: str, count: int) -> None:
    """Record that its first `count` entries were read."""
    session.get_one(Conversation, conversation_id).entries_read = count


def unread(session: Session, idle_before: datetime, limit: int) -> list[Conversation]:
    """Return idle conversations of all namespaces with unread entries, longest idle first.

    A conversation needs at least two entries: a single turn says nothing about its answer.
    """
    idle = select(Conversation).where(text(UNREAD), Conversation.last_at <= idle_before)
    return list(session.scalars(idle.order_by(Conversation.last_at).limit(limit)))


def due(
    session: Session, idle_before: datetime, retry_before: datetime, limit: int
) -> list[Conversation]:
    """Return the unread conversations that have no unfinished extraction job, longest idle first.

    They have at least two entries: a single turn says nothing about its answer (`UNREAD`). A
    conversation whose last job failed is due again after new activity, or once that job ended
    before `retry_before`.
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
    """Return the unique key of the conversation's extraction job."""
    return KEY_PREFIX + conversation_id
