"""Interactions and conversations: look for them, read them, and see what an answer rested on."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from agent.admin.api.control import PAGE, After, Asking, Limit, Reading, found, page
from store import interactions, lessons, search, snapshots
from store.db import Session
from store.models import Conversation, Interaction
from store.schema import InteractionStatus
from store.search import Wanted

router = APIRouter(tags=["interactions"])
TEXTS = ("messages", "params", "response")
Text = Annotated[str | None, Query(max_length=256)]


@router.get("/interactions")
def search_interactions(  # noqa: PLR0913 - one for each query parameter
    session: Reading,
    caller: Asking,
    conversation: Text = None,
    principal: Text = None,
    status: InteractionStatus | None = None,
    version: Text = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    contains: Text = None,
    after: After = None,
    limit: Limit = PAGE,
) -> dict[str, Any]:
    """Interactions, newest first; `contains` looks into the last message and the answer."""
    wanted = Wanted(conversation, principal, status, version, since, until, contains)
    rows = search.interactions(session, caller.namespace, wanted, after, limit)
    return page([shown(row) for row in rows.rows], rows.next)


@router.get("/interactions/{interaction_id}")
def get_interaction(session: Reading, caller: Asking, interaction_id: str) -> dict[str, Any]:
    """An interaction with its texts, where they are still kept."""
    row = _own(session, caller.namespace, interaction_id)
    texts = interactions.payload(session, row.id)
    return shown(row) | {name: getattr(texts, name, None) for name in TEXTS}


@router.get("/interactions/{interaction_id}/explain")
def explain(session: Reading, caller: Asking, interaction_id: str) -> dict[str, Any]:
    """What an answer rested on, and what was learned from it."""
    row = _own(session, caller.namespace, interaction_id)
    snapshot = snapshots.get(session, row.context_hash, caller.namespace)
    learned = lessons.resting_on(session, row.id)
    return {
        "interaction": row.id,
        "version": row.version,
        "arm": row.arm,
        "context": row.context_hash,
        "system_prompt": snapshot.system_prompt if snapshot else None,
        "lessons_in_prompt": [each["text"] for each in snapshot.lessons] if snapshot else None,
        "tokens_saved": row.tokens_saved,
        "learned": [
            {"id": lesson.id, "status": lesson.status.value, "text": lessons.text(lesson)}
            for lesson in learned
        ],
    }


@router.get("/conversations")
def list_conversations(
    session: Reading, caller: Asking, after: After = None, limit: Limit = PAGE
) -> dict[str, Any]:
    """Conversations, by identifier."""
    rows, following = search.conversations(session, caller.namespace, after, limit)
    return page([_conversation(row) | {"interactions": count} for row, count in rows], following)


@router.get("/conversations/{conversation_id}")
def get_conversation(session: Reading, caller: Asking, conversation_id: str) -> dict[str, Any]:
    """A conversation and its turns, oldest first."""
    row = session.get(Conversation, conversation_id)
    own: Conversation | None = row if row and row.namespace == caller.namespace else None
    conversation = found(own, "conversation", conversation_id)
    turns = interactions.turns(session, conversation.id)
    return _conversation(conversation) | {
        "turns": [
            shown(turn.interaction)
            | {"messages": turn.messages, "response": turn.response}
            | {"feedback": [each.id for each in turn.feedback]}
            for turn in turns
        ]
    }


def shown(row: Interaction) -> dict[str, Any]:
    """An interaction without its texts."""
    columns = (column.key for column in Interaction.__table__.columns)
    hidden = {"namespace", "prefix_hash", "server"}
    return {name: _plain(getattr(row, name)) for name in columns if name not in hidden}


def _conversation(row: Conversation) -> dict[str, Any]:
    return {
        "id": row.id,
        "held_out": row.held_out,
        "last_at": row.last_at.isoformat(),
        "unread": row.signals - row.signals_read,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - a column's value
    return value.isoformat() if isinstance(value, datetime) else value


def _own(session: Session, namespace: str, interaction_id: str) -> Interaction:
    row = interactions.get(session, interaction_id)
    own: Interaction | None = row if row and row.namespace == namespace else None
    return found(own, "interaction", interaction_id)
