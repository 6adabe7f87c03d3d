"""The `train` job, with a script in place of the trainer."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine.client import VllmEngine
from agent.inflight import Inflight
from agent.jobs import runner as worker
from agent.runtime import Runtime
from agent.training import trainer
from agent.training.trainer import TrainerCrashed
from config.settings import load
from store import jobs, namespaces, runs
from store.clock import utcnow
from store.db import Database
from store.schema import JobStatus, RunStatus
from tests.support.factories import NOW, add_lesson
from tests.support.until import until

pytestmark = pytest.mark.anyio

DEADLINE_S = 60

# What every stand-in begins with: it takes up the run, as the real trainer does.
START = """
import os, sys, time
from datetime import UTC, datetime
from pathlib import Path
from store import runs
from store.db import Database
from store.schema import RunStatus
command, run = sys.argv[1:]
assert command == "run"
db = Database(os.environ["BYHEART_STORE__URL"])
with db.begin() as session:
    runs.start(session, run, datetime.now(UTC))
"""
WAIT = """
Path("child").with_suffix(".new").write_text(str(os.getpid()))
Path("child.new").rename("child")
time.sleep(600)
"""
FINISH = """
with db.begin() as session:
    runs.finish(session, run, RunStatus.NOTHING_TO_LEARN, "by the stand-in", datetime.now(UTC))
sys.exit(3)
"""


@pytest.fixture
def runtime(db: Database, tmp_path: Path) -> Runtime:
    overrides = {
        "store": {"data_dir": tmp_path, "url": f"sqlite:///{tmp_path / 'byheart.db'}"},
        "engine": {"model": str(tmp_path)},
    }
    settings = load(environ={}, overrides=overrides)
    return Runtime(settings, db, VllmEngine(["http://127.0.0.1:9"]), "small", Inflight())


@pytest.fixture
def run(runtime: Runtime) -> str:
    with runtime.db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        add_lesson(session, "Refunds take 3 days.")
        return runs.open_run(session, "shop", {}, "a test", 100, NOW).id


def stand_in(runtime: Runtime, script: str) -> None:
    """Let `python -m distill` be this script: the child starts in the data folder."""
    package = runtime.settings.data_dir / "distill"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(START + script)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def status_of(runtime: Runtime, run: str) -> RunStatus:
    with runtime.db.read() as session:
        found = runs.get(session, run)
        assert found
        return found.status


async def test_a_trainer_that_dies_without_recording_an_end_fails_with_its_last_output(
    runtime, run
):
    stand_in(runtime, 'print("out of memory", file=sys.stderr); sys.exit(9)')

    with pytest.raises(TrainerCrashed, match=r"exit code 9\): out of memory"):
        await trainer.train(runtime, {"run": run})

    assert status_of(runtime, run) is RunStatus.RUNNING


async def test_a_trainer_that_recorded_its_end_has_not_crashed_whatever_its_exit_code(runtime, run):
    stand_in(runtime, FINISH)

    await trainer.train(runtime, {"run": run})

    assert status_of(runtime, run) is RunStatus.NOTHING_TO_LEARN


async def test_cancelling_a_run_ends_its_trainer(runtime, run):
    stand_in(runtime, WAIT)
    child = runtime.settings.data_dir / "child"

    training_job = asyncio.ensure_future(trainer.train(runtime, {"run": run}))
    await until(child.exists)
    with runtime.db.begin() as session:
        runs.cancel(session, run, NOW)
    await asyncio.wait_for(training_job, DEADLINE_S)
    await until(lambda: not is_alive(int(child.read_text())))

    assert status_of(runtime, run) is RunStatus.CANCELLED


async def test_a_worker_that_shuts_down_ends_its_trainer_and_keeps_the_run_unfinished(runtime, run):
    stand_in(runtime, WAIT)
    child = runtime.settings.data_dir / "child"

    training_job = asyncio.ensure_future(trainer.train(runtime, {"run": run}))
    await until(child.exists)
    training_job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training_job
    await until(lambda: not is_alive(int(child.read_text())))

    assert status_of(runtime, run) is RunStatus.RUNNING


async def test_a_crashed_trainer_is_restarted_and_the_run_resumes(runtime, run, monkeypatch):
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    crash_first = 'if not Path("crashed").exists(): Path("crashed").touch(); os.abort()\n'
    stand_in(runtime, crash_first + FINISH)
    with runtime.db.begin() as session:
        job = jobs.enqueue(session, "train", {"run": run}, utcnow(), unique_key=f"train {run}")

    def status_of_job() -> JobStatus:
        with runtime.db.read() as session:
            [row] = jobs.listing(session, 10)
            assert row.id == job
            return row.status

    stop = asyncio.Event()
    working = asyncio.ensure_future(worker.run_worker(runtime, stop))
    await until(lambda: status_of(runtime, run) is RunStatus.NOTHING_TO_LEARN)
    await until(lambda: status_of_job() is not JobStatus.RUNNING)
    stop.set()
    await working

    assert (runtime.settings.data_dir / "crashed").exists()
    assert status_of_job() is JobStatus.DONE


def test_several_processes_are_started_with_torchs_launcher():
    assert trainer.command(1, "run_1")[1:] == ["-m", "distill", "run", "run_1"]
    assert trainer.command(4, "run_1")[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"),
        *("-m", "distill", "run", "run_1"),
    ]


@pytest.mark.parametrize("sampler", ["local", "engine"])
async def test_only_a_trainer_that_samples_in_the_engine_gets_its_address(runtime, run, sampler):
    chosen = runtime.settings.distill.model_copy(update={"sampler": sampler})
    runtime = replace(runtime, settings=runtime.settings.model_copy(update={"distill": chosen}))
    runtime.engine.api_key = "secret"
    write_environment = """
Path("told").write_text(
    repr([os.environ.get(f"BYHEART_ENGINE__{name}") for name in ("URLS", "API_KEY")])
)
"""
    stand_in(runtime, write_environment + FINISH)

    await trainer.train(runtime, {"run": run})

    expected = ["http://127.0.0.1:9", "secret"] if sampler == "engine" else [None, None]
    assert (runtime.settings.data_dir / "told").read_text() == repr(expected)
