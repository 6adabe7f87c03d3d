"""The worker on a real database: what happens to jobs and runs when something fails."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent.engine.client import VllmEngine
from agent.inflight import Inflight
from agent.jobs import runner as worker
from agent.jobs.schedule import tick
from agent.runtime import Runtime
from config.settings import load
from store import jobs, namespaces, runs
from store.clock import utcnow
from store.db import Database
from store.schema import JobStatus, LessonStatus, RunStatus
from tests.support.factories import NOW, add_lesson
from tests.support.until import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def runtime(db: Database, tmp_path: Path) -> Runtime:
    settings = load(
        environ={}, overrides={"store": {"data_dir": tmp_path}, "distill": {"settle_s": 0}}
    )
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    engine = VllmEngine(["http://127.0.0.1:9"])
    return Runtime(settings, db, engine, "small", Inflight())


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Job kinds that a test provides."""
    kinds: dict[str, Any] = {}
    monkeypatch.setattr(worker, "KINDS", kinds)
    return kinds


async def run_until(runtime: Runtime, condition: Any, lanes: Any = worker.LANES) -> None:
    """Run a worker until the condition holds."""
    stop = asyncio.Event()
    running = asyncio.ensure_future(worker.run_worker(runtime, stop, lanes))

    def holds() -> Any:
        assert not running.done()
        return condition()

    await until(holds)
    stop.set()
    await running


def enqueue(runtime: Runtime, kind: str, payload: dict[str, Any], **values: Any) -> str:
    with runtime.db.begin() as session:
        job = jobs.enqueue(session, kind, payload, utcnow(), **values)
    assert job
    return job


def job_of(runtime: Runtime, job: str) -> Any:
    with runtime.db.read() as session:
        return next(row for row in jobs.listing(session, 100) if row.id == job)


async def test_a_job_that_raises_fails_with_its_reason_and_the_next_one_runs(runtime, played):
    done: list[dict[str, Any]] = []

    async def extract(_runtime: Runtime, payload: dict[str, Any]) -> None:
        if payload["bad"]:
            raise ValueError("nothing good")
        done.append(payload)

    played["extract"] = extract
    bad = enqueue(runtime, "extract", {"bad": True}, max_attempts=1)
    enqueue(runtime, "extract", {"bad": False})
    await run_until(runtime, lambda: done)
    assert job_of(runtime, bad).status is JobStatus.FAILED
    assert "nothing good" in job_of(runtime, bad).error


async def test_a_long_job_in_one_lane_does_not_delay_the_other(runtime, played):
    done: list[str] = []

    async def train(_runtime: Runtime, _payload: dict[str, Any]) -> None:
        await anyio.sleep_forever()

    async def extract(_runtime: Runtime, _payload: dict[str, Any]) -> None:
        done.append("extract")

    played.update(train=train, extract=extract)
    enqueue(runtime, "train", {})
    enqueue(runtime, "extract", {})
    await run_until(runtime, lambda: done)


async def test_a_worker_on_another_machine_leaves_rollouts_to_the_daemon(runtime, played):
    done: list[str] = []

    async def extract(_runtime: Runtime, _payload: dict[str, Any]) -> None:
        done.append("extract")

    async def rollout(_runtime: Runtime, _payload: dict[str, Any]) -> None:
        done.append("rollout")

    played.update(rollout=rollout, extract=extract)
    left = enqueue(runtime, "rollout", {}, run_at=NOW)
    enqueue(runtime, "extract", {})
    await run_until(runtime, lambda: done, worker.REMOTE_LANES)
    assert done == ["extract"]
    assert job_of(runtime, left).status is JobStatus.READY


async def test_a_shutdown_releases_a_running_job_without_counting_the_attempt(runtime, played):
    started = threading.Event()

    async def train(_runtime: Runtime, _payload: dict[str, Any]) -> None:
        started.set()
        await anyio.sleep_forever()

    played["train"] = train
    job = enqueue(runtime, "train", {})
    await run_until(runtime, started.is_set)
    assert (job_of(runtime, job).status, job_of(runtime, job).attempts) == (JobStatus.READY, 0)


