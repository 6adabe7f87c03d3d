"""Child processes run under the guard, so that they end when this process does."""

import asyncio
import sys

from agent.process import guard


def guarded_command(*command: str) -> tuple[str, ...]:
    """Wrap a command in the guard. Start it with a pipe as stdin and keep the pipe open."""
    return (sys.executable, guard.__file__, "--", *command)


async def terminate(child: asyncio.subprocess.Process) -> None:
    """Send SIGTERM to a guarded child that is still running, and wait for its exit."""
    if child.returncode is None:
        child.terminate()
    await child.wait()
