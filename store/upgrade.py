"""Upgrade a database's schema to this release's, with Alembic.

Alembic is as large as all other libraries together, so it is imported only if there is a migration
to run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, inspect, text

from store.db import Database, DatabaseError, report_corruption

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = max(file.stem for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))
"""The newest revision; revisions are named like their numbered files."""
UPGRADE_LOCK = 0x62796865617274  # "byheart" in ASCII; any constant that no other program uses


def upgrade(db: Database) -> None:
    """Upgrade the schema to this release; rejects a newer schema.

    The upgrade is atomic: a crash leaves the old schema. Several processes may call it
    concurrently.

    Raises:
        DatabaseError: The database was written by a newer release, or is corrupt.
    """
    with report_corruption():
        with db.engine.connect() as connection:
            present = _revision(connection)
        if present != HEAD:
            run_migrations(db.engine)


def run_migrations(engine: Engine, revision: str = "head") -> None:
    """Run all pending migrations in one transaction.

    Raises:
        DatabaseError: The database was written by a newer release.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection, foreign_keys_off(connection), connection.begin():
        if connection.dialect.name == "postgresql":
            # Another process may be migrating, and a large table takes long.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        _reject_newer(connection, config)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


@contextmanager
def foreign_keys_off(connection: Connection) -> Iterator[None]:
    """Disable SQLite's foreign keys: it alters a table by rebuilding it, which they forbid."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")  # has no effect inside a transaction
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _revision(connection: Connection) -> str | None:
    """Return the database's schema revision; None if it has no schema."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    current: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return current


def _reject_newer(connection: Connection, config: "Config") -> None:
    from alembic.script import ScriptDirectory

    present = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise DatabaseError(
            f"The database has schema {present!r}, which this release does not know. "
            "It was written by a newer byheart: install that release, or restore a backup."
        )
