"""The job that deletes what is older than the operator keeps it, in small steps."""

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
"""Between two steps, for those who write meanwhile."""


async def run(runtime: Runtime, _payload: dict[str, Any]) -> None:
    """Delete texts and interactions that are past their time."""
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
            count = await _drop_all(runtime.db, find, drop, now - timedelta(days=days))
            log.info("dropped what is past its time", what=name, count=count, days=days)


async def _drop_all(db: Database, find: Find, drop: Drop, before: datetime) -> int:
    def step() -> int:
        with db.read() as session:
            found = find(session, before)
        if found:
            with db.begin() as session:
                drop(session, found)
        return len(found)

    total = 0
    while dropped := await asyncio.to_thread(step):
        total += dropped
        await asyncio.sleep(PAUSE_S)
    return total
