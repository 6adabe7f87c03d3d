"""Group commit: one thread that writes, in batches, what many requests hand in one by one.

Each request waits until the batch with its record is written. While one batch is written the next
gathers, so the cost of a commit is shared by all that came meanwhile, and a lone request waits for
nobody. A large record takes as long as many others, so a batch has at most one: whoever sends large
requests waits for their own.
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
"""Characters of messages that take milliseconds to be written."""

Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]
Item = tuple[Record, Waiting | None]
"""A record, and who waits until it is written."""


class QueueFull(Exception):
    """More records are waiting than may be."""


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
        """Begin to write."""
        self._thread.start()

    async def submit(self, record: Record) -> None:
        """Have a record written; returns when it is.

        Raises:
            QueueFull: It was not taken.
            Exception: Whatever writing the batch raised.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._put((record, (loop, future)))
        await future

    def submit_nowait(self, record: Record) -> None:
        """Have a record written that nobody waits for, as long as there is room."""
        with contextlib.suppress(QueueFull):
            self._put((record, None))

    def close(self, timeout_s: float) -> bool:
        """Write what is waiting and end; False if it took too long."""
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
                self._do_idle()
                last_idle = time.monotonic()
            batch, last = self._next_batch()
            if batch:
                self._write_batch(batch)

    def _do_idle(self) -> None:
        """What is done in between; it must not end the thread that everybody waits for."""
        try:
            if self._idle:
                self._idle()
        except Exception as error:  # noqa: BLE001 — boundary: recorder, tried again at the next tick
            log.warning("idle work failed", thread=self._thread.name, error=repr(error))

    def _next_batch(self) -> tuple[list[Item], bool]:
        """What is waiting, and whether it is the last; empty if nothing came for a tick."""
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
        except Exception as caught:  # noqa: BLE001 — boundary: recorder, each waiting request is told
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
    """Wake the requests, but for those that stopped waiting."""
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
