"""Opening the configured database, ready to work with: for the daemon and for the command line."""

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
    """The database, migrated, with the default namespace.

    Raises:
        DatabaseError: It cannot be opened, or is of a newer release.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        message = f"The data folder cannot be used (store.data_dir): {error}."
        raise DatabaseError(message) from error
    db = Database(settings.database_url)
    try:
        upgrade(db)
        with db.begin() as session:
            is_new = namespaces.ensure(session, namespaces.DEFAULT, utcnow())
        if is_new:  # said, since a mistyped data folder would look like an empty one
            log.info("database made", database=without_password(settings.database_url))
        yield db
    finally:
        db.close()
