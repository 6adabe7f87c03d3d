"""The database connection: engines, pragmas, sessions and identifiers.

SQLite is the default; PostgreSQL serves deployments on several machines. The same tests run on
both. Debian's SQLite 3.40 can corrupt a WAL database that several processes write
(sqlite.org/wal.html, "the WAL-reset bug"; fixed in 3.51.3), so byheart uses the SQLite library
bundled with `pysqlite3` and checks its version.

Invariants: a `begin()` transaction takes SQLite's write lock at its start, so another writer
cannot make it fail half-way. A `read()` transaction sees one consistent snapshot, never blocks a
writer and cannot write. Error messages contain the SQL statement but never its parameters, which
hold clients' texts.
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

# NaN is not JSON. SQLite would store it and PostgreSQL reject it, so byheart rejects it on both.
_to_json = partial(json.dumps, allow_nan=False)


DATABASE_UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeout)
"""Errors of a database that is unreachable, locked or full; the operation can be retried."""


class DatabaseError(Exception):
    """The database is unusable; the message says why and how to fix it."""


@contextmanager
def report_corruption() -> Iterator[None]:
    """Turn SQLite's error for a corrupt file, or one that is no database, into DatabaseError."""
    try:
        yield
    except DriverError as error:
        if type(error) is not DriverError:  # a subclass, which means something else
            raise
        raise DatabaseError(f"The database is corrupt: {error.orig}. Restore a backup.") from error


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
        """Yield a session in a write transaction; commits at the end, rolls back on an error."""
        with self._write.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a read-only session that sees one snapshot and never waits for a writer."""
        with self._read.begin() as session:
            yield session

    @contextmanager
    def begin_connection(self) -> Iterator[Connection]:
        """Yield a Core connection in a write transaction, for rows written many times a second.

        Raises:
            DatabaseError: SQLite's file was deleted or replaced, so writes to the open file would
                be lost.
        """
        self._check_not_replaced()
        with self.engine.begin() as connection:
            yield connection

    def _check_not_replaced(self) -> None:
        path = self.engine.url.database
        if self.engine.dialect.name != "sqlite" or not path:
            return
        stat = Path(path).stat() if Path(path).is_file() else None
        file = (stat.st_dev, stat.st_ino) if stat else None
        self._file = self._file or file
        if file is None or file != self._file:
            raise DatabaseError(f"{path} was deleted or replaced. Restart byheart.")

    def check(self) -> None:
        """Check the integrity of a SQLite database (PostgreSQL checks its pages by itself).

        Raises:
            DatabaseError: It is corrupt.
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
                f"The database is corrupt: {'; '.join(problems[:5])}. Restore a backup."
            )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def without_password(url: str) -> str:
    """Return a database URL with its passwords redacted; redacts an invalid URL entirely."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return REDACTED
    secret = {key: REDACTED for key in parsed.query if "password" in key}
    return parsed.update_query_dict(secret).render_as_string(hide_password=True)


def new_id(prefix: str) -> str:
    """Return a unique id that sorts by time, such as `les_0198c5…` (UUID version 7, RFC 9562)."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def insert_if_absent(session: Session, table: type[Base], values: dict[str, Any]) -> bool:
    """Insert a row unless one with its key exists; return whether it was inserted.

    Safe with concurrent writers: the later one waits until the earlier one's transaction ends.
    """
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    insert = sqlite.insert(table) if on_sqlite else postgresql.insert(table)
    statement = insert.values(**values).on_conflict_do_nothing().returning(literal(1))
    return session.execute(statement).first() is not None


def _dangling(connection: Connection) -> list[Any]:
    return list(connection.execute(text("PRAGMA foreign_key_check")))


def _readers(engine: Engine) -> Engine:
    """Return the same engine and pool, configured for read-only transactions."""
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
        "store.url must start with sqlite:/// or postgresql://; leave it empty for SQLite in "
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
    # SQLite ignores the busy timeout here when several processes open a new database at the same
    # time. One of them succeeds; for the others the mode is then already set.
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
    # A deferred transaction that starts to write fails with SQLITE_BUSY immediately, regardless of
    # the busy timeout; taking the write lock first makes it wait. Readers are deferred, and
    # `query_only` stops them from writing. Pooled connections remember their mode in `info`.
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
        connect_args=_timeouts(make_url(driver).normalized_query),
        json_serializer=_to_json,
        hide_parameters=True,
    )


def _timeouts(query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return PostgreSQL's connect arguments with timeouts; the URL's own settings take precedence.

    By default PostgreSQL waits forever for an unreachable host or an abandoned lock.
    """
    limits = (
        f"-c lock_timeout={BUSY_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS} "
        f"-c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_MS}"
    )
    defaults = {"connect_timeout": CONNECT_TIMEOUT_S, "tcp_user_timeout": BUSY_TIMEOUT_MS}
    options = {"options": " ".join([limits, *query.get("options", ())])}
    return options | {key: value for key, value in defaults.items() if key not in query}
