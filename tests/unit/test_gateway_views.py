"""Views: a committed change is in the next one, and an unavailable database fails no request."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from agent.gateway.errors import RequestError
from agent.gateway.metrics import Metrics
from agent.gateway.views import Views
from store import namespaces
from store.db import Database, Session
from store.views import View
from tests.support.factories import NOW, add_lesson
from tests.support.until import until

pytestmark = pytest.mark.anyio


class Sluggish:
    """A database that may hang, or be down, and is always asked in a thread."""

    url = "sqlite://"

    def __init__(self, db: Database) -> None:
        self.answers = threading.Event()
        """A read hangs until this is set."""
        self.answers.set()
        self.down = False
        self.reads = 0
        self._db = db

    @contextmanager
    def read(self) -> Iterator[Session]:
        self.reads += 1
        assert self.answers.wait(60)
        if self.down:
            raise ConnectionError("down")
        with self._db.read() as session:
            yield session


@pytest.fixture
def sluggish(db: Database) -> Iterator[Sluggish]:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        add_lesson(session, "We open at nine.")
    database = Sluggish(db)
    yield database
    database.answers.set()


def new_views(sluggish: Sluggish, timeout_s: float = 30.0) -> Views:
    return Views(cast("Database", sluggish), 512, Metrics(), timeout_s)


def without_waiting(view: Coroutine[Any, Any, View | None]) -> View | None:
    """The view, from a coroutine that must not wait for anything."""
    with pytest.raises(StopIteration) as ended:
        view.send(None)
    return ended.value.value


async def test_requests_that_arrive_during_a_read_share_the_next_one(
    db: Database, sluggish: Sluggish
) -> None:
    views = new_views(sluggish)
    await views.view("shop")
    sluggish.reads = 0
    sluggish.answers.clear()
    early = asyncio.ensure_future(views.view("shop"))
    await until(lambda: sluggish.reads)
    with db.begin() as session:
        add_lesson(session, "We close at five.")
    late = [asyncio.ensure_future(views.view("shop")) for _ in range(20)]
    await checkpoint()
    sluggish.answers.set()

    assert await early
    assert all("We close at five." in view.context.lessons for view in await asyncio.gather(*late))
    assert sluggish.reads == 2
    views.close()


async def test_an_unknown_namespace_or_version_has_no_view(sluggish: Sluggish) -> None:
    views = new_views(sluggish)
    assert await views.view("nowhere") is None
    assert await views.view("shop", "bh-1") is None
    assert await views.view("shop", "base")
    views.close()


@pytest.mark.parametrize("how", ["down", "slow"])
async def test_with_an_unavailable_or_slow_database_the_last_view_serves(
    sluggish: Sluggish, how: str
) -> None:
    views = new_views(sluggish, timeout_s=0.2 if how == "slow" else 30)
    known = await views.view("shop")
    sluggish.down = how == "down"
    if how == "slow":
        sluggish.answers.clear()

    assert await views.view("shop") == known
    views.close()


async def test_a_hanging_database_delays_one_request_and_its_late_answer_is_used(
    sluggish: Sluggish, db: Database
) -> None:
    views = new_views(sluggish, timeout_s=0.2)
    known = await views.view("shop")
    sluggish.answers.clear()
    assert await views.view("shop") == known
    for _ in range(20):
        assert without_waiting(views.view("shop")) == known

    sluggish.answers.set()
    with db.begin() as session:
        add_lesson(session, "We close at ten.")

    async def has_the_new_lesson() -> bool:
        view = await views.view("shop")
        assert view
        return "We close at ten." in view.context.lessons

    await until(has_the_new_lesson)
    views.close()


async def test_the_first_read_of_a_namespace_is_awaited_beyond_the_timeout(
    sluggish: Sluggish,
) -> None:
    views = new_views(sluggish, timeout_s=0)  # expires before any read ends
    sluggish.answers.clear()
    first = asyncio.ensure_future(views.view("shop"))
    await until(lambda: sluggish.reads)
    await wait_all_tasks_blocked()
    assert not first.done()
    sluggish.answers.set()
    view = await first
    assert view
    assert "We open at nine." in view.context.lessons

    sluggish.down = True
    with pytest.raises(RequestError) as caught:
        await views.view("never-asked")
    assert caught.value.status == 503
    views.close()


async def test_every_committed_change_is_in_the_next_view(db: Database) -> None:
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
