"""`byheart worker`: extraction and training for a daemon elsewhere, on the same database.

It reads and writes the daemon's data folder, which must lie under the same path here: adapters are
known by where they are. What the engine holds is the daemon's business: rollouts stay there.
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
    """Check that there is a daemon's engine to ask.

    Raises:
        StartError: There is none, or the settings do not fit.
    """
    if not settings.engine.urls:
        raise StartError(
            "A worker needs engine.urls: the servers that its daemon is attached to. A daemon "
            "that starts its own vLLM does its own jobs."
        )
    check_settings(settings)


async def run_remote_worker(
    settings: Settings, db: Database, report: Callable[[str], None]
) -> None:
    """Run jobs until SIGTERM or SIGINT; a job still running is then handed back.

    Raises:
        StartError: The servers serve several names, or not the configured one.
        EngineUnavailable: None of them can be reached.
    """
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(shutdown_signals())
        engine = connect_attached(settings.engine)
        stack.push_async_callback(engine.close)
        model = await run_unless_stopped(stop, attached_model_name(settings, engine, report))
        if model is not None:
            report(f"working on {without_password(settings.database_url)} in {settings.data_dir}")
            await run_worker(Runtime(settings, db, engine, model, Inflight()), stop, REMOTE_LANES)
