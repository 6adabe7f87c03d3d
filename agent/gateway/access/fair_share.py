"""Limits on concurrent work that is shared fairly between callers.

`FairShare` counts operations. Each caller runs at most N at the same time; its further operations
wait, up to a bound, and are then rejected with 429. An optional total limits all callers together:
operations over the total wait for their turn and are not rejected.

`ByteBudget` counts bytes. It is a class of its own for two reasons: the size of an upload is known
only when it has arrived, so its reservation grows while it is held, and nothing waits for memory:
a reservation that exceeds a limit is rejected.

Limits per minute are token buckets, which refill with time: see limits.py.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext

from agent.gateway.errors import RequestError, unavailable

MAX_PENDING_PER_CALLER = 64


class FairShare:
    """A limit on concurrent operations.

    Args:
        total: Maximum number of concurrent operations; None for no limit.
        per_caller: Maximum number of concurrent operations of one caller; None for no limit.
        max_pending_per_caller: Maximum number of one caller's operations that run or wait; more
            are rejected.
        code: The `code` of the rejection.
        message: The message of the rejection.
    """

    def __init__(
        self,
        *,
        total: int | None = None,
        per_caller: int | None = None,
        max_pending_per_caller: int = MAX_PENDING_PER_CALLER,
        code: str = "too_many_at_once",
        message: str | None = None,
    ) -> None:
        self._total = nullcontext() if total is None else asyncio.Semaphore(total)
        self._per_caller = per_caller
        self._max_pending = max_pending_per_caller
        self._code = code
        self._message = message or (
            f"{max_pending_per_caller} requests of this kind are pending for this key. Send fewer "
            "in parallel."
        )
        self._pending: Counter[str] = Counter()
        self._slots: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def slot(self, caller: str) -> AsyncIterator[None]:
        """Hold a slot of the caller and one of the total.

        Raises:
            RequestError: On entering: too many operations of the caller are pending (429).
        """
        async with self.caller_slot(caller), self.total_slot():
            yield

    @asynccontextmanager
    async def caller_slot(self, caller: str) -> AsyncIterator[None]:
        """Hold a slot of the caller, as soon as one is free.

        Raises:
            RequestError: On entering: too many operations of the caller are pending (429).
        """
        if self._per_caller is None:
            yield
            return
        if self._pending[caller] >= self._max_pending:
            raise RequestError(429, self._message, code=self._code)
        self._pending[caller] += 1
        try:
            async with self._slots.setdefault(caller, asyncio.Semaphore(self._per_caller)):
                yield
        finally:
            self._pending[caller] -= 1
            if not self._pending[caller]:
                del self._pending[caller], self._slots[caller]

    def total_slot(self) -> AbstractAsyncContextManager[None]:
        """Hold a slot of the total, as soon as one is free."""
        return self._total


class ByteBudget:
    """A limit on the bytes that all callers together, and each of them, have reserved.

    Args:
        total: Maximum bytes of all callers together.
        per_caller: Maximum bytes of one caller.
    """

    def __init__(self, *, total: int, per_caller: int) -> None:
        self._total = total
        self._per_caller = per_caller
        self._reserved: Counter[str] = Counter()

    @contextmanager
    def reservation(self, caller: str) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves more bytes; leaving the context releases them all.

        Raises:
            RequestError: From that function: the caller's limit (429) or the total (503) is
                exceeded.
        """
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            reserved += size
            self._reserved[caller] += size
            if self._reserved[caller] > self._per_caller:
                message = (
                    "The concurrent requests of this key are too large. Send fewer or smaller "
                    "requests in parallel."
                )
                raise RequestError(429, message, code="too_many_uploads")
            if self._reserved.total() > self._total:
                message = "The server's memory for request bodies is full. Try again shortly."
                raise unavailable(message, code="too_many_uploads")

        try:
            yield reserve
        finally:
            self._reserved[caller] -= reserved
            if not self._reserved[caller]:
                del self._reserved[caller]
