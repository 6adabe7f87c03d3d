"""The base model's folder and the name under which the supervised engine serves it."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from agent.process.children import guarded_command, terminate
from agent.process.data_dir import StartError
from config.settings import Settings


def served_name(settings: Settings) -> str:
    """Return the model name that clients use."""
    return settings.engine.served_model_name or settings.model_folder.name


async def prepare_model_folder(settings: Settings, report: Callable[[str], None]) -> Path:
    """Return the configured folder, or that of the embedded model, unpacked on first use.

    Raises:
        StartError: The embedded model cannot be unpacked.
    """
    folder = settings.model_folder
    if not settings.engine.model:
        report("preparing the embedded model")
        await _unpack_embedded_model(folder)
    return folder


async def _unpack_embedded_model(folder: Path) -> None:
    """Unpack it in a child process: that needs torch, which the daemon never imports."""
    child = await asyncio.create_subprocess_exec(
        *guarded_command(sys.executable, "-m", "distill", "embed", "--out", str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stderr
    try:
        # Not `communicate`: it closes stdin, which makes the guard end the child.
        errors = await child.stderr.read()
        await child.wait()
    finally:
        await terminate(child)
    if child.returncode:
        raise StartError(f"The embedded model cannot be used: {errors.decode().strip()}")
