"""Turns at what takes long and is shared: so many of each caller at once, the others wait.

Whoever asks in parallel waits for their own, so that nobody else waits for more than a few of
theirs.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.gateway.errors import RequestError

MOST_WAITING = 64


class Slots:
    """`each` slots of every caller, and at most `most_waiting` requests that have or want one."""

    def __init__(self, each: int, most_waiting: int = MOST_WAITING) -> None:
        self._each = each
        self._most_waiting = most_waiting
        self._asking: Counter[str] = Counter()
        self._free: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def of(self, caller: str) -> AsyncIterator[None]:
        """Have a slot of a caller, as soon as one is free.

        Raises:
            RequestError: On entering: too many of the caller's wait already (429).
        """
        if self._asking[caller] >= self._most_waiting:
            message = f"{self._most_waiting} such requests of this key wait. Send fewer at once."
            raise RequestError(429, message, code="too_many_at_once")
        self._asking[caller] += 1
        try:
            async with self._free.setdefault(caller, asyncio.Semaphore(self._each)):
                yield
        finally:
            self._asking[caller] -= 1
            if not self._asking[caller]:
                del self._asking[caller], self._free[caller]
