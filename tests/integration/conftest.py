"""A gateway in front of a fake vLLM, with the default settings: `fake` and `rig`.

Tests that need other settings enter `gateway(tmp_path, fake, ...)` themselves.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_vllm import FakeVllm
from tests.support.gateway_rig import Rig, gateway


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with FakeVllm(model="small") as fake:
        yield fake


@pytest.fixture
async def rig(tmp_path: Path, fake: FakeVllm) -> AsyncIterator[Rig]:
    async with gateway(tmp_path, fake) as rig:
        yield rig
