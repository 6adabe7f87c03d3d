"""The base model: which folder it is in, and under which name it is served."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent.engine.client import VllmEngine
from agent.engine.errors import EngineUnavailable
from agent.process.children import end, guarded
from agent.process.data_dir import StartError
from config.sections import Engine
from config.settings import Settings

RETRY_S = 1.0


def served_name(settings: Settings) -> str:
    """The name that clients use for the model."""
    return settings.engine.served_model_name or settings.model_folder.name


async def model_folder(settings: Settings, report: Callable[[str], None]) -> Path:
    """The configured folder, or the embedded model's, made on first use.

    Raises:
        StartError: The embedded model cannot be made.
    """
    folder = settings.model_folder
    if not settings.engine.model:
        report("preparing the embedded model")
        await _embed(folder)
    return folder


async def _embed(folder: Path) -> None:
    """Unpack the embedded model in a child process: it needs torch, and this one does not."""
    child = await asyncio.create_subprocess_exec(
        *guarded(sys.executable, "-m", "distill", "embed", "--out", str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stderr
    try:
        complaint = await child.stderr.read()  # `communicate` would close stdin, and so end it
        await child.wait()
    finally:
        await end(child)
    if child.returncode:
        raise StartError(f"The embedded model cannot be used: {complaint.decode().strip()}")


async def _models(
    settings: Settings, engine: VllmEngine, report: Callable[[str], None]
) -> list[str]:
    give_up = time.monotonic() + settings.engine.start_timeout_s
    is_told = False
    while True:
        try:
            return await engine.models()
        except EngineUnavailable as error:
            if time.monotonic() + RETRY_S > give_up:
                raise
            if not is_told:
                report(f"waiting for the engine: {error}")
            is_told = True
        await asyncio.sleep(RETRY_S)


def attached_engine(settings: Engine) -> VllmEngine:
    """A client of the configured servers."""
    return VllmEngine(
        settings.urls,
        api_key=settings.api_key,
        first_byte_timeout_s=settings.first_byte_timeout_s,
    )


async def attached_model(
    settings: Settings, engine: VllmEngine, report: Callable[[str], None]
) -> str:
    """The name under which attached servers serve the base; waits for those that are starting.

    Raises:
        StartError: They serve several names, or not the configured one.
        EngineUnavailable: None of them could be reached for `engine.start_timeout_s`.
    """
    serving = [
        name for name in await _models(settings, engine, report) if not name.startswith("bh-")
    ]
    wanted = settings.engine.served_model_name
    if wanted in serving or (not wanted and len(serving) == 1):
        return wanted or serving[0]
    raise StartError(
        f"The engine at {', '.join(settings.engine.urls)} serves {', '.join(serving)}: set "
        "engine.served_model_name to the base's name."
    )
