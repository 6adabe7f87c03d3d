"""Looking for interactions and conversations, a page at a time, newest first.

A page goes on from the identifier at which the last one ended: identifiers sort by time, so what is
recorded meanwhile shifts nothing. Texts are compressed and cannot be searched by the database; a
search in them reads `MAX_TEXTS` a page, and may so give a page with little in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select

from store.contexts import message_text
from store.db import Session
from store.models import Conversation, Interaction, Payload
from store.schema import InteractionStatus

MAX_TEXTS, FETCH_SIZE = 1000, 20


@dataclass(frozen=True)
class InteractionFilter:
    """Which interactions are looked for; None where it does not matter."""

    conversation: str | None = None
    principal: str | None = None
    status: InteractionStatus | None = None
    version: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    contains: str | None = None
    """What stands in the last message or in the answer, whatever its case."""


@dataclass(frozen=True)
class InteractionPage:
    """A page of interactions."""

    rows: list[Interaction]
    next: str | None
    """Where the next page goes on; None where there is none."""


def interactions(
    session: Session, namespace: str, wanted: InteractionFilter, after: str | None, limit: int
) -> InteractionPage:
    """A page of the interactions that are wanted.

    Args:
        session: In any transaction.
        namespace: Whose.
        wanted: Which.
        after: The `next` of the page before; None for the first.
        limit: Most of them in a page.
    """
    rows = _of(namespace, wanted)
    if after is not None:
        rows = rows.where(Interaction.id < after)
    rows = rows.order_by(Interaction.id.desc())
    if wanted.contains is None:
        found = list(session.scalars(rows.limit(limit + 1)))
        return InteractionPage(found[:limit], found[limit - 1].id if len(found) > limit else None)
    return _containing(session, rows, wanted.contains.casefold(), limit)


def _of(namespace: str, wanted: InteractionFilter) -> Select[Interaction]:
    rows = select(Interaction).where(Interaction.namespace == namespace)
    for column in ("conversation", "principal", "status", "version"):
        value = getattr(wanted, column)
        if value is not None:
            rows = rows.where(getattr(Interaction, column) == value)
    if wanted.since is not None:
        rows = rows.where(Interaction.created_at >= wanted.since)
    if wanted.until is not None:
        rows = rows.where(Interaction.created_at < wanted.until)
    return rows


def _containing(
    session: Session, rows: Select[Interaction], contains: str, limit: int
) -> InteractionPage:
    """Read texts until a page is full, or enough were read for one."""
    found: list[Interaction] = []
    read = rows.join(Payload, Payload.interaction == Interaction.id).add_columns(Payload)
    last, count = None, 0
    few = read.limit(MAX_TEXTS).execution_options(yield_per=FETCH_SIZE)  # texts may be long
    with session.execute(few) as texts:
        for interaction, payload in texts:
            last, count = interaction.id, count + 1
            if any(contains in text.casefold() for text in _texts(payload)):
                found.append(interaction)
                if len(found) == limit:
                    break
    is_all = count < MAX_TEXTS and len(found) < limit
    return InteractionPage(found, None if is_all else last)


def _texts(payload: Payload) -> Iterator[str]:
    yield payload.response
    for message in payload.messages[-1:]:
        yield message_text(message)


def conversations(
    session: Session, namespace: str, after: str | None, limit: int
) -> tuple[Sequence[tuple[Conversation, int]], str | None]:
    """A page of conversations by identifier, each with its number of interactions; and the next."""
    rows = (
        select(Conversation, func.count(Interaction.id))
        .outerjoin(Interaction, Interaction.conversation == Conversation.id)
        .where(Conversation.namespace == namespace)
        .group_by(Conversation.id)
        .order_by(Conversation.id)
    )
    if after is not None:
        rows = rows.where(Conversation.id > after)
    found = [(row[0], int(row[1])) for row in session.execute(rows.limit(limit + 1))]
    return found[:limit], found[limit - 1][0].id if len(found) > limit else None


def savings(session: Session, namespace: str) -> list[dict[str, Any]]:
    """By version: requests, prompt tokens, and those that the version kept out of the prompt."""
    rows = (
        select(
            Interaction.version,
            func.count(),
            func.coalesce(func.sum(Interaction.prompt_tokens), 0),
            func.coalesce(func.sum(Interaction.tokens_saved), 0),
        )
        .where(
            Interaction.namespace == namespace,
            Interaction.status == InteractionStatus.DONE,
        )
        .group_by(Interaction.version)
        .order_by(Interaction.version)
    )
    names = ("version", "requests", "prompt_tokens", "tokens_saved")
    return [dict(zip(names, row, strict=True)) for row in session.execute(rows)]
