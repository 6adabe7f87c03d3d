"""Group commit: one thread writes the records of concurrent requests in batches.

Each request waits until its record's batch is written. While one batch is written, records collect
for the next one, so concurrent requests share the cost of a commit, and a single request waits for
no other. A large record takes as long as many small ones, so a batch contains at most
one: large records wait for each other, and small records do not wait for them.
"""

import asyncio
import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable

import structlog

from store.contexts import message_text
from store.records import Record

log = structlog.get_logger(__name__)

MAX_BATCH_RECORDS = 256
LARGE_RECORD_CHARS = 2**18
"""Messages of this many characters take milliseconds to write."""

Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]
Item = tuple[Record, Waiting | None]
"""A record, and the future of the request that waits for it."""


class QueueFull(Exception):
    """The queue is full or closed."""


class GroupCommit:
    """A writer thread with a bounded queue; `idle` is called every `tick_s`, between batches."""

    def __init__(
        self,
        name: str,
        write: Callable[[list[Record]], None],
        *,
        capacity: int,
        idle: Callable[[], None] | None = None,
        tick_s: float = 0.5,
    ) -> None:
        self._write = write
        self._idle = idle
        self._tick_s = tick_s
        self._closed = False
        self._capacity = capacity
        self._small: deque[Item] = deque()
        self._large: deque[Item] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        """Records that no batch has taken yet."""
        return len(self._small) + len(self._large)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def submit(self, record: Record) -> None:
        """Write a record; return when it is written.

        Raises:
            QueueFull: The queue is full or closed.
            Exception: The error of writing its batch.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._put((record, (loop, future)))
        await future

    def submit_nowait(self, record: Record) -> None:
        """Queue a record without waiting; drop it if the queue is full."""
        with contextlib.suppress(QueueFull):
            self._put((record, None))

    def close(self, timeout_s: float) -> bool:
        """Write what is waiting and stop; return False on timeout."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _put(self, item: Item) -> None:
        lane = self._large if _is_large(item[0]) else self._small
        with self._changed:
            if self._closed:
                raise QueueFull(f"{self._thread.name}: closed")
            if self.waiting >= self._capacity:
                raise QueueFull(f"{self._thread.name}: {self.waiting} records are waiting")
            lane.append(item)
            self._changed.notify()

    def _run(self) -> None:
        last_idle, last = float("-inf"), False
        while not last:
            if time.monotonic() - last_idle >= self._tick_s:
                self._run_idle()
                last_idle = time.monotonic()
            batch, last = self._next_batch()
            if batch:
                self._write_batch(batch)

    def _run_idle(self) -> None:
        """Run the idle work; its errors must not end the thread."""
        try:
            if self._idle:
                self._idle()
        except Exception as error:  # noqa: BLE001 — boundary: recorder, tried again at the next tick
            log.warning("idle work failed", thread=self._thread.name, error=repr(error))

    def _next_batch(self) -> tuple[list[Item], bool]:
        """Return the next batch, which is empty after an idle tick, and whether it is the last."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or self._closed, self._tick_s)
            count = min(len(self._small), MAX_BATCH_RECORDS)
            batch = [self._small.popleft() for _ in range(count)]
            if self._large:
                batch.append(self._large.popleft())
            return batch, self._closed and not self.waiting

    def _write_batch(self, batch: list[Item]) -> None:
        error: Exception | None = None
        try:
            self._write([record for record, _ in batch])
        except Exception as caught:  # noqa: BLE001 — boundary: recorder, each waiting request gets the error
            error = caught
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = defaultdict(list)
        for loop, future in (waiting for _, waiting in batch if waiting):
            by_loop[loop].append(future)
        for loop, futures in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, futures, error)


def _is_large(record: Record) -> bool:
    return sum(len(message_text(message)) for message in record.messages) >= LARGE_RECORD_CHARS


def _resolve(futures: list[asyncio.Future[None]], error: Exception | None) -> None:
    """Resolve the futures of the requests that still wait."""
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
