"""Databases for tests: `db` is SQLite; `any_db` and `each_database` run one on both kinds.

Asynchronous tests (`pytest.mark.anyio`) run on uvloop, as the daemon does, and fail after a minute.
Property tests have no deadlines.
"""

import itertools
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from store import namespaces
from store.audit import GENESIS_HASH
from store.db import Database
from store.operations import AuditHead
from store.schema import Base
from store.upgrade import upgrade
from tests.support import postgres, running_gateway
from tests.support.factories import NOW

# A busy machine is slow, and that is no failure.
settings.register_profile("byheart", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("byheart")

ASYNC_TIMEOUT_S = 60

_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("anyio") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(ASYNC_TIMEOUT_S, func_only=True))


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "byheart.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[str]:
    binaries = postgres.find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres.cluster(binaries) as socket:
        yield socket


@pytest.fixture(params=["sqlite", "postgres"])
def blank_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of its own, with no tables in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'blank.db'}"
    socket = request.getfixturevalue("postgres_socket")
    return postgres.create(socket, f"blank_{next(_numbers)}")


@pytest.fixture
def db(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Database]:
    shutil.copy(migrated_sqlite, tmp_path / "byheart.db")
    yield from _opened(f"sqlite:///{tmp_path / 'byheart.db'}")


@pytest.fixture(params=["shared_sqlite", "shared_postgres"], ids=["sqlite", "postgres"])
def any_db(request: pytest.FixtureRequest) -> Iterator[Database]:
    database: Database = request.getfixturevalue(request.param)
    yield database
    _empty(database)


@pytest.fixture(params=["sqlite", "postgres"])
def each_database(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Gateways have SQLite, or PostgreSQL: in each folder a database of its own."""
    if request.param == "sqlite":
        yield
        return
    socket: str = request.getfixturevalue("postgres_socket")
    template: str = request.getfixturevalue("postgres_template")
    made: list[str] = []

    @cache
    def url(_folder: Path) -> str:
        made.append(f"gateway_{next(_numbers)}")
        return postgres.create(socket, made[-1], template)

    monkeypatch.setattr(running_gateway, "database_url", url)
    yield
    for name in made:
        postgres.drop(socket, name)


@pytest.fixture(scope="session")
def postgres_template(postgres_socket: str) -> str:
    """Name of a migrated database with the default namespace, which nobody opens."""
    name = "template_of_gateways"
    for database in _opened(postgres.create(postgres_socket, name)):
        upgrade(database)
        with database.begin() as session:
            namespaces.ensure(session, namespaces.DEFAULT, NOW)
    return name


@pytest.fixture
def shop(any_db: Database) -> Database:
    """A database with the namespaces `shop` and `bank`."""
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        namespaces.ensure(session, "bank", NOW)
    return any_db


@pytest.fixture(scope="session")
def shared_sqlite(migrated_sqlite: Path) -> Iterator[Database]:
    shutil.copy(migrated_sqlite, migrated_sqlite.with_name("shared.db"))
    yield from _opened(f"sqlite:///{migrated_sqlite.with_name('shared.db')}")


@pytest.fixture(scope="session")
def shared_postgres(postgres_socket: str) -> Iterator[Database]:
    yield from _opened(postgres.url_of(postgres_socket, postgres.MIGRATED))


def _opened(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def _empty(database: Database) -> None:
    """Bring a migrated database back to what it was: faster than a new one for every test."""
    with database.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
        session.add(AuditHead(id=1, seq=0, hash=GENESIS_HASH))
