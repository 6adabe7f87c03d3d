"""Open the configured database, for the daemon and for the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from config.settings import Settings
from store import namespaces
from store.clock import utcnow
from store.db import Database, DatabaseError, without_password
from store.upgrade import upgrade

log = structlog.get_logger(__name__)


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Open the database, migrate it and make sure that the default namespace exists.

    Raises:
        DatabaseError: It cannot be opened, or a newer release has migrated it.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        message = f"Cannot use the data folder (store.data_dir): {error}."
        raise DatabaseError(message) from error
    db = Database(settings.database_url)
    try:
        upgrade(db)
        with db.begin() as session:
            is_new = namespaces.ensure(session, namespaces.DEFAULT, utcnow())
        if is_new:  # logged, because with a mistyped data folder all data would seem to be gone
            log.info("database created", database=without_password(settings.database_url))
        yield db
    finally:
        db.close()
