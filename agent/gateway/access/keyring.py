"""Verify keys from memory, which follows the database within a second.

The keyring holds all keys. If its last check is more than a second old, or if a key is unknown, it
compares the number of created and revoked keys with the database (not times, since the clocks of
two machines differ) and reloads all keys if either changed. A revoked key therefore stops working
within a second, and a new key works immediately. While the database is unavailable, known keys
stay valid until they expire; an unknown key may have been created since, so its request gets a 503
instead of a 401.
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
"""Compared with the digest of an unknown key, so that its rejection takes the same time."""


class Keyring:
    """All keys, in memory."""

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
        """The numbers of created and revoked keys at the last check."""
        self._checked_s = float("-inf")
        self._failed_s = float("-inf")
        """When a check last failed; for a second after it, known keys are used without another."""
        self._refreshing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")
        """A dedicated thread: when others are busy, revocations are still read in time."""

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def verify(self, presented: PresentedKey) -> Key | None:
        """Return the stored key that matches; None if there is none, or it is not valid.

        Raises:
            RequestError: The database is unavailable, and the key is not in memory (503).
        """
        if presented.id not in self._known or not self._is_fresh():
            await self._refresh(presented)
        key = self._known.get(presented.id)
        expected = key.digest if key else NO_DIGEST
        matches = hmac.compare_digest(expected, digest(self._pepper, presented))
        return key if key and matches and key.is_valid(self._now()) else None

    def _is_fresh(self) -> bool:
        return self._timer() - max(self._checked_s, self._failed_s) <= REFRESH_INTERVAL_S

    async def _refresh(self, presented: PresentedKey) -> None:
        """Read changes from the database; concurrent requests share one read."""
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._read())
            self._refreshing.add_done_callback(self._refreshed)
        try:
            async with asyncio.timeout(
                FIRST_READ_TIMEOUT_S if self._counted is None else READ_TIMEOUT_S
            ):
                await asyncio.shield(self._refreshing)
        except Exception as error:
            self._failed_s = self._timer()
            log.warning("keys not refreshed, using those in memory", error=repr(error))
            if presented.id not in self._known:
                message = "The database is unavailable: cannot verify this key. Try again shortly."
                raise unavailable(message, code="database_unavailable") from error

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # raised in the requests that waited

    async def _read(self) -> None:
        started = self._timer()
        loop = asyncio.get_running_loop()
        self._known, self._counted = await loop.run_in_executor(self._thread, self._load)
        self._checked_s = started

    def _load(self) -> tuple[dict[str, Key], tuple[int, int]]:
        with self._db.read() as session:
            counted = keys.count(session)
            if counted == self._counted:
                return self._known, counted
            return {key.id: key for key in keys.keys(session)}, counted
