"""Search interactions and conversations, page by page.

Pages continue after the last id of the previous page. Ids sort by time, so rows recorded meanwhile
do not shift pages. Texts are compressed and the database cannot search them: a text search reads at
most `MAX_TEXTS` per page, so a page can have few results although more follow.
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
    """The conditions of a search; None matches everything."""

    conversation: str | None = None
    principal: str | None = None
    status: InteractionStatus | None = None
    version: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    contains: str | None = None
    """Text in the last message or the answer, ignoring case."""


@dataclass(frozen=True)
class InteractionPage:
    """A page of interactions."""

    rows: list[Interaction]
    next: str | None
    """The `after` of the next page; None on the last page."""


def interactions(
    session: Session, namespace: str, conditions: InteractionFilter, after: str | None, limit: int
) -> InteractionPage:
    """Return a page of the matching interactions, newest first.

    Args:
        session: In any transaction.
        namespace: The namespace to search.
        conditions: The conditions to match.
        after: The `next` of the previous page; None for the first page.
        limit: The maximum number of rows.
    """
    rows = _matching(namespace, conditions)
    if after is not None:
        rows = rows.where(Interaction.id < after)
    rows = rows.order_by(Interaction.id.desc())
    if conditions.contains is None:
        page = list(session.scalars(rows.limit(limit + 1)))
        return InteractionPage(page[:limit], page[limit - 1].id if len(page) > limit else None)
    return _containing(session, rows, conditions.contains.casefold(), limit)


def _matching(namespace: str, conditions: InteractionFilter) -> Select[Interaction]:
    rows = select(Interaction).where(Interaction.namespace == namespace)
    for column in ("conversation", "principal", "status", "version"):
        value = getattr(conditions, column)
        if value is not None:
            rows = rows.where(getattr(Interaction, column) == value)
    if conditions.since is not None:
        rows = rows.where(Interaction.created_at >= conditions.since)
    if conditions.until is not None:
        rows = rows.where(Interaction.created_at < conditions.until)
    return rows


def _containing(
    session: Session, rows: Select[Interaction], contains: str, limit: int
) -> InteractionPage:
    """Read texts until the page is full or `MAX_TEXTS` were read."""
    matches: list[Interaction] = []
    read = rows.join(Payload, Payload.interaction == Interaction.id).add_columns(Payload)
    last, count = None, 0
    texts_to_read = read.limit(MAX_TEXTS).execution_options(
        yield_per=FETCH_SIZE
    )  # texts may be long
    with session.execute(texts_to_read) as texts:
        for interaction, payload in texts:
            last, count = interaction.id, count + 1
            if any(contains in text.casefold() for text in _texts(payload)):
                matches.append(interaction)
                if len(matches) == limit:
                    break
    is_last_page = count < MAX_TEXTS and len(matches) < limit
    return InteractionPage(matches, None if is_last_page else last)


def _texts(payload: Payload) -> Iterator[str]:
    yield payload.response
    for message in payload.messages[-1:]:
        yield message_text(message)


def conversations(
    session: Session, namespace: str, after: str | None, limit: int
) -> tuple[Sequence[tuple[Conversation, int]], str | None]:
    """Return a page of conversations by id with their interaction counts, and the next `after`."""
    rows = (
        select(Conversation, func.count(Interaction.id))
        .outerjoin(Interaction, Interaction.conversation == Conversation.id)
        .where(Conversation.namespace == namespace)
        .group_by(Conversation.id)
        .order_by(Conversation.id)
    )
    if after is not None:
        rows = rows.where(Conversation.id > after)
    page = [(row[0], int(row[1])) for row in session.execute(rows.limit(limit + 1))]
    return page[:limit], page[limit - 1][0].id if len(page) > limit else None


def savings(session: Session, namespace: str) -> list[dict[str, Any]]:
    """Return per version its requests, prompt tokens and the prompt tokens it saved."""
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
