"""Cache the view of each namespace that requests are composed from.

Every request checks the namespace's revision, and reads the view again if it has changed: a lesson
that any process adds is in the next prompt. SQLite reports the revision immediately; PostgreSQL is
queried in a thread. Requests that arrive during a read share the next one, never the running one,
so each request sees everything that was committed before it arrived.

If the database is unavailable, or slower than `timeout_s`, requests use the last known view. After
such a failure they do so without waiting, until a read succeeds. The first read of a namespace has
no fallback and may take longer.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog

from agent.gateway.errors import unavailable
from agent.gateway.metrics import Metrics
from store import snapshots
from store.clock import utcnow
from store.db import Database
from store.revision import RevisionReader
from store.views import View, read_view, revision

log = structlog.get_logger(__name__)

READ_TIMEOUT_S = 1.0
FIRST_READ_TIMEOUT_S = 10.0

Key = tuple[str, str | None]


class Views:
    """Reads views in a dedicated thread, one at a time."""

    def __init__(
        self,
        db: Database,
        token_budget: int,
        metrics: Metrics,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._db = db
        self._revisions = RevisionReader(db.url)
        self._token_budget = token_budget
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="views")
        self._reading = asyncio.Lock()
        self._next: dict[Key, asyncio.Task[View | None]] = {}
        self._known: dict[Key, View] = {}
        self._failing = False
        """Whether the last awaited read failed, and none has succeeded since."""
        self._saved: set[tuple[str, str]] = set()
        """The namespaces and hashes of the contexts that the database has as snapshots."""

    async def view(self, namespace: str, version: str | None = None) -> View | None:
        """Return the view for the live version, or for `version`.

        Returns:
            None if the namespace does not exist, or has no such version.

        Raises:
            RequestError: The database is unavailable and the namespace was never read (503).
        """
        key = (namespace, version)
        known = self._known.get(key)
        if known is not None and self._revisions.revision(namespace) == known.revision:
            return known
        timeout_s = FIRST_READ_TIMEOUT_S if known is None else self._timeout_s
        reading = self._read_next(key)
        if known is not None and self._failing:
            self._metrics.stale_views.inc()
            return known
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(reading)
        except Exception as error:  # noqa: BLE001 — boundary: a database error fails no request
            log.warning("view not read, using the last one", namespace=namespace, error=repr(error))
            self._failing = True
        self._metrics.stale_views.inc()
        if key not in self._known:
            raise unavailable(
                f"The database is unavailable, and namespace {namespace!r} was never read. "
                "Try again shortly.",
                code="database_unavailable",
            )
        return self._known[key]

    def close(self) -> None:
        """Stop the thread."""
        self._revisions.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read_next(self, key: Key) -> asyncio.Task[View | None]:
        """Return the read that starts next; requests that arrive before it starts share it."""
        if key not in self._next:
            self._next[key] = asyncio.ensure_future(self._read(key))
            self._next[key].add_done_callback(_retrieve_error)
        return self._next[key]

    async def _read(self, key: Key) -> View | None:
        async with self._reading:
            del self._next[key]
            loop = asyncio.get_running_loop()
            view = await loop.run_in_executor(self._thread, self._load, key)
            self._failing = False
        if view is None:
            self._known.pop(key, None)
        else:
            self._known[key] = view
            self._save_snapshot(view)
        return view

    def _save_snapshot(self, view: View) -> None:
        """Save the context of prompts as a snapshot, once; no request waits for it."""
        if view.context and (view.namespace, view.snapshot) not in self._saved:
            self._saved.add((view.namespace, view.snapshot))
            asyncio.get_running_loop().run_in_executor(None, self._write_snapshot, view)

    def _write_snapshot(self, view: View) -> None:
        try:
            with self._db.begin() as session:
                snapshots.save_prompt_context(session, view, utcnow())
        except Exception as error:  # noqa: BLE001 — boundary: a database error fails no request
            self._saved.discard((view.namespace, view.snapshot))
            log.warning("snapshot not saved", namespace=view.namespace, error=repr(error))

    def _load(self, key: Key) -> View | None:
        namespace, version = key
        known = self._known.get(key)
        with self._db.read() as session:
            if known is not None and revision(session, namespace) == known.revision:
                return known
            return read_view(session, namespace, self._token_budget, version=version)


def _retrieve_error(task: asyncio.Task[View | None]) -> None:
    """Mark the error as seen: the requests have logged it, or have stopped waiting."""
    if not task.cancelled():
        task.exception()
