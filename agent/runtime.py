"""What jobs and requests of one process share; created once at its start."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.engine.client import VllmEngine
from agent.inflight import Inflight
from config.settings import Settings
from store.db import Database

LOCK_POLL_S = 0.05


@dataclass(frozen=True)
class Runtime:
    """The settings, the database, the engine, and the state of requests and adapters."""

    settings: Settings
    db: Database
    engine: VllmEngine
    model: str
    """Name under which the engine serves the base."""
    inflight: Inflight
    unavailable_adapters: set[str] = field(default_factory=set)
    """Live adapters that are not loaded or not verified yet: the base answers in their place."""
    verified: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of server URL and adapter that this process has verified."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @asynccontextmanager
    async def adapter_lock(self) -> AsyncIterator[None]:
        """Lock out other changes of the engine's adapters, from any thread or event loop."""
        while not self._lock.acquire(blocking=False):
            await asyncio.sleep(LOCK_POLL_S)
        try:
            yield
        finally:
            self._lock.release()
