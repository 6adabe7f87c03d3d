"""Interactions and conversations: search, read, and explain an answer."""

from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query

from agent.control import knowledge_schemas, schemas
from agent.control.dependencies import (
    PAGE,
    After,
    AfterId,
    CallerDep,
    Limit,
    ReadSession,
    Timestamp,
    item_or_404,
)
from agent.control.explain import explain
from store import interactions, search
from store.contexts import Message
from store.db import Session
from store.interactions import Turn
from store.models import Conversation, Interaction
from store.schema import InteractionStatus
from store.search import InteractionFilter

PAGE_BYTES = 4 * 2**20
"""Maximum size of the texts in a page; only its last turn may exceed it."""
router = APIRouter(tags=["interactions"])
Text = Annotated[str | None, Query(max_length=256)]


@router.get("/interactions")
def search_interactions(  # noqa: PLR0913 - one for each query parameter
    session: ReadSession,
    caller: CallerDep,
    conversation: Text = None,
    principal: Text = None,
    status: InteractionStatus | None = None,
    version: Text = None,
    since: Timestamp | None = None,
    until: Timestamp | None = None,
    contains: Text = None,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> schemas.Page[schemas.Interaction]:
    """List interactions, newest first. `contains` searches the last message and the answer."""
    filters = InteractionFilter(conversation, principal, status, version, since, until, contains)
    found = search.interactions(session, caller.namespace, filters, after, limit)
    shown = [schemas.Interaction.model_validate(row) for row in found.rows]
    return schemas.Page(data=shown, next=found.next)


@router.get("/interactions/{interaction_id}")
def get_interaction(
    session: ReadSession, caller: CallerDep, interaction_id: str
) -> schemas.InteractionTexts:
    """Get an interaction with its texts, unless they have been deleted."""
    row = _own(session, caller.namespace, interaction_id)
    payload = interactions.payload(session, row.id)
    texts = {name: getattr(payload, name, None) for name in ("messages", "params", "response")}
    return schemas.InteractionTexts(**_interaction_fields(row), **texts)


@router.get("/interactions/{interaction_id}/explain")
def explain_interaction(
    session: ReadSession, caller: CallerDep, interaction_id: str
) -> knowledge_schemas.Explanation:
    """Explain an answer: its version and context, and what was learned from it."""
    return explain(session, _own(session, caller.namespace, interaction_id))


@router.get("/conversations")
def list_conversations(
    session: ReadSession, caller: CallerDep, after: After = None, limit: Limit = PAGE
) -> schemas.Page[schemas.CountedConversation]:
    """List conversations, by id."""
    rows, following = search.conversations(session, caller.namespace, after, limit)
    shown = [
        schemas.CountedConversation(**_conversation_fields(row), interactions=count)
        for row, count in rows
    ]
    return schemas.Page(data=shown, next=following)


@router.get("/conversations/{conversation_id}")
def get_conversation(
    session: ReadSession,
    caller: CallerDep,
    conversation_id: str,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> schemas.ConversationTurns:
    """Get a conversation and a page of its turns, oldest first, each with its new messages."""
    row = session.get(Conversation, conversation_id)
    own: Conversation | None = row if row and row.namespace == caller.namespace else None
    conversation = item_or_404(own, "conversation", conversation_id)
    with closing(interactions.iter_turns(session, conversation.id, after)) as all_turns:
        turns, following = _page(all_turns, limit)
    shown = _conversation_fields(conversation)
    return schemas.ConversationTurns(**shown, turns=turns, next=following)


def _page(turns: Iterator[Turn], limit: int) -> tuple[list[schemas.Turn], str | None]:
    """Return a page of turns, fewer than `limit` if they are long, and its `next` value."""
    page: list[schemas.Turn] = []
    size = 0
    for turn in turns:
        if page and (len(page) == limit or size > PAGE_BYTES):
            return page, page[-1].id
        messages = _new_messages(turn.messages)
        size += len(orjson.dumps(messages)) + len(turn.response)
        page.append(
            schemas.Turn(
                **_interaction_fields(turn.interaction),
                messages=messages,
                response=turn.response,
                feedback=[feedback.id for feedback in turn.feedback],
            )
        )
    return page, None


def _new_messages(messages: list[Message]) -> list[Message]:
    """Return the messages since the previous answer; clients repeat the whole history."""
    answered = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    return messages[answered[-1] + 1 :] if answered else messages


def _interaction_fields(row: Interaction) -> dict[str, Any]:
    return schemas.Interaction.model_validate(row).model_dump()


def _conversation_fields(row: Conversation) -> dict[str, Any]:
    unread = row.entries - row.entries_read
    return {"id": row.id, "held_out": row.held_out, "last_at": row.last_at, "unread": unread}


def _own(session: Session, namespace: str, interaction_id: str) -> Interaction:
    row = interactions.get(session, interaction_id)
    own: Interaction | None = row if row and row.namespace == namespace else None
    return item_or_404(own, "interaction", interaction_id)
