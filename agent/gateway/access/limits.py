"""How much each key may do: requests to the model at once, requests a minute, tokens a minute.

Token buckets that hold a minute's worth, in this process's memory: a restart fills them. Tokens
are known only when an answer has ended, so a request is let through while any are left, and what it
took is taken then, below zero if need be.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from agent.gateway.errors import RequestError
from store.keys import Key

MINUTE_S = 60.0
MOST_WAITING = 64


@dataclass
class _Bucket:
    """Something that there is so much of a minute, and that no more than that gathers of."""

    per_minute: int
    left: float
    at: float
    """When `left` was right, in seconds."""

    def refill(self, now: float) -> None:
        gained = (now - self.at) * self.per_minute / MINUTE_S
        self.left, self.at = min(self.per_minute, self.left + gained), now

    def wait_s(self, needed: float) -> float:
        """Seconds until there is so much of it."""
        return max(0.0, needed - self.left) * MINUTE_S / self.per_minute


class RateLimiter:
    """What the keys have done lately."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        self._running: dict[str, int] = {}
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def count_request(self, key: Key) -> None:
        """Count a request of a key, whatever it asks for.

        Raises:
            RequestError: The key has asked as often as it may (429); says when to come back.
        """
        self._admit(key.id, "requests", key.grant.limits.requests_per_minute, takes=1)

    @contextmanager
    def admit(self, key: Key | None) -> Iterator[None]:
        """One request to the model, from its beginning to its end; without a key nothing limits it.

        Raises:
            RequestError: The key has done as much as it may (429); says when to come back.
        """
        if key is None:
            yield
            return
        limits, running = key.grant.limits, self._running.get(key.id, 0)
        if limits.concurrent is not None and running >= limits.concurrent:
            raise _too_many(f"{limits.concurrent} requests at once", 1.0)
        self._admit(key.id, "tokens", limits.tokens_per_minute, takes=0)
        self._running[key.id] = running + 1
        try:
            yield
        finally:
            self._running[key.id] -= 1
            if not self._running[key.id]:
                del self._running[key.id]

    def charge_tokens(self, key: Key, tokens: int) -> None:
        """Count the tokens of an answer that has ended."""
        per_minute = key.grant.limits.tokens_per_minute
        if per_minute is not None:
            self._bucket(key.id, "tokens", per_minute).left -= tokens

    def _admit(self, key: str, what: str, per_minute: int | None, takes: int) -> None:
        if per_minute is None:
            return
        bucket = self._bucket(key, what, per_minute)
        wait_s = bucket.wait_s(1)
        if wait_s:
            raise _too_many(f"{per_minute} {what} a minute", wait_s)
        bucket.left -= takes

    def _bucket(self, key: str, what: str, per_minute: int) -> _Bucket:
        now = self._timer()
        bucket = self._buckets.get((key, what))
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[key, what] = _Bucket(per_minute, per_minute, now)
        bucket.refill(now)
        return bucket


def _too_many(limit: str, wait_s: float) -> RequestError:
    seconds = math.ceil(wait_s)
    error = RequestError(
        429,
        f"This key may do {limit}, and has. Send the request again in {seconds} s.",
        code="rate_limit_exceeded",
        kind="rate_limit_error",
    )
    error.headers.append((b"retry-after", str(seconds).encode()))
    return error


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
