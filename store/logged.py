"""Logged prompts: what clients asked, for runs to train on and to measure on, never both.

A conversation belongs to one side by the draw made when it began (conversations.py).
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, true

from store.contexts import Message
from store.db import Session
from store.models import Conversation, Interaction, Payload
from store.schema import InteractionStatus


def prompts(
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
            ~Interaction.side,
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
