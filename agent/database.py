"""Opening the configured database, ready to work with: for the daemon and for the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.clock import utcnow
from config.settings import Settings
from store import namespaces
from store.db import Database, DatabaseError


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
        db.upgrade()
        with db.begin() as session:
            namespaces.ensure(session, namespaces.DEFAULT, utcnow())
        yield db
    finally:
        db.close()
