"""Views: what is committed is in the next one, and a database that is away costs no request."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from agent.gateway.errors import RequestError
from agent.gateway.metrics import Metrics
from agent.gateway.views import READ_TIMEOUT_S, Views
from store import namespaces
from store.db import Database, Session
from tests.support.factories import NOW, add_lesson

pytestmark = pytest.mark.anyio


class Sluggish:
    """A database that may be slow to read, or down, and is always asked in a thread."""

    url = "sqlite://"

    def __init__(self, db: Database) -> None:
        self.delay_s = 0.0
        self.down = False
        self.reads = 0
        self._db = db

    @contextmanager
    def read(self) -> Iterator[Session]:
        self.reads += 1
        time.sleep(self.delay_s)
        if self.down:
            raise ConnectionError("down")
        with self._db.read() as session:
            yield session


@pytest.fixture
def sluggish(db: Database) -> Sluggish:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        add_lesson(session, "We open at nine.")
    return Sluggish(db)


def new_views(sluggish: Sluggish) -> Views:
    return Views(cast("Database", sluggish), 512, Metrics())


async def test_requests_that_come_during_a_read_share_the_next_one(
    db: Database, sluggish: Sluggish
) -> None:
    views = new_views(sluggish)
    await views.view("shop")
    sluggish.delay_s, sluggish.reads = 0.2, 0
    early = asyncio.ensure_future(views.view("shop"))
    await asyncio.sleep(0.05)
    with db.begin() as session:
        add_lesson(session, "We close at five.")
    late = await asyncio.gather(*(views.view("shop") for _ in range(20)))

    assert await early
    assert sluggish.reads == 2
    assert all(view and "We close at five." in view.context.lessons for view in late)
    views.close()


async def test_an_unknown_namespace_or_version_has_no_view(sluggish: Sluggish) -> None:
    views = new_views(sluggish)
    assert await views.view("nowhere") is None
    assert await views.view("shop", "bh-1") is None
    assert await views.view("shop", "base")
    views.close()


@pytest.mark.parametrize("how", ["down", "slow"])
async def test_a_database_that_is_away_leaves_the_last_view(sluggish: Sluggish, how: str) -> None:
    views = new_views(sluggish)
    known = await views.view("shop")
    sluggish.down = how == "down"
    sluggish.delay_s = READ_TIMEOUT_S * 1.5 if how == "slow" else 0

    begun = time.monotonic()
    assert await views.view("shop") == known
    assert time.monotonic() - begun < READ_TIMEOUT_S * 1.4
    views.close()


async def test_a_database_that_hangs_is_waited_for_once_and_what_it_says_then_serves(
    sluggish: Sluggish, db: Database
) -> None:
    views = new_views(sluggish)
    known = await views.view("shop")
    sluggish.delay_s = READ_TIMEOUT_S * 2
    await views.view("shop")
    begun = time.monotonic()
    for _ in range(20):
        assert await views.view("shop") == known
    assert time.monotonic() - begun < READ_TIMEOUT_S / 2

    sluggish.delay_s = 0
    with db.begin() as session:
        add_lesson(session, "We close at ten.")
    give_up = time.monotonic() + 10
    while await views.view("shop") == known and time.monotonic() < give_up:
        await asyncio.sleep(0.02)
    view = await views.view("shop")
    assert view
    assert "We close at ten." in view.context.lessons
    views.close()


async def test_where_no_view_is_known_the_first_is_waited_for(sluggish: Sluggish) -> None:
    views = new_views(sluggish)
    sluggish.delay_s = READ_TIMEOUT_S * 1.5
    view = await views.view("shop")
    assert view
    assert "We open at nine." in view.context.lessons

    sluggish.delay_s, sluggish.down = 0, True
    with pytest.raises(RequestError) as caught:
        await views.view("never-asked")
    assert caught.value.status == 503
    views.close()


async def test_without_a_thread_every_change_is_in_the_next_view(db: Database) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)

    views = Views(db, 512, Metrics())
    before = await views.view("shop")
    assert await views.view("shop") is before
    for number in range(20):
        with db.begin() as session:
            add_lesson(session, f"We sell {number} lamps.")
            assert await views.view("shop") is before  # nothing is committed yet
        before = await views.view("shop")
        assert before
        assert f"We sell {number} lamps." in before.context.lessons
    views.close()
