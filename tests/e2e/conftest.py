"""The real vLLM with the embedded model: started once, shared by everything in this folder.

`real_vllm` is a running server, to be asked through a `VllmEngine` of the test's own; tests that
crash it start one for themselves with `supervisor`. `base_model` is the model's folder.
"""

import asyncio
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.engine.supervisor import Supervisor
from config.sections import Engine

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
    """A supervised vLLM, started and stopped, in an event loop and thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="supervisor")
    thread.start()

    def run(step: object) -> None:
        assert asyncio.iscoroutine(step)
        future: Future[None] = asyncio.run_coroutine_threadsafe(step, loop)
        future.result(START_TIMEOUT_S)

    async def build() -> None:
        nonlocal started
        started = Supervisor(settings, model, MODEL_NAME, data_dir)
        await started.start(lambda phase: print(f"vLLM: {phase}"))

    started: Supervisor | None = None
    try:
        run(build())
        assert started
        yield started
    finally:
        if started:
            run(started.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="session")
def real_vllm(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    """One vLLM for the whole session."""
    settings = Engine(start_timeout_s=START_TIMEOUT_S)
    with supervisor(tmp_path_factory.mktemp("engine"), base_model, settings) as running:
        yield RealVllm(running.url, running.api_key, running.name, base_model)
