"""`byheart worker`: runs extraction and training jobs for a daemon on another machine.

It shares the daemon's database and data folder. The folder may have another path on this machine,
because the database stores paths relative to it. Rollouts stay with the daemon, which alone
loads and unloads the engine's adapters.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack

from agent.engine.attached import attached_model_name, connect_attached
from agent.inflight import Inflight
from agent.jobs.runner import REMOTE_LANES, run_worker
from agent.process.checks import check_settings
from agent.process.data_dir import StartError
from agent.process.signals import run_unless_stopped, shutdown_signals
from agent.runtime import Runtime
from config.settings import Settings
from store.db import Database, without_password


def check_worker_settings(settings: Settings) -> None:
    """Check the settings, and that they name the servers that the daemon is attached to.

    Raises:
        StartError: `engine.urls` is not set, or the settings do not fit together.
    """
    if not settings.engine.urls:
        raise StartError(
            "A worker needs engine.urls: the vLLM servers that the daemon is attached to. A daemon "
            "that starts its own vLLM runs its jobs itself."
        )
    check_settings(settings)


async def run_remote_worker(
    settings: Settings, db: Database, report: Callable[[str], None]
) -> None:
    """Run jobs until SIGTERM or SIGINT; a job that is still running goes back to the queue.

    Raises:
        StartError: The servers serve several base models, or not the configured one.
        EngineUnavailable: None of the servers can be reached.
    """
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(shutdown_signals())
        engine = connect_attached(settings.engine)
        stack.push_async_callback(engine.close)
        model = await run_unless_stopped(stop, attached_model_name(settings, engine, report))
        if model is not None:
            report(f"working on {without_password(settings.database_url)} in {settings.data_dir}")
            await run_worker(Runtime(settings, db, engine, model, Inflight()), stop, REMOTE_LANES)
