"""A gateway in front of a fake vLLM, with the default settings: `fake` and `gateway`.

Tests that need other settings enter `run_gateway(tmp_path, fake, ...)` themselves.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import RunningGateway, run_gateway


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(model="small") as fake:
        yield fake


@pytest.fixture
async def gateway(tmp_path: Path, fake: FakeVllm) -> AsyncIterator[RunningGateway]:
    async with run_gateway(tmp_path, fake) as gateway:
        yield gateway
