"""What a background job works with: built once by the process that runs jobs, handed to each."""

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
    """The settings, the database and the engine, and which requests are running."""

    settings: Settings
    db: Database
    engine: VllmEngine
    model: str
    """Name under which the engine serves the base."""
    inflight: Inflight
    unserved: set[str] = field(default_factory=set)
    """Live adapters that the engine does not take, or has not proven: the base answers for them."""
    verified: set[tuple[str, str]] = field(default_factory=set)
    """Server and adapter, of those that this process has seen prove themselves."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @asynccontextmanager
    async def adapter_lock(self) -> AsyncIterator[None]:
        """One at a time, in whatever event loop, changes which adapters the engine has."""
        while not self._lock.acquire(blocking=False):
            await asyncio.sleep(LOCK_POLL_S)
        try:
            yield
        finally:
            self._lock.release()
