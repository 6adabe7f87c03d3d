"""Interactions: what was asked and answered, read by extraction, training, the gate and operators.

How they get here is in records.py. One that is still being answered is `running`: it can be seen,
but is no turn of its conversation yet.
"""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, true

from store.contexts import Message
from store.db import Session
from store.models import Conversation, Feedback, Interaction, Payload
from store.schema import InteractionStatus

FETCH_SIZE = 8


@dataclass(frozen=True)
class Turn:
    """An interaction with its texts and what was said about it."""

    interaction: Interaction
    messages: list[Message]
    response: str
    feedback: list[Feedback]


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
    """A conversation from its beginning: what is no turn of it, or has no texts, left out."""
    return list(iter_turns(session, conversation_id))


def iter_turns(session: Session, conversation_id: str, after: str | None = None) -> Generator[Turn]:
    """The turns of a conversation, a few of them in memory at once; to be closed before its end.

    Args:
        session: In any transaction.
        conversation_id: Which.
        after: Only the turns after this interaction.
    """
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
        .where(
            Interaction.conversation == conversation_id,
            Interaction.status != InteractionStatus.RUNNING,
            ~Interaction.auxiliary,
        )
        .order_by(Interaction.created_at, Interaction.id)
        .execution_options(yield_per=FETCH_SIZE)
    )
    if after is not None:
        texts = texts.where(Interaction.id > after)  # identifiers sort by time
    with session.execute(texts) as rows:
        for interaction, payload in rows:
            signals_on = said.get(interaction.id, [])
            yield Turn(interaction, payload.messages, payload.response, signals_on)


def logged_prompts(
    session: Session,
    namespace: str,
    held_out: bool,
    limit: int,
    until: datetime | None = None,
) -> list[list[Message]]:
    """What clients asked and may be learned from, newest first, each once.

    Conversations with tools are left out: what a tool said is nobody's question.

    Args:
        session: In any transaction.
        namespace: Whose.
        held_out: Those to measure on, or those to train on; never both.
        limit: Most prompts.
        until: None asked later than this.
    """
    rows = (
        select(Payload.messages, Payload.params)
        .join(Interaction, Interaction.id == Payload.interaction)
        .join(Conversation, Conversation.id == Interaction.conversation)
        .where(
            Interaction.namespace == namespace,
            Interaction.status == InteractionStatus.DONE,
            Interaction.learn,
            ~Interaction.auxiliary,
            Conversation.held_out == held_out,
            Interaction.created_at <= until if until else true(),
        )
        .order_by(Interaction.created_at.desc(), Interaction.id.desc())
        .execution_options(yield_per=200)
    )
    distinct: dict[str, list[Message]] = {}
    with session.execute(rows) as logged:
        for messages, params in logged:
            if has_tools(messages, params):
                continue
            distinct.setdefault(json.dumps(messages, sort_keys=True), messages)
            if len(distinct) >= limit:
                break
    return list(distinct.values())


def has_tools(messages: Sequence[Message], params: dict[str, Any]) -> bool:
    """Whether tools were offered or used in a conversation."""
    used = any(message["role"] == "tool" or message.get("tool_calls") for message in messages)
    return used or bool(params.get("tools"))
