"""`serve()`: a gateway for a forked process, which dies at the armed failpoint."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio

from agent.process import failpoint
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import run_gateway

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


def serve(folder: str, database_url: str, engine: str, port: int, setting: str) -> None:
    """Serve on a port until killed."""
    failpoint.arm(setting)
    options = {"database_url": database_url, "port": port, "timeout_s": TIMEOUT_S}
    anyio.run(_serve, Path(folder), engine, options)


async def _serve(folder: Path, engine: str, options: dict[str, Any]) -> None:
    fake: Any = SimpleNamespace(url=engine, api_key="", model="small")
    async with run_gateway(folder, cast("FakeVllm", fake), **options):
        await anyio.sleep_forever()
