"""`run_gateway()`: a gateway on a free loopback port in front of a `FakeVllm`.

async with FakeVllm(model="small") as fake, run_gateway(tmp_path, fake) as gateway:
    async with gateway.client() as client:          # the official client
        await client.chat.completions.create(...)
    assert gateway.logged()[0].interaction.status is InteractionStatus.DONE
"""

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from openai import AsyncOpenAI
from sqlalchemy import text

from agent.engine.client import VllmEngine
from agent.gateway.access.auth import Authenticator
from agent.gateway.access.keyring import Keyring
from agent.gateway.access.limits import RateLimiter
from agent.gateway.app import Gateway
from agent.gateway.http.connections import bounded_protocol
from agent.gateway.log.recorder import Recorder
from agent.gateway.log.spool import Spool
from agent.gateway.metrics import Metrics
from agent.gateway.state import GatewayState, no_control
from agent.gateway.views import Views
from agent.inflight import Inflight
from config.sections import Server
from store import interactions, namespaces
from store.db import Database
from store.upgrade import upgrade
from tests.support import postgres
from tests.support.factories import add_lesson
from tests.support.fake_vllm import MAX_MODEL_LEN, FakeVllm
from tests.support.until import until

TOKEN_BUDGET = 512
PEPPER = "pepper"
QUESTION = [{"role": "user", "content": "When do you open?"}]


@dataclass
class LoggedInteraction:
    """A recorded interaction with its texts."""

    interaction: Any
    payload: Any


class Clock:
    """`time.monotonic()` plus the seconds by which a test has advanced it."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds


class RunningGateway:
    """A serving gateway; its keys and limits use `clock`."""

    def __init__(
        self, url: str, state: GatewayState, folder: Path, unserved: set[str], clock: Clock
    ) -> None:
        self.clock = clock
        self.unserved = unserved
        self.url = url
        self.state = state
        self.folder = folder

    def client(self, **options: Any) -> AsyncOpenAI:
        options = {"api_key": "none", "max_retries": 0, "timeout": 30} | options
        return AsyncOpenAI(base_url=f"{self.url}/v1", **options)

    def http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(base_url=self.url)

    async def fetch(
        self, method: str, path: str, key: str | None = None, **sent: Any
    ) -> tuple[int, Any]:
        """Send a request; returns the status and the JSON of the response."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with (
            self.http() as http,
            http.request(method, path, headers=headers, **sent) as response,
        ):
            if response.content_type == "application/json":
                return response.status, await response.json()
            return response.status, (await response.read()).decode(errors="replace")

    def logged(self, namespace: str = "default") -> list[LoggedInteraction]:
        """The recorded interactions, oldest first."""
        with self.state.db.read() as session:
            rows = interactions.recent(session, namespace, 10_000)[::-1]
            return [LoggedInteraction(row, interactions.payload(session, row.id)) for row in rows]

    async def wait_logged(self, count: int, namespace: str = "default") -> list[LoggedInteraction]:
        """Wait until at least `count` interactions have ended; returns those."""
        ended = list[LoggedInteraction]()

        def are_enough() -> bool:
            rows = self.logged(namespace)
            ended[:] = [row for row in rows if row.interaction.status != "running"]
            return len(ended) >= count

        await until(are_enough)
        return ended

    @contextmanager
    def locked_database(self) -> Iterator[None]:
        """Hold the write lock, as a stuck writer does."""
        with locked(self.state.db):
            yield

    @contextmanager
    def no_database(self) -> Iterator[None]:
        """Move the database's files away, or close its server; undone on leaving."""
        if is_postgres(self.state.db):
            with postgres.closed(self.state.db.url):
                yield
            return
        self.state.db.engine.dispose()
        files = list(self.folder.glob("byheart.db*"))
        for file in files:
            file.rename(file.with_name(f"away-{file.name}"))
        database = self.folder / "byheart.db"
        database.mkdir()
        try:
            yield
        finally:
            database.rmdir()
            for file in files:
                file.with_name(f"away-{file.name}").rename(file)

    def add_lesson(self, do: str, namespace: str = "default") -> None:
        with self.state.db.begin() as session:
            add_lesson(session, do, namespace, tokens=len(do.split()))


@asynccontextmanager
async def run_gateway(
    folder: Path, fake: FakeVllm, **options: Any
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway until left.

    Args:
        folder: Holds the database and the spool.
        fake: The engine.
        options: Any of `settings` (a `Server`), `timeout_s` (of the recorder and the views),
            `strict`, `spool_bytes`, `needs_key`, `control` (builds the control API for a
            database), `database_url`, `engine_url`, `first_byte_timeout_s`, `port` and
            `max_connections`.
    """
    db = Database(options.get("database_url") or database_url(folder))
    metrics, unserved, clock = Metrics(), set[str](), Clock()
    engine = VllmEngine(
        [options.get("engine_url", fake.url)],
        api_key=fake.api_key,
        first_byte_timeout_s=options.get("first_byte_timeout_s", 20),
    )
    engine.max_model_len = MAX_MODEL_LEN  # the daemon fetches it before it is ready
    state = GatewayState(
        settings=options.get("settings", Server()),
        model_name=fake.model,
        db=db,
        authenticator=Authenticator(
            Keyring(db, PEPPER, lambda: datetime.now(UTC), clock),
            RateLimiter(clock),
            needs_key=options.get("needs_key", False),
        ),
        engine=engine,
        views=Views(db, TOKEN_BUDGET, metrics, timeout_s=options.get("timeout_s", 10.0)),
        recorder=Recorder(
            db,
            Spool(folder / "spool", options.get("spool_bytes", 2**30)),
            metrics,
            server="gateway",
            strict=options.get("strict", False),
            timeout_s=options.get("timeout_s", 10.0),
        ),
        inflight=Inflight(),
        metrics=metrics,
        unavailable_adapters=unserved,
        control_app=cache(lambda: options["control"](db)) if "control" in options else no_control,
    )
    try:
        serves = serving(
            Gateway(state), options.get("port", 0), options.get("max_connections", 1000)
        )
        async with serves as url:
            yield RunningGateway(url, state, folder, unserved, clock)
    finally:
        await engine.close()
        db.close()


@contextmanager
def locked(db: Database) -> Iterator[None]:
    """Hold a database's write lock: on all tables in SQLite, on one in PostgreSQL."""
    with db.begin() as session:
        if is_postgres(db):
            session.execute(text("LOCK TABLE interactions IN EXCLUSIVE MODE"))
        namespaces.bump_revision(session, "default")
        yield


def is_postgres(db: Database) -> bool:
    return db.engine.dialect.name == "postgresql"


def database_url(folder: Path) -> str:
    """Return the URL of a migrated SQLite file; `each_database` replaces this for PostgreSQL."""
    path = folder / "byheart.db"
    if not path.exists():
        path.write_bytes(_new_database())
    return f"sqlite:///{path}"


@cache
def _new_database() -> bytes:
    """Return a migrated SQLite file with the default namespace; cached, as migrating is slow."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "byheart.db"
        db = Database(f"sqlite:///{path}")
        upgrade(db)
        with db.begin() as session:
            namespaces.ensure(session, "default", datetime.now(UTC))
        db.close()
        return path.read_bytes()


@asynccontextmanager
async def serving(app: Any, port: int = 0, max_connections: int = 1000) -> AsyncIterator[str]:
    """Serve an ASGI application with uvicorn in this event loop; yields its URL."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        app,
        lifespan="on",
        http=bounded_protocol(max_connections),
        access_log=False,
        log_config=None,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    await until(lambda: server.started or task.done())
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()
