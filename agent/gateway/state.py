"""The state that all requests share: connections, limits, settings."""

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
from agent.gateway.access.fair_share import FairShare
from agent.gateway.access.uploads import Uploads
from agent.gateway.errors import RequestError
from agent.gateway.log.recorder import Recorder
from agent.gateway.metrics import Metrics
from agent.gateway.views import Views
from agent.inflight import Inflight
from config.sections import Server
from store.clock import utcnow
from store.db import Database

MAX_FEEDBACK_WRITES = 4
"""Concurrent writes. They wait for the database in threads, which other requests need too."""
MAX_FEEDBACK_LISTS = 1
"""Concurrent lists. A list is hundreds of writes, which compete with the log's."""
MAX_CONTROL_REQUESTS = 2
"""Concurrent requests to the control API, which may read large parts of the database."""
App = Callable[[Any, Any, Any], Awaitable[None]]


def no_control() -> App:
    """Reject a request to the control API, which this gateway does not have."""
    raise RequestError(404, "This server has no control API.", code="not_found")


@dataclass(frozen=True)
class GatewayState:
    """The gateway's state; its creator closes the engine and the database."""

    settings: Server
    model_name: str
    """The served model's name, for clients and for the engine."""
    db: Database
    authenticator: Authenticator
    engine: VllmEngine
    views: Views
    recorder: Recorder
    inflight: Inflight
    metrics: Metrics
    unavailable_adapters: Collection[str] = ()
    """Live adapters that the engine cannot load (agent/rollout/reconcile.py)."""
    is_ready: Callable[[], bool] = lambda: True
    """Whether the engine has loaded the adapters that answer requests."""
    control_app: Callable[[], App] = no_control
    """Returns the control API, which is built on its first request."""
    feedback_writes: FairShare = field(default_factory=lambda: FairShare(total=MAX_FEEDBACK_WRITES))
    feedback_lists: FairShare = field(
        default_factory=lambda: FairShare(total=MAX_FEEDBACK_LISTS, per_caller=MAX_FEEDBACK_LISTS)
    )
    control_requests: FairShare = field(
        default_factory=lambda: FairShare(
            total=MAX_CONTROL_REQUESTS, per_caller=MAX_CONTROL_REQUESTS
        )
    )
    uploads: Uploads = field(default_factory=Uploads)
    pepper: str = ""
    """A secret of this installation."""
    now: Callable[[], datetime] = utcnow
    timer: Callable[[], float] = time.monotonic
    """A monotonic clock in seconds, for durations."""

    def salt(self, namespace: str) -> str:
        """Return the namespace's salt for the engine's prefix cache, 64 hex digits.

        Namespaces share no cached prefixes, so that the time to the first token reveals nothing
        about the prompts of another namespace.
        """
        return _salt(self.pepper, namespace)


@cache
def _salt(pepper: str, namespace: str) -> str:
    return hmac.digest(pepper.encode(), f"salt {namespace}".encode(), hashlib.sha256).hex()
