"""What the routes work with: everything that lives longer than a request."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from agent.engine.client import VllmEngine
from agent.gateway.access.auth import Authenticator
from agent.gateway.access.limits import Slots
from agent.gateway.errors import RequestError
from agent.gateway.http.uploads import Uploads
from agent.gateway.log.recorder import Recorder
from agent.gateway.metrics import Metrics
from agent.gateway.views import Views
from agent.inflight import Inflight
from config.sections import Server
from store.clock import utcnow
from store.db import Database

MOST_WRITERS, MOST_CONTROLLING = 4, 2
App = Callable[[Any, Any, Any], Awaitable[None]]


def no_control() -> App:
    """Where there is no control API."""
    raise RequestError(404, "There is no control API here.", code="not_found")


@dataclass(frozen=True)
class GatewayState:
    """The gateway's state; whoever builds them closes the engine and the database."""

    settings: Server
    model_name: str
    """Name of the model, for clients and for the engine."""
    db: Database
    authenticator: Authenticator
    engine: VllmEngine
    views: Views
    recorder: Recorder
    inflight: Inflight
    metrics: Metrics
    unloadable_adapters: Collection[str] = ()
    """Live adapters that the engine does not take (agent/rollout/reconcile.py)."""
    is_ready: Callable[[], bool] = lambda: True
    """Whether the engine has the adapters that it must answer with."""
    control_app: Callable[[], App] = no_control
    """The control API, which is made when it is first asked."""
    writers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_WRITERS))
    """Of feedback, who may wait for the database at once: threads are for others too."""
    listing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Of lists of feedback one at a time: each is hundreds of writes, beside those of answers."""
    listers: Slots = field(default_factory=lambda: Slots(each=1))
    """And of one caller, so that the others' wait for one of its lists."""
    controlling: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(MOST_CONTROLLING)
    )
    """Of requests to the control API, which read what is large: so many at once."""
    controllers: Slots = field(default_factory=lambda: Slots(each=MOST_CONTROLLING))
    """And of one caller, until it has read what it asked for."""
    uploads: Uploads = field(default_factory=Uploads)
    pepper: str = ""
    """What only this installation knows."""
    now: Callable[[], datetime] = utcnow
    timer: Callable[[], float] = time.monotonic
    """Seconds that only ever grow, for durations."""

    def salt(self, namespace: str) -> str:
        """What the engine's prefix cache is salted with, 64 hex digits.

        With one for each namespace, none is told by the time of an answer what another has asked.
        """
        return _salt(self.pepper, namespace)


@cache
def _salt(pepper: str, namespace: str) -> str:
    return hmac.digest(pepper.encode(), f"salt {namespace}".encode(), hashlib.sha256).hex()
