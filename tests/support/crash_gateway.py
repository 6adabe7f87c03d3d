"""`running()`: a gateway process that dies at the armed failpoint, or when it is left."""

import multiprocessing
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio

from agent.process import failpoint
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import run_gateway
from tests.support.until import until

TIMEOUT_S = 0.05
POINTS = (
    "request begun",
    "part sent",
    "before commit",
    "committed",
    "answer recorded",
    "last byte sent",
    "spool written",
    "spooled",
    "replayed",
)
"""Every failpoint (agent/process/failpoint.py)."""


@dataclass(frozen=True)
class Place:
    """What outlives the processes."""

    folder: Path
    """Of the spool."""
    database_url: str


@asynccontextmanager
async def running(place: Place, engine: str, setting: str) -> AsyncIterator[tuple[int, Any]]:
    """A gateway process that answers; killed on leaving."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.crash_gateway"])
    where = (str(place.folder), place.database_url)
    process: Any = context.Process(target=serve, args=(*where, engine, port, setting))
    process.was_ended = False
    process.start()
    try:
        await until(lambda: answers(port) or not process.is_alive())
        yield port, process
    finally:
        process.kill()
        process.join()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serve(folder: str, database_url: str, engine: str, port: int, setting: str) -> None:
    """Serve on a port until killed."""
    failpoint.arm(setting)
    options = {"database_url": database_url, "port": port, "timeout_s": TIMEOUT_S}
    anyio.run(_serve, Path(folder), engine, options)


async def _serve(folder: Path, engine: str, options: dict[str, Any]) -> None:
    fake: Any = SimpleNamespace(url=engine, api_key="", model="small")
    async with run_gateway(folder, cast("FakeVllm", fake), **options):
        await anyio.sleep_forever()
