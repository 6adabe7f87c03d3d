"""The real vLLM with the embedded model: started once, shared by everything in this folder.

`real_vllm` is a running server, to be asked through a `VllmEngine` of the test's own; tests that
crash it start one for themselves with `supervisor`. `base_model` is the model's folder.
"""

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from agent.engine.supervisor import Supervisor
from config.sections import Engine
from tests.support.event_loop import background_loop

MODEL_NAME = "smollm2"
START_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class RealVllm:
    """A vLLM that serves `model`, whose folder is `folder`."""

    url: str
    api_key: str
    model: str
    folder: Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def base_model() -> Path:
    """The embedded model as a folder, made once on a machine."""
    folder = Path(tempfile.gettempdir()) / "byheart-model"
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "distill", "embed", "--out", folder], check=True)
    return folder


@contextmanager
def supervisor(data_dir: Path, model: Path, settings: Engine) -> Iterator[Supervisor]:
    """Run a supervised vLLM from a background event loop until left."""

    @asynccontextmanager
    async def supervised() -> AsyncIterator[Supervisor]:
        engine = Supervisor(settings, model, MODEL_NAME, data_dir)
        try:
            with anyio.fail_after(START_TIMEOUT_S):
                await engine.start(lambda stage: print(f"vLLM: {stage}"))
            yield engine
        finally:
            await engine.stop()

    with background_loop() as loop, loop.wrap_async_context_manager(supervised()) as running:
        yield running


@pytest.fixture(scope="session")
def real_vllm(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    """One vLLM for the whole session."""
    settings = Engine(start_timeout_s=START_TIMEOUT_S)
    with supervisor(tmp_path_factory.mktemp("engine"), base_model, settings) as running:
        yield RealVllm(running.url, running.api_key, running.name, base_model)
