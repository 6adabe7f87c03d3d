"""A namespace's revision, asked with every request: in microseconds, and never waiting.

On a connection of its own to SQLite's file, outside any transaction and any thread, for the
gateway's event loop. A reader of a file in WAL mode waits for no writer; where it would have to
wait after all, or PostgreSQL is asked over a network, there is no answer here, and the caller asks
in a thread.
"""

from pathlib import Path

import pysqlite3
from sqlalchemy import make_url

REVISION = "SELECT revision FROM namespaces WHERE name = ?"


class RevisionReader:
    """Looks into the database at a URL; opened on the first look."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        is_file = parsed.get_backend_name() == "sqlite" and parsed.database
        self._file = Path(parsed.database or "").resolve() if is_file else None
        self._connection: pysqlite3.Connection | None = None

    def revision(self, namespace: str) -> int | None:
        """The namespace's revision; None where it cannot be said without waiting."""
        if self._file is None:
            return None
        try:
            row = self._opened(self._file).execute(REVISION, (namespace,)).fetchone()
        except pysqlite3.Error:
            return None
        return int(row[0]) if row else None

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _opened(self, file: Path) -> pysqlite3.Connection:
        if self._connection is None:
            self._connection = pysqlite3.connect(
                f"{file.as_uri()}?mode=ro",
                uri=True,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )
        return self._connection
