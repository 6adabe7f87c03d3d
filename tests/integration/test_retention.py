"""The retention job on real rows."""

from datetime import timedelta
from pathlib import Path

import pytest

from agent.engine.client import VllmEngine
from agent.inflight import Inflight
from agent.jobs import retention
from agent.runtime import Runtime
from config.settings import load
from store import interactions, namespaces
from store.clock import utcnow
from store.db import Database
from tests.support.factories import record

pytestmark = pytest.mark.anyio


async def test_texts_and_interactions_are_deleted_after_their_own_periods(
    db: Database, tmp_path: Path
) -> None:
    kept = {"data_dir": tmp_path, "texts_days": 7, "interactions_days": 30}
    runtime = Runtime(
        load(environ={}, overrides={"store": kept}),
        db,
        VllmEngine(["http://127.0.0.1:1"]),
        "small",
        Inflight(),
    )
    with db.begin() as session:
        namespaces.ensure(session, "shop", utcnow())
        for days in (1, 10, 40):
            record(session, id=f"int_{days:02}", created_at=utcnow() - timedelta(days=days))

    await retention.run(runtime, {})

    with db.read() as session:
        left = [row.id for row in interactions.recent(session, "shop", 10)]
        texts = [interactions.payload(session, one) is not None for one in left]
    assert (left, texts) == (["int_01", "int_10"], [True, False])
