"""Whether a key is good, asked with every request: all keys are held in memory.

A second after the last look, or when a key is not known, it is counted how many were made and
revoked (clocks of two machines differ), and where that has changed all are read again: a revoked
key is of no use within a second, and a new one works at once. With the database away the keys that
are known stay good, for as long as they would have been; one that is not known may have been made
since, so it is neither let in nor refused for good.
"""

import asyncio
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import structlog

from agent.gateway.access.api_key import PresentedKey, digest
from agent.gateway.errors import unavailable
from store import keys
from store.db import Database
from store.keys import Key

log = structlog.get_logger(__name__)

REFRESH_INTERVAL_S = 1.0
READ_TIMEOUT_S = 1.0
FIRST_READ_TIMEOUT_S = 10.0
NO_DIGEST = bytes(32)
"""Compared with what a key that is not there would have as digest, so that both take as long."""


class Keyring:
    """The keys there are."""

    def __init__(
        self,
        db: Database,
        pepper: str,
        now: Callable[[], datetime],
        timer: Callable[[], float],
    ) -> None:
        self._db = db
        self._pepper = pepper
        self._now = now
        self._timer = timer
        self._known: dict[str, Key] = {}
        self._counted: tuple[int, int] | None = None
        """How many keys were made, and revoked, at the last look."""
        self._looked = float("-inf")
        self._failed = float("-inf")
        """When a look last failed: who is known waits for none in the second after it."""
        self._looking: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")
        """Of its own: whoever keeps the others busy keeps no revoked key alive."""

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def verify(self, presented: PresentedKey) -> Key | None:
        """The key that was presented; None where it is not good.

        Raises:
            RequestError: The database is away, and the key is not known (503).
        """
        if presented.id not in self._known or not self._is_fresh():
            await self._look(presented)
        key = self._known.get(presented.id)
        expected = key.digest if key else NO_DIGEST
        is_holder = hmac.compare_digest(expected, digest(self._pepper, presented))
        return key if key and is_holder and key.is_valid(self._now()) else None

    def _is_fresh(self) -> bool:
        return self._timer() - max(self._looked, self._failed) <= REFRESH_INTERVAL_S

    async def _look(self, presented: PresentedKey) -> None:
        """See what changed; all who ask meanwhile share one look."""
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._read())
            self._looking.add_done_callback(self._looked_at)
        try:
            async with asyncio.timeout(
                FIRST_READ_TIMEOUT_S if self._counted is None else READ_TIMEOUT_S
            ):
                await asyncio.shield(self._looking)
        except Exception as error:
            self._failed = self._timer()
            log.warning("last known keys serve", error=repr(error))
            if presented.id not in self._known:
                message = "The database is away, and this key is not known. Try again shortly."
                raise unavailable(message, code="database_unavailable") from error

    def _looked_at(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # told to whoever waited

    async def _read(self) -> None:
        started = self._timer()
        loop = asyncio.get_running_loop()
        self._known, self._counted = await loop.run_in_executor(self._thread, self._now_there)
        self._looked = started

    def _now_there(self) -> tuple[dict[str, Key], tuple[int, int]]:
        with self._db.read() as session:
            counted = keys.count(session)
            if counted == self._counted:
                return self._known, counted
            return {key.id: key for key in keys.keys(session)}, counted
