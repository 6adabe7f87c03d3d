"""Rate limits of each key: concurrent requests, requests per minute, tokens per minute.

The limits per minute are token buckets that hold one minute's worth, in this process's memory: a
restart refills them. The tokens of a request are known only when its answer has ended. A request
is therefore admitted while the bucket is above zero, and its tokens are charged afterwards, which
may take the bucket below zero.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.gateway.errors import RequestError
from store.keys import Key

MINUTE_S = 60.0


@dataclass
class _Bucket:
    """A token bucket: refills at `per_minute` and holds at most that many."""

    per_minute: int
    level: float
    updated_s: float
    """When `level` was computed, in seconds of the timer."""

    def refill(self, now_s: float) -> None:
        gained = (now_s - self.updated_s) * self.per_minute / MINUTE_S
        self.level, self.updated_s = min(self.per_minute, self.level + gained), now_s

    def wait_s(self, amount: float) -> float:
        """Return the seconds until the bucket holds `amount`."""
        return max(0.0, amount - self.level) * MINUTE_S / self.per_minute


class RateLimiter:
    """Tracks the recent use of every key."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        self._running: dict[str, int] = {}
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def count_request(self, key: Key) -> None:
        """Count a request towards its key's limit, on any path.

        Raises:
            RequestError: The key exceeds its requests per minute (429, with Retry-After).
        """
        self._check_bucket(key.id, "requests", key.grant.limits.requests_per_minute, cost=1)

    @contextmanager
    def admit(self, key: Key | None) -> Iterator[None]:
        """Count a request to the model as running until the context is left.

        Args:
            key: The caller's key; None for the local operator, who has no limits.

        Raises:
            RequestError: On entering: the key exceeds its concurrent requests or its tokens per
                minute (429, with Retry-After).
        """
        if key is None:
            yield
            return
        limits, running = key.grant.limits, self._running.get(key.id, 0)
        if limits.concurrent is not None and running >= limits.concurrent:
            raise _rate_limited(f"{limits.concurrent} concurrent requests", 1.0)
        self._check_bucket(key.id, "tokens", limits.tokens_per_minute, cost=0)
        self._running[key.id] = running + 1
        try:
            yield
        finally:
            self._running[key.id] -= 1
            if not self._running[key.id]:
                del self._running[key.id]

    def charge_tokens(self, key: Key, tokens: int) -> None:
        """Charge the tokens of a request that has ended."""
        per_minute = key.grant.limits.tokens_per_minute
        if per_minute is not None:
            self._bucket(key.id, "tokens", per_minute).level -= tokens

    def _check_bucket(self, key: str, unit: str, per_minute: int | None, cost: int) -> None:
        if per_minute is None:
            return
        bucket = self._bucket(key, unit, per_minute)
        wait_s = bucket.wait_s(1)
        if wait_s:
            raise _rate_limited(f"{per_minute} {unit} per minute", wait_s)
        bucket.level -= cost

    def _bucket(self, key: str, unit: str, per_minute: int) -> _Bucket:
        now_s = self._timer()
        bucket = self._buckets.get((key, unit))
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[key, unit] = _Bucket(per_minute, per_minute, now_s)
        bucket.refill(now_s)
        return bucket


def _rate_limited(limit: str, wait_s: float) -> RequestError:
    seconds = math.ceil(wait_s)
    error = RequestError(
        429,
        f"This key is limited to {limit}. Send the request again in {seconds} s.",
        code="rate_limit_exceeded",
        kind="rate_limit_error",
    )
    error.headers.append((b"retry-after", str(seconds).encode()))
    return error
