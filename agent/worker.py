"""`byheart worker`: extraction and training for a daemon elsewhere, on the same database.

It reads and writes the daemon's data folder, which must lie under the same path here: adapters are
known by where they are. What the engine holds is the daemon's business: rollouts stay there.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack

from agent.engine.base_model import attached_engine, attached_model
from agent.inflight import Inflight
from agent.jobs.runner import REMOTE_LANES, run_worker
from agent.process.checks import refuse_unfit
from agent.process.data_dir import StartError
from agent.process.signals import signals, unless
from agent.runtime import Work
from config.settings import Settings
from store.db import Database, without_password


def refuse_alone(settings: Settings) -> None:
    """Check that there is a daemon's engine to ask.

    Raises:
        StartError: There is none, or the settings do not fit.
    """
    if not settings.engine.urls:
        raise StartError(
            "A worker needs engine.urls: the servers that its daemon is attached to. A daemon "
            "that starts its own vLLM does its own jobs."
        )
    refuse_unfit(settings)


async def work(settings: Settings, db: Database, report: Callable[[str], None]) -> None:
    """Run jobs until SIGTERM or SIGINT; a job still running is then handed back.

    Raises:
        StartError: The servers serve several names, or not the configured one.
        EngineUnavailable: None of them can be reached.
    """
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(signals())
        engine = attached_engine(settings.engine)
        stack.push_async_callback(engine.close)
        model = await unless(stop, attached_model(settings, engine, report))
        if model is not None:
            report(f"working on {without_password(settings.database_url)} in {settings.data_dir}")
            await run_worker(Work(settings, db, engine, model, Inflight()), stop, REMOTE_LANES)
