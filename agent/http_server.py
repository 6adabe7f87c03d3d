"""The HTTP server for the gateway, in the daemon's event loop.

It listens before the engine is ready, so that health checks get an answer, and stops accepting
requests before the engine ends, so that in-flight requests can finish.
"""

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache

import structlog
import uvicorn

from agent.gateway.access.api_key import pepper
from agent.gateway.access.auth import Authenticator
from agent.gateway.access.keyring import Keyring
from agent.gateway.access.limits import RateLimiter
from agent.gateway.app import Gateway
from agent.gateway.http.connections import bounded_protocol
from agent.gateway.log.recorder import Recorder
from agent.gateway.log.spool import Spool
from agent.gateway.metrics import Metrics
from agent.gateway.state import App, GatewayState
from agent.gateway.views import Views
from agent.process.data_dir import ADDRESS_FILE, StartError, load_or_create_secret, write_address
from agent.runtime import Runtime
from config.settings import Settings
from store.clock import utcnow
from store.db import Database

log = structlog.get_logger(__name__)

NON_CONNECTION_FILES = 128
"""Open files other than connections: database, logs, pipes."""


class SignalFreeServer(uvicorn.Server):
    """A uvicorn server that installs no signal handlers: the daemon handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield


class RunningServer:
    """A running HTTP server."""

    def __init__(self, server: SignalFreeServer, bound: socket.socket) -> None:
        self.url = url_of(*bound.getsockname()[:2])
        self._server = server
        self._serving = asyncio.ensure_future(server.serve(sockets=[bound]))

    async def drain(self) -> None:
        """Accept no more requests, finish those in flight and flush the log."""
        self._server.should_exit = True
        await self._serving


@asynccontextmanager
async def run_http_server(
    settings: Settings, runtime: Runtime, ready: Callable[[], bool]
) -> AsyncIterator[RunningServer]:
    """Run the gateway until the block is left; it answers 503 while `ready()` is false.

    Raises:
        StartError: The port is taken.
    """
    raise_open_file_limit(settings.server.max_connections)
    state = _gateway_state(settings, runtime, ready)
    bound = _bind(settings.server.host, settings.server.port)
    config = uvicorn.Config(
        Gateway(state),
        http=bounded_protocol(settings.server.max_connections),
        lifespan="on",
        ws="none",
        access_log=False,
        proxy_headers=False,  # X-Forwarded-For is not trusted
        server_header=False,
        log_config=None,
        timeout_keep_alive=settings.server.keep_alive_s,
        timeout_graceful_shutdown=int(settings.server.drain_s),
    )
    server = RunningServer(SignalFreeServer(config), bound)
    address_file = settings.data_dir / ADDRESS_FILE
    write_address(address_file, server.url)
    try:
        yield server
    finally:
        address_file.unlink(missing_ok=True)
        await server.drain()
        bound.close()


def raise_open_file_limit(connections: int) -> None:
    """Raise the soft limit of open files: a request needs one connection to each side."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + NON_CONNECTION_FILES
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if resource.RLIM_INFINITY != soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning(
            "limit of open files too low: raise it (ulimit -n), or lower server.max_connections",
            allowed=allowed,
            needed=needed,
        )


def _gateway_state(settings: Settings, runtime: Runtime, ready: Callable[[], bool]) -> GatewayState:
    metrics = Metrics()
    secret = pepper(settings.data_dir)
    keyring = Keyring(runtime.db, secret, utcnow, time.monotonic)
    authenticator = Authenticator(
        keyring, RateLimiter(time.monotonic), needs_key=settings.server.keys == "required"
    )
    return GatewayState(
        settings=settings.server,
        model_name=runtime.model,
        db=runtime.db,
        authenticator=authenticator,
        engine=runtime.engine,
        views=Views(runtime.db, settings.learning.token_budget, metrics),
        recorder=_recorder(settings, runtime.db, metrics),
        inflight=runtime.inflight,
        metrics=metrics,
        unavailable_adapters=runtime.unavailable_adapters,
        is_ready=ready,
        control_app=cache(lambda: _control(settings, runtime.db, secret)),
        pepper=secret,
    )


def _control(settings: Settings, db: Database, secret: str) -> App:
    from agent.control.app import build  # large, and many deployments never use it
    from agent.control.dependencies import ControlState

    return build(ControlState(db, settings, secret, utcnow))


def _recorder(settings: Settings, db: Database, metrics: Metrics) -> Recorder:
    return Recorder(
        db,
        Spool(settings.data_dir / "spool", settings.store.spool_mib * 2**20),
        metrics,
        server=load_or_create_secret(settings.data_dir / "server_id"),
        strict=settings.server.on_log_failure == "reject",
    )


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise StartError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another port with "
            "--port or server.port; 0 picks a free one."
        ) from error
    return bound


def url_of(host: str, port: int) -> str:
    """Return the URL of an address, with IPv6 addresses in brackets (RFC 3986)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
