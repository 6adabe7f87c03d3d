"""Read a namespace's revision for each request, in microseconds and without blocking.

The reader runs on the gateway's event loop, with its own connection to SQLite's file and outside
any transaction. In WAL mode a reader does not wait for writers. If it would have to wait, or if the
database is PostgreSQL (a network round trip), it returns None and the caller reads in a thread.
"""

from pathlib import Path

import pysqlite3
from sqlalchemy import make_url

REVISION = "SELECT revision FROM namespaces WHERE name = ?"


class RevisionReader:
    """A non-blocking reader of revisions; connects at the first read."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        is_file = parsed.get_backend_name() == "sqlite" and parsed.database
        self._file = Path(parsed.database or "").resolve() if is_file else None
        self._connection: pysqlite3.Connection | None = None

    def revision(self, namespace: str) -> int | None:
        """Return the namespace's revision; None if it is unknown or reading it might block."""
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
