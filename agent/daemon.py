"""The service, top to bottom: what `byheart serve` starts, in order, and stops in reverse.

    data folder locked -> database -> model folder -> HTTP (alive, not ready) -> engine
    -> adapters restored -> ready -> worker -> ticker -> until a signal

Everything is entered on one exit stack, so a shutdown, or a signal or an error half-way up, undoes
exactly what was done, last first: no new work, jobs handed back, answers drained, log flushed,
engine ended. After a SIGKILL the guards end the children (agent/process/guard.py), leases run
out, the spool is replayed at the next start, and a run resumes from its checkpoint.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from agent import http_server
from agent.database import open_database
from agent.engine.attached import attached_model_name, connect_attached
from agent.engine.base_model import prepare_model_folder, served_name
from agent.engine.errors import EngineError
from agent.engine.supervisor import Supervisor
from agent.gateway.access.api_key import PEPPER, first_admin_key, pepper
from agent.inflight import Inflight
from agent.jobs.runner import worker_thread
from agent.jobs.schedule import enqueue_due
from agent.process.checks import check_settings
from agent.process.data_dir import lock_data_dir
from agent.process.signals import run_unless_stopped, shutdown_signals, wait_or_cancel
from agent.rollout.reconcile import reconcile
from agent.runtime import Runtime
from config.settings import Settings
from store.clock import utcnow
from store.db import Database

log = structlog.get_logger(__name__)

Report = Callable[[str], None]


async def serve(settings: Settings, report: Report) -> None:
    """Run the whole service until SIGTERM or SIGINT, which also cut a start short.

    Raises:
        StartError: Another daemon has the data folder, the settings do not fit, ...
        EngineFailed: vLLM did not become ready, or crashes again and again.
    """
    check_settings(settings)
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(shutdown_signals())
        crashed = await run_unless_stopped(stop, _start(stack, settings, report))
        if crashed is not None:
            await wait_or_cancel(crashed, stop)
            if not crashed.cancelled():
                crashed.result()
        report("stopping: answers are finished first")


async def _start(
    stack: AsyncExitStack, settings: Settings, report: Report
) -> "asyncio.Future[None]":
    """Start everything, on the stack; a future that ends when the engine has failed for good."""
    stack.enter_context(lock_data_dir(settings.data_dir))
    db = stack.enter_context(open_database(settings))
    _tell_first_key(settings, db, report)
    supervisor, runtime = await _prepare(stack, settings, db, report)
    restored = asyncio.Event()

    def ready() -> bool:
        return restored.is_set() and (supervisor is None or supervisor.is_ready)

    # Entered after the engine, so left before it: answers are finished first.
    http = await stack.enter_async_context(http_server.run_http_server(settings, runtime, ready))
    report(f"listening on {http.url}, not ready yet")
    crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if supervisor:
        await supervisor.start(report)
        crashed = await stack.enter_async_context(_watched(supervisor, runtime))
    await reconcile(runtime)
    with suppress(EngineError):  # then `server.max_tokens_cap` alone bounds an answer
        await runtime.engine.fetch_max_model_len()
    restored.set()
    await stack.enter_async_context(worker_thread(runtime))
    await stack.enter_async_context(_ticking(settings, db))
    report(f"ready: {http.url}/v1 serves {runtime.model}")
    return crashed


def _tell_first_key(settings: Settings, db: Database, report: Report) -> None:
    """Where keys are needed, nobody could make the first one but who starts the service."""
    file = settings.data_dir / PEPPER
    is_new = not file.exists()
    key = first_admin_key(db, pepper(settings.data_dir), utcnow())
    if is_new and not key:
        report(f"{file} is new: no key made before is good here. Restore it from a backup.")
    if key:
        report(f"admin key, shown this once, keep it: {key}")


async def _prepare(
    stack: AsyncExitStack, settings: Settings, db: Database, report: Report
) -> tuple[Supervisor | None, Runtime]:
    """The engine, not started yet but ended by the stack, and what jobs work with."""
    if settings.engine.urls:
        engine = connect_attached(settings.engine)
        stack.push_async_callback(engine.close)
        model = await attached_model_name(settings, engine, report)
        return None, Runtime(settings, db, engine, model, Inflight())
    folder = await prepare_model_folder(settings, report)
    name = served_name(settings)
    supervisor = Supervisor(settings.engine, folder, name, settings.data_dir)
    stack.push_async_callback(supervisor.stop)
    return supervisor, Runtime(settings, db, supervisor.engine, name, Inflight())


@asynccontextmanager
async def _watched(supervisor: Supervisor, runtime: Runtime) -> AsyncIterator[asyncio.Future[None]]:
    """Restarts vLLM when it exits, and gives it its adapters back."""
    watching = asyncio.ensure_future(supervisor.watch(lambda: reconcile(runtime)))
    try:
        yield watching
    finally:
        watching.cancel()
        await asyncio.wait({watching})


@asynccontextmanager
async def _ticking(settings: Settings, db: Database) -> AsyncIterator[None]:
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
        await asyncio.to_thread(scheduler.shutdown, wait=True)  # a tick may wait for the database
