"""Opening the database: engine, pragmas, sessions, identifiers.

SQLite is the default and PostgreSQL the choice of those who outgrow one machine; the same suites
run on both. Debian's SQLite 3.40 can corrupt a WAL database that several processes write
(sqlite.org/wal.html, "the WAL-reset bug"; fixed in 3.51.3), so SQLite is opened through the
library bundled with `pysqlite3`, and its version is checked.

Invariants others rely on: a transaction of `begin()` holds SQLite's write lock from its first
statement, so it never fails half-way for another writer; one of `read()` sees one moment, takes no
lock that a writer waits for, and cannot write. An error's text has the statement and never its
parameters, which are what clients said.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pysqlite3
import uuid_utils
from sqlalchemy import Connection, Engine, create_engine, event, literal, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import DatabaseError as DriverError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session as Session
from sqlalchemy.orm import sessionmaker

from store.schema import Base

MIN_SQLITE = (3, 51, 3)
BUSY_TIMEOUT_MS = 10_000
REDACTED = "***"
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 60_000

# NaN is not JSON: SQLite would keep it and PostgreSQL refuse it, so both refuse it.
_to_json = partial(json.dumps, allow_nan=False)


DATABASE_UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeout)
"""What a database raises that cannot be reached, is locked or is full: worth another try."""


class DatabaseError(Exception):
    """The database cannot be used; the message says why and what to do."""


@contextmanager
def report_corruption() -> Iterator[None]:
    """Raises DatabaseError where the file is none, or broken; what SQLite says of it, in words."""
    try:
        yield
    except DriverError as error:
        if type(error) is not DriverError:  # one of its kinds, which say something else
            raise
        raise DatabaseError(f"The database is damaged: {error.orig}. Restore a backup.") from error


class Database:
    """An open database: `begin()` is a transaction that commits on success."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _open(url)
        self._file: tuple[int, int] | None = None
        """Device and inode of SQLite's file."""
        self._write = sessionmaker(self.engine, expire_on_commit=False)
        self._read = sessionmaker(_readers(self.engine), expire_on_commit=False)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session in one write transaction; committed at the end, rolled back on an error."""
        with self._write.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads, sees one moment, and never waits for a writer."""
        with self._read.begin() as session:
            yield session

    @contextmanager
    def begin_connection(self) -> Iterator[Connection]:
        """A bare connection in one write transaction, for what is written many times a second.

        Raises:
            DatabaseError: SQLite's file was deleted or replaced: what is open has no name any more,
                and nobody would find what is written to it.
        """
        self._refuse_replaced()
        with self.engine.begin() as connection:
            yield connection

    def _refuse_replaced(self) -> None:
        path = self.engine.url.database
        if self.engine.dialect.name != "sqlite" or not path:
            return
        found = Path(path).stat() if Path(path).is_file() else None
        file = (found.st_dev, found.st_ino) if found else None
        self._file = self._file or file
        if file is None or file != self._file:
            raise DatabaseError(f"{path} was deleted or replaced. Restart byheart.")

    def check(self) -> None:
        """Read the whole database and compare it with itself (SQLite; PostgreSQL does by page).

        Raises:
            DatabaseError: It is damaged.
        """
        if self.engine.dialect.name != "sqlite":
            return
        with report_corruption(), self.read() as session:
            problems = [
                row[0] for row in session.execute(text("PRAGMA quick_check")) if row[0] != "ok"
            ]
            problems += [f"dangling row in {row[0]}" for row in _dangling(session.connection())]
        if problems:
            raise DatabaseError(
                f"The database is damaged: {'; '.join(problems[:5])}. Restore a backup."
            )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def without_password(url: str) -> str:
    """A database URL as it may be shown; what is no URL is not shown at all."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return REDACTED
    secret = {key: REDACTED for key in parsed.query if "password" in key}
    return parsed.update_query_dict(secret).render_as_string(hide_password=True)


def new_id(prefix: str) -> str:
    """A unique identifier that sorts by time, such as `les_0198c5…` (RFC 9562, version 7)."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def insert_if_absent(session: Session, table: type[Base], values: dict[str, Any]) -> bool:
    """Insert a row unless one with its key is there; whether it was inserted.

    Two writers at once are the ordinary case: the later one waits for the earlier one's end.
    """
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    insert = sqlite.insert(table) if on_sqlite else postgresql.insert(table)
    statement = insert.values(**values).on_conflict_do_nothing().returning(literal(1))
    return session.execute(statement).first() is not None


def _dangling(connection: Connection) -> list[Any]:
    return list(connection.execute(text("PRAGMA foreign_key_check")))


def _readers(engine: Engine) -> Engine:
    """The same engine and pool, for transactions that only read."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(read_only=True)
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _open(url: str) -> Engine:
    try:
        kind = make_url(url).get_backend_name()
    except ArgumentError:
        kind = ""
    if kind == "sqlite":
        return _open_sqlite(url)
    if kind in ("postgres", "postgresql"):
        return _open_postgres(url)
    raise DatabaseError(
        "store.url must begin with sqlite:/// or postgresql://; empty means SQLite in "
        "store.data_dir."
    )


def _open_sqlite(url: str) -> Engine:
    version = pysqlite3.sqlite_version_info
    if version < MIN_SQLITE:
        raise DatabaseError(
            f"SQLite {pysqlite3.sqlite_version} can corrupt a database that several processes "
            "write. Install pysqlite3>=0.6.1, which bundles a fixed one."
        )
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(
        url,
        module=pysqlite3,
        connect_args={"check_same_thread": False},
        json_serializer=_to_json,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 — untyped driver
    # The driver must not open transactions by itself: `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")  # a commit survives power loss
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_wal(cursor: Any) -> None:  # noqa: ANN401 — untyped driver
    # SQLite does not wait here, whatever the busy timeout, when several processes open a new
    # database at once. One of them succeeds, and for the others there is nothing left to change.
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except pysqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns into a writer fails with SQLITE_BUSY at once, whatever the
    # busy timeout; taking the write lock first makes it wait instead. A reader is deferred, and
    # `query_only` keeps it from becoming a writer. Connections are pooled, and know which.
    read_only = connection.get_execution_options().get("read_only", False)
    if connection.info.get("read_only") != read_only:
        connection.exec_driver_sql(f"PRAGMA query_only={int(read_only)}")
        connection.info["read_only"] = read_only
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _open_postgres(url: str) -> Engine:
    driver = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", url)
    return create_engine(
        driver,
        pool_pre_ping=True,
        connect_args=_patience(make_url(driver).normalized_query),
        json_serializer=_to_json,
        hide_parameters=True,
    )


def _patience(query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """How long PostgreSQL is waited for; what the URL says itself wins.

    By itself it waits for ever: for a host that is gone, and for a lock that someone forgot.
    """
    limits = (
        f"-c lock_timeout={BUSY_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS} "
        f"-c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_MS}"
    )
    defaults = {"connect_timeout": CONNECT_TIMEOUT_S, "tcp_user_timeout": BUSY_TIMEOUT_MS}
    given = {"options": " ".join([limits, *query.get("options", ())])}
    return given | {key: value for key, value in defaults.items() if key not in query}
