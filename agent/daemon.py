"""The service, top to bottom: what `byheart serve` starts, in this order, and stops in reverse.

1. lock the data folder, open the database, report the first admin key
2. prepare the engine: attach to running vLLM servers, or unpack the model for our own vLLM
3. start the HTTP server: `/healthz` answers, but the service is not ready yet
4. start our own vLLM and watch it; it is restarted when it exits
5. load the adapters that should be live
6. report readiness, then start the worker (runs jobs) and the ticker (enqueues due jobs)
7. wait for SIGTERM or SIGINT, or until the engine has failed for good

Every step registers its cleanup on one exit stack, so a shutdown, or a signal or an error
during the start, undoes exactly the steps that were taken, in reverse order: no further jobs are
enqueued, running jobs go back to the queue, in-flight requests are drained, the log is flushed, and
the engine ends.

Nothing has to be cleaned up after a SIGKILL: the guards end the child processes
(agent/process/guard.py), the leases of jobs expire, the next start replays the spool, and a
training run resumes from its checkpoint.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from agent.database import open_database
from agent.engine.attached import attached_model_name, connect_attached
from agent.engine.base_model import prepare_model_folder, served_name
from agent.engine.errors import EngineError
from agent.engine.supervisor import Supervisor
from agent.gateway.access.api_key import PEPPER, first_admin_key, pepper
from agent.http_server import run_http_server
from agent.inflight import Inflight
from agent.jobs.runner import worker_thread
from agent.jobs.schedule import tick
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
"""Prints one line for the operator."""


async def serve(settings: Settings, report: Report) -> None:
    """Run the whole service until SIGTERM or SIGINT, which also interrupt a start.

    Raises:
        StartError: Another daemon uses the data folder, the settings contradict each other, the
            port is taken, or the model cannot be used.
        EngineFailed: vLLM did not become ready, or crashed too often.
    """
    check_settings(settings)
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(shutdown_signals())
        engine_failed = await run_unless_stopped(stop, _start(stack, settings, report))
        if engine_failed is not None:
            await wait_or_cancel(engine_failed, stop)
            if not engine_failed.cancelled():
                engine_failed.result()  # raises EngineFailed
        report("stopping: draining in-flight requests")


async def _start(
    stack: AsyncExitStack, settings: Settings, report: Report
) -> "asyncio.Future[None]":
    """Start everything, with its cleanup on the stack.

    Returns:
        A future that raises once our own vLLM has failed for good; with attached servers it never
        completes.
    """
    stack.enter_context(lock_data_dir(settings.data_dir))
    db = stack.enter_context(open_database(settings))
    _report_first_admin_key(settings, db, report)
    supervisor, runtime = await _prepare_engine(stack, settings, db, report)
    restored = asyncio.Event()

    def ready() -> bool:
        return restored.is_set() and (supervisor is None or supervisor.is_ready)

    # Entered after the engine, so left before it: requests are drained while the engine still runs.
    http = await stack.enter_async_context(run_http_server(settings, runtime, ready))
    report(f"listening on {http.url}, not ready yet")
    engine_failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if supervisor:
        await supervisor.start(report)
        engine_failed = await stack.enter_async_context(_watch_engine(supervisor, runtime))
    await reconcile(runtime)
    with suppress(EngineError):  # without it, only `server.max_tokens_cap` limits an answer
        await runtime.engine.fetch_max_model_len()
    restored.set()
    await stack.enter_async_context(worker_thread(runtime))
    await stack.enter_async_context(_run_ticker(settings, db))
    report(f"ready: {http.url}/v1 serves {runtime.model}")
    return engine_failed


def _report_first_admin_key(settings: Settings, db: Database, report: Report) -> None:
    """Create and print the first admin key; only an admin key can create others."""
    pepper_file = settings.data_dir / PEPPER
    is_new = not pepper_file.exists()
    key = first_admin_key(db, pepper(settings.data_dir), utcnow())
    if is_new and not key:
        report(
            f"{pepper_file} was missing and has been created: all existing API keys are invalid. "
            "Restore the file from a backup."
        )
    if key:
        report(f"admin key (shown only once, store it safely): {key}")


async def _prepare_engine(
    stack: AsyncExitStack, settings: Settings, db: Database, report: Report
) -> tuple[Supervisor | None, Runtime]:
    """Prepare the engine, with its cleanup on the stack.

    Returns:
        The supervisor of our own vLLM, not started yet, or None with attached servers; and what
        jobs and requests share.
    """
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
async def _watch_engine(
    supervisor: Supervisor, runtime: Runtime
) -> AsyncIterator[asyncio.Future[None]]:
    """Restart vLLM when it exits, and reload its adapters; yields the future of `_start`."""
    watching = asyncio.ensure_future(supervisor.watch(lambda: reconcile(runtime)))
    try:
        yield watching
    finally:
        watching.cancel()
        await asyncio.wait({watching})


@asynccontextmanager
async def _run_ticker(settings: Settings, db: Database) -> AsyncIterator[None]:
    """Enqueue due jobs periodically. The job table is the queue, not the ticker."""
    defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    scheduler = BackgroundScheduler(job_defaults=defaults, timezone="UTC")
    scheduler.add_job(
        lambda: tick(db, settings, utcnow()),
        "interval",
        seconds=settings.learning.tick_s,
        next_run_time=utcnow() + timedelta(seconds=settings.learning.tick_s),
    )
    scheduler.start()
    try:
        yield
    finally:
        # In a thread: a running tick may be waiting for the database.
        await asyncio.to_thread(scheduler.shutdown, wait=True)
