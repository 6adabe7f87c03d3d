"""The service, top to bottom: what `byheart serve` starts, in order, and stops in reverse.

    data folder locked -> database -> model folder -> HTTP (alive, not ready) -> engine
    -> adapters restored -> ready -> worker -> ticker -> until a signal

Everything is entered on one exit stack, so a shutdown, or an error half-way up, undoes exactly
what was done, last first: no new work, jobs handed back, answers drained, log flushed, engine
ended. After a SIGKILL the guards end the children (engine/guard.py), leases run out, the spool is
replayed at the next start, and a run resumes from its checkpoint.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from agent import endpoint
from agent.database import open_database
from agent.due import enqueue_due
from agent.engine.supervisor import Supervisor
from agent.gateway.inflight import Inflight
from agent.jobs import worker_thread
from agent.lock import only_daemon
from agent.model import attached_engine, attached_model, model_folder, refuse_unfit, served_name
from agent.rollout.reconcile import reconcile
from agent.work import Work, utcnow
from config.settings import Settings
from store.db import Database

log = structlog.get_logger(__name__)

Report = Callable[[str], None]


async def serve(settings: Settings, report: Report) -> None:
    """Run the whole service until SIGTERM or SIGINT.

    Raises:
        StartError: Another daemon has the data folder, the settings do not fit, ...
        EngineFailed: vLLM did not become ready, or crashes again and again.
    """
    refuse_unfit(settings)
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(_signals())
        stack.enter_context(only_daemon(settings.data_dir))
        db = stack.enter_context(open_database(settings))
        supervisor, work = await _prepare(settings, db, report)
        restored = asyncio.Event()

        def ready() -> bool:
            return restored.is_set() and (supervisor is None or supervisor.alive)

        http = await stack.enter_async_context(endpoint.listening(settings, work, ready))
        report(f"listening on {http.url}, not ready yet")
        crashed = await stack.enter_async_context(_engine(supervisor, work, http, report))
        await reconcile(work)
        restored.set()
        stack.enter_context(worker_thread(work))
        stack.enter_context(_ticking(settings, db))
        report(f"ready: {http.url}/v1 serves {work.model}")
        await _first(stop, crashed)
        report("stopping: answers are finished first")


async def _prepare(
    settings: Settings, db: Database, report: Report
) -> tuple[Supervisor | None, Work]:
    """The engine, not started yet, and what jobs work with."""
    if settings.engine.urls:
        engine = attached_engine(settings.engine)
        model = await attached_model(settings, engine)
        return None, Work(settings, db, engine, model, Inflight())
    folder = await model_folder(settings, report)
    name = served_name(settings)
    supervisor = Supervisor(settings.engine, folder, name, settings.data_dir)
    return supervisor, Work(settings, db, supervisor.engine, name, Inflight())


@asynccontextmanager
async def _engine(
    supervisor: Supervisor | None, work: Work, http: endpoint.Listening, report: Report
) -> AsyncIterator[asyncio.Future[None]]:
    """The engine, generating; gives a future that ends when it has failed for good.

    Answers are finished before the engine is left.
    """
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        if supervisor is None:
            yield never
        else:
            await supervisor.start(report)
            async with _watched(supervisor, work) as watching:
                yield watching
    finally:
        await http.drain()
        await (supervisor.stop() if supervisor else work.engine.close())


@asynccontextmanager
async def _watched(supervisor: Supervisor, work: Work) -> AsyncIterator[asyncio.Future[None]]:
    """Restarts vLLM when it exits, and gives it its adapters back."""
    watching = asyncio.ensure_future(supervisor.watch(lambda: reconcile(work)))
    try:
        yield watching
    finally:
        watching.cancel()
        await asyncio.wait({watching})


@contextmanager
def _ticking(settings: Settings, db: Database) -> Iterator[None]:
    """The ticker: it only enqueues what is due; the tables are the queue."""
    defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    scheduler = BackgroundScheduler(job_defaults=defaults, timezone="UTC")
    scheduler.add_job(
        lambda: enqueue_due(db, settings, utcnow()),
        "interval",
        seconds=settings.learning.tick_s,
        next_run_time=utcnow() + timedelta(seconds=settings.learning.tick_s),
    )
    scheduler.start()
    try:
        yield
    finally:
        scheduler.shutdown(wait=True)


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; what follows happens outside the handler."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _first(stop: asyncio.Event, crashed: "asyncio.Future[None]") -> None:
    """Wait for the signal; an engine that has failed for good is raised."""
    stopping = asyncio.ensure_future(_set(stop))
    await asyncio.wait({stopping, crashed}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if crashed.done() and not crashed.cancelled():
        crashed.result()


async def _set(event: asyncio.Event) -> None:
    await event.wait()
