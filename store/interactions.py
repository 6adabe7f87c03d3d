"""Queries for interactions, used by extraction, training, the gate and operators.

records.py writes them. An interaction in flight is `running`: it is listed, but not yet a turn of
its conversation.
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
    """An interaction with its texts and feedback."""

    interaction: Interaction
    messages: list[Message]
    response: str
    feedback: list[Feedback]


def get(session: Session, interaction_id: str) -> Interaction | None:
    """Return the interaction, without its texts; None if there is none."""
    return session.get(Interaction, interaction_id)


def payload(session: Session, interaction_id: str) -> Payload | None:
    """Return the texts of an interaction; None also if retention deleted them."""
    return session.get(Payload, interaction_id)


def recent(session: Session, namespace: str, limit: int) -> list[Interaction]:
    """Return the newest interactions, newest first."""
    newest = (
        select(Interaction)
        .where(Interaction.namespace == namespace)
        .order_by(Interaction.created_at.desc(), Interaction.id.desc())
    )
    return list(session.scalars(newest.limit(limit)))


def turns(session: Session, conversation_id: str) -> list[Turn]:
    """Return a conversation's turns, oldest first; leaves out turns without texts."""
    return list(iter_turns(session, conversation_id))


def iter_turns(session: Session, conversation_id: str, after: str | None = None) -> Generator[Turn]:
    """Yield the turns of a conversation in small batches; close it if you stop early.

    Args:
        session: In any transaction.
        conversation_id: The conversation.
        after: Only the turns after this interaction.
    """
    feedback_on: dict[str, list[Feedback]] = {}
    feedback_rows = (
        select(Feedback)
        .join(Interaction, Interaction.id == Feedback.interaction)
        .where(Interaction.conversation == conversation_id)
        .order_by(Feedback.created_at, Feedback.id)
    )
    for feedback in session.scalars(feedback_rows):
        feedback_on.setdefault(feedback.interaction, []).append(feedback)
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
            about = feedback_on.get(interaction.id, [])
            yield Turn(interaction, payload.messages, payload.response, about)


def logged_prompts(
    session: Session,
    namespace: str,
    held_out: bool,
    limit: int,
    until: datetime | None = None,
) -> list[list[Message]]:
    """Return distinct logged prompts that may be trained or evaluated on, newest first.

    Prompts with tools are left out, because they can end with a tool's output instead of a
    question.

    Args:
        session: In any transaction.
        namespace: The namespace to read.
        held_out: True for prompts to evaluate on, False for prompts to train on.
        limit: The maximum number of prompts.
        until: Only prompts sent up to this time.
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
    """Return whether a conversation offers or uses tools."""
    used = any(message["role"] == "tool" or message.get("tool_calls") for message in messages)
    return used or bool(params.get("tools"))