async def test_a_cancelled_job_is_stopped_at_the_next_heartbeat(runtime, played, monkeypatch):
    monkeypatch.setattr(worker, "LEASE_S", 0.3)
    started, stopped = threading.Event(), threading.Event()

    async def train(_runtime: Runtime, _payload: dict[str, Any]) -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    played["train"] = train
    job = enqueue(runtime, "train", {})

    def cancel_once_started() -> bool:
        if started.is_set() and not stopped.is_set():
            with runtime.db.begin() as session:
                jobs.cancel(session, job, utcnow())
        return stopped.is_set()

    await run_until(runtime, cancel_once_started)
    assert job_of(runtime, job).status is JobStatus.CANCELLED


async def test_a_run_whose_job_gave_up_fails_with_the_reason_and_is_not_restarted(runtime, played):
    async def train(_runtime: Runtime, _payload: dict[str, Any]) -> None:
        raise RuntimeError("out of memory")

    played["train"] = train
    with runtime.db.begin() as session:
        run = runs.open_run(session, "shop", {}, "a test", 100, NOW)
        runs.start(session, run.id, NOW)
    job = enqueue(runtime, "train", {}, unique_key=f"train {run.id}", max_attempts=1)
    await run_until(runtime, lambda: job_of(runtime, job).status is JobStatus.FAILED)
    for _ in range(2):
        tick(runtime.db, runtime.settings, utcnow())
    with runtime.db.read() as session:
        ended = runs.get(session, run.id)
        assert (ended.status, len(jobs.listing(session, 10))) == (RunStatus.FAILED, 1)
    assert "out of memory" in ended.reason


def open_runs(runtime: Runtime) -> list[Any]:
    with runtime.db.read() as session:
        return runs.listing(session, "shop")


def teach(runtime: Runtime, *texts: str) -> None:
    with runtime.db.begin() as session:
        for text in texts:
            add_lesson(session, text)


LESSONS = ("Lamps cost 15.", "Wool is washed cold.", "We open at 9.", "Call Mirel.", "Say Ahoy.")


def test_one_run_starts_automatically_once_enough_lessons_are_new(runtime):
    teach(runtime, *LESSONS[:-1])
    tick(runtime.db, runtime.settings, utcnow())
    assert open_runs(runtime) == []
    teach(runtime, LESSONS[-1])
    for _ in range(3):
        tick(runtime.db, runtime.settings, utcnow())
    assert len(open_runs(runtime)) == 1


def test_after_a_failed_run_only_new_lessons_start_another(runtime):
    teach(runtime, *LESSONS)
    tick(runtime.db, runtime.settings, utcnow())
    with runtime.db.begin() as session:
        [run] = runs.listing(session, "shop")
        runs.start(session, run.id, NOW)
        runs.finish(session, run.id, RunStatus.FAILED, "no luck", NOW)
    tick(runtime.db, runtime.settings, utcnow())
    assert len(open_runs(runtime)) == 1
    teach(runtime, *(f"{text} And more of number {n}." for n, text in enumerate(LESSONS)))
    tick(runtime.db, runtime.settings, utcnow())
    assert len(open_runs(runtime)) == 2


def test_lessons_that_are_not_in_use_start_no_run(runtime):
    with runtime.db.begin() as session:
        for text in LESSONS:
            add_lesson(session, text, status=LessonStatus.CANDIDATE)
    tick(runtime.db, runtime.settings, utcnow())
    assert open_runs(runtime) == []


@pytest.fixture
def broken_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A database that fails the first claims."""
    calls: list[int] = []
    claim = jobs.claim

    def flaky(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) <= 2:
            raise OSError("the database is away")
        return claim(*arguments)

    monkeypatch.setattr(worker.jobs, "claim", flaky)
    return calls


async def test_a_temporarily_unavailable_database_does_not_end_the_worker(
    runtime, played, broken_once
):
    done: list[int] = []

    async def extract(_runtime: Runtime, _payload: dict[str, Any]) -> None:
        done.append(1)

    played["extract"] = extract
    enqueue(runtime, "extract", {})
    await run_until(runtime, lambda: done)
    assert len(broken_once) > 2
