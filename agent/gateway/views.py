"""The view of a namespace that a request is composed from: checked anew for every request.

It is read again whenever the namespace's revision has moved, so what the operator or extraction
adds is in the very next prompt, whichever process added it. SQLite says at once whether it has;
PostgreSQL is asked in a thread. Requests that arrive while a read is running share the next one,
never the running one, so that each sees all that was committed before it came. With the database
away, or slower than `timeout_s`, the last view known serves, from then on without waiting, until
a view has been read again; where none is known, the first is waited for longer.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog

from agent.gateway.errors import unavailable
from agent.gateway.metrics import Metrics
from store import snapshots
from store.clock import utcnow
from store.db import Database
from store.revision import Peek
from store.views import View, read_view, revision

log = structlog.get_logger(__name__)

READ_TIMEOUT_S = 1.0
FIRST_READ_TIMEOUT_S = 10.0

Key = tuple[str, str | None]


class Views:
    """Reads views in a thread of its own, one at a time."""

    def __init__(
        self,
        db: Database,
        token_budget: int,
        metrics: Metrics,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._db = db
        self._peek = Peek(db.url)
        self._token_budget = token_budget
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="views")
        self._reading = asyncio.Lock()
        self._next: dict[Key, asyncio.Task[View | None]] = {}
        self._known: dict[Key, View] = {}
        self._failing = False
        """Whether the last read that was waited for has failed, and none has succeeded since."""
        self._noted: set[tuple[str, str]] = set()
        """Namespaces and hashes of contexts that are written down."""

    async def view(self, namespace: str, version: str | None = None) -> View | None:
        """The view for the live version, or for the one named.

        Returns:
            None where there is no such namespace, or the version is not one of its own.

        Raises:
            RequestError: The database is away and nothing is known of the namespace (503).
        """
        key = (namespace, version)
        known = self._known.get(key)
        if known is not None and self._peek.revision(namespace) == known.revision:
            return known
        timeout_s = FIRST_READ_TIMEOUT_S if known is None else self._timeout_s
        reading = self._read_next(key)
        if known is not None and self._failing:
            self._metrics.stale_views.inc()
            return known
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(reading)
        except Exception as error:  # noqa: BLE001 — boundary: the database costs no request
            log.warning("last view serves", namespace=namespace, error=repr(error))
            self._failing = True
        self._metrics.stale_views.inc()
        if key not in self._known:
            raise unavailable(
                f"The database is away and namespace {namespace!r} has not been asked for before. "
                "Try again shortly.",
                code="database_unavailable",
            )
        return self._known[key]

    def close(self) -> None:
        """End the thread."""
        self._peek.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read_next(self, key: Key) -> asyncio.Task[View | None]:
        """The read that has not begun yet; all who come before it begins share it."""
        if key not in self._next:
            self._next[key] = asyncio.ensure_future(self._read(key))
            self._next[key].add_done_callback(_look)
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
            self._note(view)
        return view

    def _note(self, view: View) -> None:
        """Have what stands in prompts written down, once; no request waits for it."""
        if view.context and (view.namespace, view.snapshot) not in self._noted:
            self._noted.add((view.namespace, view.snapshot))
            asyncio.get_running_loop().run_in_executor(None, self._write_down, view)

    def _write_down(self, view: View) -> None:
        try:
            with self._db.begin() as session:
                snapshots.note(session, view, utcnow())
        except Exception as error:  # noqa: BLE001 — boundary: the database costs no request
            self._noted.discard((view.namespace, view.snapshot))
            log.warning("context not written down", namespace=view.namespace, error=repr(error))

    def _load(self, key: Key) -> View | None:
        namespace, version = key
        known = self._known.get(key)
        with self._db.read() as session:
            if known is not None and revision(session, namespace) == known.revision:
                return known
            return read_view(session, namespace, self._token_budget, version=version)


def _look(task: asyncio.Task[View | None]) -> None:
    """A failed read that everyone has stopped waiting for has been reported as slow already."""
    if not task.cancelled():
        task.exception()
