"""The worker: claims jobs from the job table and runs them.

It has two lanes, so that a training run of minutes does not delay an extraction of seconds. In the
daemon, a third loop reconciles the engine's adapters with the database.

A worker holds a job by a lease, which a thread renews. A worker that has lost the lease cancels the
job. What the job did until then stays; this is safe because its effects are idempotent, while the
fence only protects the job's row.

Background work catches every error here and nowhere else. A job that fails is marked failed with
its reason, and the lane goes on; if the database is unavailable, the lane tries again shortly.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import structlog

from agent.jobs import retention
from agent.learning import extract
from agent.process.signals import run_unless_stopped, sleep_or_stop, wait_or_cancel
from agent.rollout import rollout
from agent.rollout.reconcile import reconcile
from agent.runtime import Runtime
from agent.training.trainer import train
from store import jobs
from store.clock import utcnow
from store.db import Database
from store.jobs import Claim, LeaseLost

log = structlog.get_logger(__name__)

KINDS: dict[str, Callable[[Runtime, dict[str, Any]], Awaitable[None]]] = {
    "extract": extract.run,
    "train": train,
    "rollout": rollout.run,
    "retain": retention.run,
}
LANES = (("extract", "rollout", "retain"), ("train",))
REMOTE_LANES = (("extract",), ("train",))
"""Lanes of a worker without a gateway: only the daemon knows the requests to drain in a rollout."""
LEASE_S = 30.0
POLL_S = 0.5
RECONCILE_S = 5.0
RETRY_S = 10.0


@asynccontextmanager
async def worker_thread(runtime: Runtime) -> AsyncIterator[None]:
    """Run a worker in its own thread and event loop, so that no job delays a request."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def main() -> None:
        engine = runtime.engine.clone()
        try:
            in_thread = replace(runtime, engine=engine)
            await asyncio.gather(run_worker(in_thread, stop), _reconcile_loop(in_thread, stop))
        finally:
            await engine.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), name="worker")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join)  # the event loop goes on serving
        loop.close()


async def run_worker(
    runtime: Runtime, stop: asyncio.Event, lanes: Sequence[tuple[str, ...]] = LANES
) -> None:
    """Run jobs in the lanes until `stop` is set; a running job then goes back to the queue."""
    await asyncio.gather(*(_run_lane(runtime, lane, stop) for lane in lanes))


async def _run_lane(runtime: Runtime, kinds: tuple[str, ...], stop: asyncio.Event) -> None:
    """Claim and run jobs of these kinds, one at a time."""

    async def run_next() -> bool:
        with runtime.db.begin() as session:
            claim = jobs.claim(session, kinds, utcnow(), LEASE_S)
        if claim:
            await run_job(runtime, claim, stop)
        return claim is not None

    await _repeat(run_next, POLL_S, stop)


async def _reconcile_loop(runtime: Runtime, stop: asyncio.Event) -> None:
    async def reconcile_once() -> bool:
        await run_unless_stopped(stop, reconcile(runtime))
        return False

    await _repeat(reconcile_once, RECONCILE_S, stop)


async def _repeat(step: Callable[[], Awaitable[bool]], pause_s: float, stop: asyncio.Event) -> None:
    """Repeat the step until `stop`; pause after a step that failed or returned False (was idle)."""
    while not stop.is_set():
        try:
            busy = await step()
        except Exception as error:  # noqa: BLE001 — boundary: background work goes on
            log.warning("background work failed, will retry", error=repr(error))
            busy = False
        if not busy:
            await sleep_or_stop(stop, pause_s)


async def run_job(runtime: Runtime, claim: Claim, stop: asyncio.Event) -> None:
    """Run a claimed job and record its end: done, failed, or back in the queue on a shutdown."""
    log.info("job started", job=claim.id, kind=claim.kind, attempt=claim.attempts)
    task = asyncio.ensure_future(KINDS[claim.kind](runtime, claim.payload))
    loop = asyncio.get_running_loop()
    with _heartbeat(runtime.db, claim, on_lost=lambda: loop.call_soon_threadsafe(task.cancel)):
        await wait_or_cancel(task, stop)
        try:
            _record_outcome(runtime.db, claim, task)
        except LeaseLost:
            log.warning("job lease lost", job=claim.id, kind=claim.kind)


def _record_outcome(db: Database, claim: Claim, task: "asyncio.Future[None]") -> None:
    with db.begin() as session:
        if task.cancelled():
            jobs.release(session, claim, utcnow())
        elif error := task.exception():
            log.error("job failed", job=claim.id, kind=claim.kind, exc_info=error)
            jobs.fail(session, claim, f"{type(error).__name__}: {error}", utcnow(), RETRY_S)
        else:
            jobs.finish(session, claim, utcnow())
            log.info("job done", job=claim.id, kind=claim.kind)


@contextmanager
def _heartbeat(db: Database, claim: Claim, on_lost: Callable[[], object]) -> Iterator[None]:
    """Renew the lease from a thread, which a busy event loop cannot delay."""
    finished = threading.Event()

    def beat() -> None:
        while not finished.wait(LEASE_S / 3):
            try:
                with db.begin() as session:
                    renewed = jobs.heartbeat(session, claim, utcnow(), LEASE_S)
            except Exception as error:  # noqa: BLE001 — boundary: the lease expires
                log.warning("lease not renewed", job=claim.id, error=repr(error))
                continue
            if not renewed:
                on_lost()
                return

    thread = threading.Thread(target=beat, name=f"lease {claim.kind}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
