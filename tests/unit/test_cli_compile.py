"""`byheart compile --wait`: it succeeds when the adapter serves, and only then."""

import pytest

from agent.cli.compile import NOTHING_TO_LEARN, outcome
from config.settings import load
from store import namespaces, runs
from store.db import Database
from store.schema import AdapterStatus, RunStatus
from tests.factories import NOW, add_adapter

SETTINGS = load(environ={})
BY_HAND = load(environ={}, overrides={"gate": {"auto_promote": False}})


@pytest.fixture
def shop(db: Database) -> Database:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    return db


def published(db: Database, status: AdapterStatus) -> str:
    """A run whose adapter has come as far as that."""
    with db.begin() as session:
        adapter = add_adapter(session)
        adapter.status = status
        runs.start(session, adapter.run, NOW)
        runs.finish(session, adapter.run, RunStatus.PUBLISHED, "Learned.", NOW, adapter.name)
        return adapter.run


@pytest.mark.parametrize("status", AdapterStatus)
def test_only_an_adapter_that_serves_is_a_success(shop: Database, status: AdapterStatus) -> None:
    ended = outcome(SETTINGS, shop, published(shop, status))
    if status is AdapterStatus.CANDIDATE:
        assert ended is None
    else:
        assert ended is not None
        message, code = ended
        assert str(status) in message
        assert code == (0 if status is AdapterStatus.LIVE else 1)


@pytest.mark.parametrize("status", set(RunStatus) - {RunStatus.PUBLISHED})
def test_a_run_that_published_nothing_is_no_success(shop: Database, status: RunStatus) -> None:
    with shop.begin() as session:
        run = runs.open_run(session, "shop", {}, "a test", 100, NOW)
        run.status, run.reason = status, "Because."
    ended = outcome(SETTINGS, shop, run.id)
    if status in runs.UNFINISHED:
        assert ended is None
    else:
        code = NOTHING_TO_LEARN if status is RunStatus.NOTHING_TO_LEARN else 1
        assert ended == (f"{status}: Because.", code)
