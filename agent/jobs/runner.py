"""The worker: claims jobs from the table and runs them.

Two lanes, so that a run of minutes does not hold up an extraction of seconds; a third keeps the
engine's adapters as the tables say. A job's lease is renewed by a thread of its own; a worker that
lost the lease stops working on the job. What a job has done by then stays: its effects are
idempotent, and the fence protects the job's row alone. This is the one boundary of background work
that catches any error: the job is marked failed with its reason, and the next one goes on; a
database that is away is asked again a little later.
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
from store.jobs import Claim, LostLease

log = structlog.get_logger(__name__)

KINDS: dict[str, Callable[[Runtime, dict[str, Any]], Awaitable[None]]] = {
    "extract": extract.run,
    "train": train,
    "rollout": rollout.run,
    "retain": retention.run,
}
LANES = (("extract", "rollout", "retain"), ("train",))
REMOTE_LANES = (("extract",), ("train",))
"""Of a worker without a gateway: only the daemon knows which answers a rollout has to wait for."""
LEASE_S = 30.0
POLL_S = 0.5
RECONCILE_S = 5.0
RETRY_S = 10.0


@asynccontextmanager
async def worker_thread(runtime: Runtime) -> AsyncIterator[None]:
    """A worker in a thread and an event loop of its own, so that no job delays a request."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def main() -> None:
        engine = runtime.engine.clone()
        try:
            own = replace(runtime, engine=engine)
            await asyncio.gather(run_worker(own, stop), _tend_engine(own, stop))
        finally:
            await engine.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), name="worker")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join)  # answers go on meanwhile
        loop.close()


async def run_worker(
    runtime: Runtime, stop: asyncio.Event, lanes: Sequence[tuple[str, ...]] = LANES
) -> None:
    """Run jobs in the lanes until `stop` is set; a job still running is then handed back."""
    await asyncio.gather(*(_run_lane(runtime, lane, stop) for lane in lanes))


async def _run_lane(runtime: Runtime, kinds: tuple[str, ...], stop: asyncio.Event) -> None:
    async def run_next() -> bool:
        with runtime.db.begin() as session:
            claim = jobs.claim(session, kinds, utcnow(), LEASE_S)
        if claim:
            await run_job(runtime, claim, stop)
        return claim is not None

    await _repeat(run_next, POLL_S, stop)


async def _tend_engine(runtime: Runtime, stop: asyncio.Event) -> None:
    async def tend() -> bool:
        await run_unless_stopped(stop, reconcile(runtime))
        return False

    await _repeat(tend, RECONCILE_S, stop)


async def _repeat(step: Callable[[], Awaitable[bool]], pause_s: float, stop: asyncio.Event) -> None:
    """Take the step until `stop`, with a pause whenever it found nothing to do or failed."""
    while not stop.is_set():
        try:
            busy = await step()
        except Exception as error:  # noqa: BLE001 — boundary: background work goes on
            log.warning("background work failed, tried again", error=repr(error))
            busy = False
        if not busy:
            await sleep_or_stop(stop, pause_s)


async def run_job(runtime: Runtime, claim: Claim, stop: asyncio.Event) -> None:
    """Run one claimed job to its recorded end: done, failed, or handed back on a shutdown."""
    log.info("job started", job=claim.id, kind=claim.kind, attempt=claim.attempts)
    task = asyncio.ensure_future(KINDS[claim.kind](runtime, claim.payload))
    loop = asyncio.get_running_loop()
    with _heartbeat(runtime.db, claim, on_lost=lambda: loop.call_soon_threadsafe(task.cancel)):
        await wait_or_cancel(task, stop)
        try:
            _record_end(runtime.db, claim, task)
        except LostLease:
            log.warning("job taken over", job=claim.id, kind=claim.kind)


def _record_end(db: Database, claim: Claim, task: "asyncio.Future[None]") -> None:
    with db.begin() as session:
        if task.cancelled():
            jobs.give_back(session, claim, utcnow())
        elif error := task.exception():
            log.error("job failed", job=claim.id, kind=claim.kind, exc_info=error)
            jobs.fail(session, claim, f"{type(error).__name__}: {error}", utcnow(), RETRY_S)
        else:
            jobs.finish(session, claim, utcnow())
            log.info("job done", job=claim.id, kind=claim.kind)


@contextmanager
def _heartbeat(db: Database, claim: Claim, on_lost: Callable[[], object]) -> Iterator[None]:
    """Renew the lease from a thread of its own, which no busy event loop can hold up."""
    finished = threading.Event()

    def beat() -> None:
        while not finished.wait(LEASE_S / 3):
            try:
                with db.begin() as session:
                    held = jobs.heartbeat(session, claim, utcnow(), LEASE_S)
            except Exception as error:  # noqa: BLE001 — boundary: the lease runs out by itself
                log.warning("lease not renewed", job=claim.id, error=repr(error))
                continue
            if not held:
                on_lost()
                return

    thread = threading.Thread(target=beat, name=f"lease {claim.kind}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
