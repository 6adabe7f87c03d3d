"""Interactions: what was asked and answered, durable, and which of it may be learned from.

The gateway records, directly or from its spool; extraction, training and the gate read. Recording
is idempotent by id, and everything derived (conversation, held-out draw, prefix hash) depends on
the record alone or on its namespace's rows, so that a replay after a crash changes nothing. A
conversation belongs to one namespace, whatever identifier the client gave it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import exists, select
from sqlalchemy.orm import aliased

from store import conversations
from store.contexts import SYSTEM_ROLES, Message, message_text
from store.db import Session, insert_new
from store.models import Feedback, Interaction, Payload
from store.schema import InteractionStatus, Trust


@dataclass(frozen=True)
class Record:
    """One served request, as the gateway hands it over."""

    id: str
    namespace: str
    conversation: str | None
    """As the client named it; None to find it by the messages."""
    principal: str
    status: InteractionStatus
    version: str
    arm: str
    context_hash: str
    learn: bool
    created_at: datetime
    prompt_tokens: int | None
    completion_tokens: int | None
    tokens_saved: int
    first_token_ms: float | None
    total_ms: float
    error: str | None
    messages: list[Message]
    """As the client sent them."""
    params: dict[str, Any]
    response: str
    trust: Trust = Trust.USER
    """Of what the messages say."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for the spool."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(
            **values
            | {
                "created_at": datetime.fromisoformat(values["created_at"]),
                "status": InteractionStatus(values["status"]),
                "trust": Trust(values["trust"]),
            }
        )


@dataclass(frozen=True)
class Turn:
    """An interaction with its texts and what was said about it."""

    interaction: Interaction
    messages: list[Message]
    response: str
    feedback: list[Feedback]


def record(session: Session, record: Record) -> bool:
    """Keep an interaction and its texts; False where it was there already."""
    if session.get(Interaction, record.id) is not None:
        return False
    conversation = _conversation_of(session, record)
    conversations.begin(session, conversation, record.namespace, record.created_at)
    answer = {"role": "assistant", "content": record.response}
    values = {name: getattr(record, name) for name in _SHARED_COLUMNS} | {
        "conversation": conversation,
        "prefix_hash": prefix_hash([*record.messages, answer]),
    }
    if not insert_new(session, Interaction, values):
        return False
    conversations.touch(session, conversation, record.created_at, is_signal=record.learn)
    session.add(
        Payload(
            interaction=record.id,
            messages=record.messages,
            params=record.params,
            response=record.response,
        )
    )
    session.flush()
    return True


_SHARED_COLUMNS = tuple(
    name
    for name in Record.__dataclass_fields__
    if name in Interaction.__table__.columns and name != "conversation"
)


def prefix_hash(messages: Sequence[Message]) -> str:
    """Identify a course of conversation: roles and texts, whatever the white space.

    System messages do not count: they are the application's, and may change between turns.
    """
    said = [
        [message["role"], " ".join(message_text(message).split())]
        for message in messages
        if message["role"] not in SYSTEM_ROLES
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def get(session: Session, interaction_id: str) -> Interaction | None:
    """The interaction without its texts."""
    return session.get(Interaction, interaction_id)


def payload(session: Session, interaction_id: str) -> Payload | None:
    """The texts of an interaction; None also where they were dropped."""
    return session.get(Payload, interaction_id)


def recent(session: Session, namespace: str, limit: int) -> list[Interaction]:
    """The newest interactions, newest first."""
    newest = (
        select(Interaction)
        .where(Interaction.namespace == namespace)
        .order_by(Interaction.created_at.desc(), Interaction.id.desc())
    )
    return list(session.scalars(newest.limit(limit)))


def turns(session: Session, conversation_id: str) -> list[Turn]:
    """A conversation from its beginning, without turns whose texts were dropped."""
    said: dict[str, list[Feedback]] = {}
    signals = (
        select(Feedback)
        .join(Interaction, Interaction.id == Feedback.interaction)
        .where(Interaction.conversation == conversation_id)
        .order_by(Feedback.created_at, Feedback.id)
    )
    for feedback in session.scalars(signals):
        said.setdefault(feedback.interaction, []).append(feedback)
    texts = (
        select(Interaction, Payload)
        .join(Payload, Payload.interaction == Interaction.id)
        .where(Interaction.conversation == conversation_id)
        .order_by(Interaction.created_at, Interaction.id)
    )
    return [
        Turn(interaction, payload.messages, payload.response, said.get(interaction.id, []))
        for interaction, payload in session.execute(texts)
    ]


def _conversation_of(session: Session, record: Record) -> str:
    """The key of the conversation that the record belongs to, which may not exist yet."""
    if record.conversation is not None:
        return _key(record.namespace, "named", record.conversation)
    return _continued(session, record) or _key(record.namespace, "begins", record.id)


def _key(namespace: str, origin: str, name: str) -> str:
    """A client's name for a conversation is its own: in another namespace it is another one."""
    digest = hashlib.sha256(json.dumps([namespace, origin, name]).encode()).hexdigest()
    return f"con_{digest[:32]}"


def _continued(session: Session, record: Record) -> str | None:
    """The principal's conversation that went as the messages up to the last answer go.

    Where several went the same way, the newest that nobody has continued: two people who were
    greeted alike keep their own conversations.
    """
    answers = [i for i, message in enumerate(record.messages) if message["role"] == "assistant"]
    if not answers:
        return None
    later = aliased(Interaction)
    has_later = exists().where(
        later.conversation == Interaction.conversation, later.created_at > Interaction.created_at
    )
    return session.scalar(
        select(Interaction.conversation)
        .where(
            Interaction.namespace == record.namespace,
            Interaction.prefix_hash == prefix_hash(record.messages[: answers[-1] + 1]),
            Interaction.principal == record.principal,
            Interaction.created_at <= record.created_at,
        )
        .order_by(has_later, Interaction.created_at.desc(), Interaction.id.desc())
        .limit(1)
    )
