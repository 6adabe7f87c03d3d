"""The supervisor, with a fake vLLM as a real child process under the real guard."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.engine.supervisor import EngineFailed, RestartPolicy, State, Supervisor
from agent.process.guard import descendants
from config.sections import Engine
from tests.support.until import until

pytestmark = pytest.mark.anyio

DEADLINE_S = 30.0
REPOSITORY = Path(__file__).parents[2]
QUICK = RestartPolicy(initial_backoff_s=0.01, max_backoff_s=0.02, max_crashes=3)

SERVER = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, os.environ["TEST_REPOSITORY"])
from tests.support.fake_vllm import FakeVllm
arguments = sys.argv[1:]
def following(flag): return arguments[arguments.index(flag) + 1]
async def main():
    print("Starting to load model", flush=True)
    fake = FakeVllm(
        model=following("--served-model-name"),
        uds=Path(following("--uds")),
        api_key=os.environ["VLLM_API_KEY"],
    )
    async with fake:
        print("Application startup complete.", os.getcwd(), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
BROKEN = "import sys; print('CUDA is out of luck'); sys.exit(3)"
SLOW = "import time; print('Starting to load model', flush=True); time.sleep(600)"


_others: set[int] = set()


@pytest.fixture(autouse=True)
def _ours_only() -> None:
    _others.clear()
    _others.update(descendants(os.getpid()))


@pytest.fixture(autouse=True)
def _repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_REPOSITORY", str(REPOSITORY))


@asynccontextmanager
async def supervised(
    folder: Path, code: str = SERVER, timeout_s: float = DEADLINE_S
) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        Engine(start_timeout_s=timeout_s),
        folder / "model",
        "smol",
        folder,
        launcher=(sys.executable, "-c", code),
        restarts=QUICK,
    )
    try:
        yield supervisor
    finally:
        await supervisor.stop()
    assert children() == []


def children() -> list[int]:
    """Our descendants, but for those of other tests' servers."""
    return [process for process in descendants(os.getpid()) if process not in _others]


def server() -> int:
    """The process id of the server: below the guard."""
    _, below, *_ = children()
    return below


async def nothing() -> None:
    pass


async def test_the_engine_is_ready_once_it_generates(tmp_path: Path) -> None:
    stages: list[str] = []

    async with supervised(tmp_path) as supervisor:
        await supervisor.start(stages.append)

        assert supervisor.is_ready
        assert await supervisor.engine.models() == ["smol"]
        assert stages[0] == "starting vLLM"
    assert supervisor.state is State.STOPPED
    assert not supervisor.is_ready


async def test_the_server_runs_in_its_own_folder(tmp_path: Path) -> None:
    async with supervised(tmp_path) as supervisor:
        await supervisor.start(print)

    assert f"complete. {tmp_path / 'run'}" in supervisor.log_excerpt()


async def test_a_socket_folder_outside_the_data_folder_is_removed(tmp_path: Path) -> None:
    async with supervised(tmp_path / ("x" * 100)) as supervisor:
        folder = Path(supervisor.url.removeprefix("unix://")).parent
        assert folder.is_dir()
    assert not folder.exists()


async def test_a_server_that_exits_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    async with supervised(tmp_path, BROKEN) as supervisor:
        with pytest.raises(EngineFailed, match=r"(?s)code 3.*out of luck"):
            await supervisor.start(print)

        assert supervisor.state is State.FAILED


async def test_a_server_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    async with supervised(tmp_path, SLOW, timeout_s=1.0) as supervisor:
        with pytest.raises(EngineFailed, match=r"(?s)not ready after 1 s.*load model"):
            await supervisor.start(print)

        assert children() == []


async def test_a_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    async with supervised(tmp_path, SLOW) as supervisor:
        starting = asyncio.ensure_future(supervisor.start(print))
        await until(lambda: len(children()) == 2)

        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

        assert children() == []


async def test_a_crashed_server_is_restarted_and_its_adapters_restored(tmp_path: Path) -> None:
    restored: list[list[str]] = []

    async with supervised(tmp_path) as supervisor:

        async def restore() -> None:
            assert supervisor.state is State.RESTARTING
            restored.append(await supervisor.engine.models())

        await supervisor.start(print)
        watching = asyncio.ensure_future(supervisor.watch(restore))
        os.kill(server(), signal.SIGKILL)
        await until(lambda: restored)
        await until(lambda: supervisor.is_ready)
        await supervisor.stop()
        await watching

    assert restored == [["smol"]]
    assert supervisor.logfile.with_suffix(".log.1").exists()


async def test_too_many_crashes_end_the_watch_with_an_error(tmp_path: Path) -> None:
    async with supervised(tmp_path) as supervisor:
        await supervisor.start(print)
        watching = asyncio.ensure_future(supervisor.watch(nothing))
        for _ in range(QUICK.max_crashes):
            await until(lambda: supervisor.is_ready and len(children()) >= 2)
            before = server()
            os.kill(before, signal.SIGKILL)
            await until(lambda gone=before: gone not in children())

        with pytest.raises(EngineFailed, match="crashed 3 times"):
            await asyncio.wait_for(watching, DEADLINE_S)

        assert supervisor.state is State.FAILED


async def test_stopping_ends_the_watch(tmp_path: Path) -> None:
    async with supervised(tmp_path) as supervisor:
        await supervisor.start(print)
        watching = asyncio.ensure_future(supervisor.watch(nothing))

        await supervisor.stop()

        await asyncio.wait_for(watching, DEADLINE_S)
        assert supervisor.state is State.STOPPED
