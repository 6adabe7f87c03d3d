"""The `retain` job: deletes texts and interactions older than the configured days, in batches."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from agent.runtime import Runtime
from store import retention
from store.clock import utcnow
from store.db import Database, Session

log = structlog.get_logger(__name__)

Find = Callable[[Session, datetime], Sequence[str]]
Drop = Callable[[Session, Sequence[str]], None]
PAUSE_S = 0.05
"""Between two batches, so that other writers get their turn."""


async def run(runtime: Runtime, _payload: dict[str, Any]) -> None:
    """Delete expired texts and interactions (`store.texts_days`, `store.interactions_days`)."""
    settings, now = runtime.settings.store, utcnow()
    for name, find, drop, days in (
        ("texts", retention.old_texts, retention.drop_texts, settings.texts_days),
        (
            "interactions",
            retention.old_interactions,
            retention.drop_interactions,
            settings.interactions_days,
        ),
    ):
        if days:
            count = await _delete_all(runtime.db, find, drop, now - timedelta(days=days))
            log.info("retention: deleted", what=name, count=count, days=days)


async def _delete_all(db: Database, find: Find, drop: Drop, before: datetime) -> int:
    """Delete batch by batch until nothing is older than `before`; return how many rows."""

    def delete_batch() -> int:
        with db.read() as session:
            expired = find(session, before)
        if expired:
            with db.begin() as session:
                drop(session, expired)
        return len(expired)

    total = 0
    while deleted := await asyncio.to_thread(delete_batch):
        total += deleted
        await asyncio.sleep(PAUSE_S)
    return total
