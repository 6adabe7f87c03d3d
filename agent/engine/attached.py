"""Attaches to vLLM servers that byheart does not manage (`engine.urls`)."""

import asyncio
import time
from collections.abc import Callable

from agent.engine.client import VllmEngine
from agent.engine.errors import EngineUnavailable
from agent.process.data_dir import StartError
from config.sections import Engine
from config.settings import Settings

RETRY_S = 1.0


def connect_attached(settings: Engine) -> VllmEngine:
    """Return a client of the configured servers."""
    return VllmEngine(
        settings.urls,
        api_key=settings.api_key,
        first_byte_timeout_s=settings.first_byte_timeout_s,
    )


async def attached_model_name(
    settings: Settings, engine: VllmEngine, report: Callable[[str], None]
) -> str:
    """Return the name under which the servers serve the base; wait while they start.

    Raises:
        StartError: They serve several base models, or not the configured one.
        EngineUnavailable: None could be reached within `engine.start_timeout_s`.
    """
    served = [
        name
        for name in await _wait_for_models(settings, engine, report)
        if not name.startswith("bh-")
    ]
    configured = settings.engine.served_model_name
    if configured in served or (not configured and len(served) == 1):
        return configured or served[0]
    raise StartError(
        f"The engine at {', '.join(settings.engine.urls)} serves {', '.join(served)}: set "
        "engine.served_model_name to the name of the base model."
    )


async def _wait_for_models(
    settings: Settings, engine: VllmEngine, report: Callable[[str], None]
) -> list[str]:
    deadline = time.monotonic() + settings.engine.start_timeout_s
    reported = False
    while True:
        try:
            return await engine.models()
        except EngineUnavailable as error:
            if time.monotonic() + RETRY_S > deadline:
                raise
            if not reported:
                report(f"waiting for the engine: {error}")
                reported = True
        await asyncio.sleep(RETRY_S)
