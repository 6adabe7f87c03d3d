"""Interactions and conversations: look for them, read them, and see what an answer rested on."""

from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query

from agent.control import schemas
from agent.control.dependencies import PAGE, After, AfterId, Asking, Limit, Moment, Reading, found
from agent.control.explain import explain
from store import interactions, search
from store.contexts import Message
from store.db import Session
from store.interactions import Turn
from store.models import Conversation, Interaction
from store.schema import InteractionStatus
from store.search import Wanted

PAGE_BYTES = 4 * 2**20
"""Of texts; a page may be longer by its last turn."""
router = APIRouter(tags=["interactions"])
Text = Annotated[str | None, Query(max_length=256)]


@router.get("/interactions")
def search_interactions(  # noqa: PLR0913 - one for each query parameter
    session: Reading,
    caller: Asking,
    conversation: Text = None,
    principal: Text = None,
    status: InteractionStatus | None = None,
    version: Text = None,
    since: Moment | None = None,
    until: Moment | None = None,
    contains: Text = None,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> schemas.Page[schemas.Interaction]:
    """Interactions, newest first; `contains` looks into the last message and the answer."""
    wanted = Wanted(conversation, principal, status, version, since, until, contains)
    rows = search.interactions(session, caller.namespace, wanted, after, limit)
    shown = [schemas.Interaction.model_validate(row) for row in rows.rows]
    return schemas.Page(data=shown, next=rows.next)


@router.get("/interactions/{interaction_id}")
def get_interaction(
    session: Reading, caller: Asking, interaction_id: str
) -> schemas.InteractionTexts:
    """An interaction with its texts, where they are still kept."""
    row = _own(session, caller.namespace, interaction_id)
    kept = interactions.payload(session, row.id)
    texts = {name: getattr(kept, name, None) for name in ("messages", "params", "response")}
    return schemas.InteractionTexts(**_shown(row), **texts)


@router.get("/interactions/{interaction_id}/explain")
def explain_interaction(
    session: Reading, caller: Asking, interaction_id: str
) -> schemas.Explanation:
    """What an answer rested on, and what was learned from it."""
    return explain(session, _own(session, caller.namespace, interaction_id))


@router.get("/conversations")
def list_conversations(
    session: Reading, caller: Asking, after: After = None, limit: Limit = PAGE
) -> schemas.Page[schemas.CountedConversation]:
    """Conversations, by identifier."""
    rows, following = search.conversations(session, caller.namespace, after, limit)
    shown = [
        schemas.CountedConversation(**_conversation(row), interactions=count) for row, count in rows
    ]
    return schemas.Page(data=shown, next=following)


@router.get("/conversations/{conversation_id}")
def get_conversation(
    session: Reading,
    caller: Asking,
    conversation_id: str,
    after: AfterId = None,
    limit: Limit = PAGE,
) -> schemas.ConversationTurns:
    """A conversation and a page of its turns, oldest first, each with what it adds."""
    row = session.get(Conversation, conversation_id)
    own: Conversation | None = row if row and row.namespace == caller.namespace else None
    conversation = found(own, "conversation", conversation_id)
    with closing(interactions.each_turn(session, conversation.id, after)) as each:
        turns, following = _page(each, limit)
    shown = _conversation(conversation)
    return schemas.ConversationTurns(**shown, turns=turns, next=following)


def _page(turns: Iterator[Turn], limit: int) -> tuple[list[schemas.Turn], str | None]:
    """So many turns, or fewer where they are long, and what comes after them."""
    page: list[schemas.Turn] = []
    size = 0
    for turn in turns:
        if page and (len(page) == limit or size > PAGE_BYTES):
            return page, page[-1].id
        messages = _new(turn.messages)
        size += len(orjson.dumps(messages)) + len(turn.response)
        page.append(
            schemas.Turn(
                **_shown(turn.interaction),
                messages=messages,
                response=turn.response,
                feedback=[each.id for each in turn.feedback],
            )
        )
    return page, None


def _new(messages: list[Message]) -> list[Message]:
    """What came since the answer before: a client repeats the whole course with every turn."""
    answered = [index for index, said in enumerate(messages) if said["role"] == "assistant"]
    return messages[answered[-1] + 1 :] if answered else messages


def _shown(row: Interaction) -> dict[str, Any]:
    return schemas.Interaction.model_validate(row).model_dump()


def _conversation(row: Conversation) -> dict[str, Any]:
    unread = row.signals - row.signals_read
    return {"id": row.id, "held_out": row.held_out, "last_at": row.last_at, "unread": unread}


def _own(session: Session, namespace: str, interaction_id: str) -> Interaction:
    row = interactions.get(session, interaction_id)
    own: Interaction | None = row if row and row.namespace == namespace else None
    return found(own, "interaction", interaction_id)
