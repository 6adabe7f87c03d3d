"""Child processes under the guard: they end when this process does, however it ends."""

import asyncio
import sys

from agent.process import guard


def guarded_command(*command: str) -> tuple[str, ...]:
    """The command under the guard; start it with a pipe as its stdin, and leave that open."""
    return (sys.executable, guard.__file__, "--", *command)


async def terminate(child: asyncio.subprocess.Process) -> None:
    """End a guarded child, if it runs, and wait for it."""
    if child.returncode is None:
        child.terminate()
    await child.wait()
