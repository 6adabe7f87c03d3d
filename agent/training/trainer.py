"""The `train` job: runs `python -m distill run ID` as a child process and sees to its end.

Memory returns to the machine when the child exits, and a crash in it cannot touch serving. The
child reports through its run's row alone. It runs at low priority, and under the guard, so that
it ends when the daemon does, however that ends; the next claim of the job resumes from the run's
last checkpoint.
"""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from agent.process.children import guarded_command, terminate
from agent.runtime import Runtime
from config.environment import ENV_PREFIX
from store import runs
from store.db import AWAY
from store.schema import RunStatus

log = structlog.get_logger(__name__)

NICENESS = 10
POLL_S = 1.0
LOG_TAIL_CHARS = 1500


class TrainerCrashed(Exception):
    """The trainer died without recording an end."""


async def train(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Run the distillation `payload["run"]` to its recorded end.

    Raises:
        TrainerCrashed: The child died; the job is tried again and the run resumes.
    """
    run = payload["run"]
    logfile = runtime.settings.data_dir / "logs" / f"{run}.log"
    child = await _start(runtime, run, logfile)
    try:
        code = await _wait(runtime, run, child)
    finally:
        await terminate(child)
    if _status(runtime, run) in (RunStatus.QUEUED, RunStatus.RUNNING):
        raise TrainerCrashed(f"The trainer died (exit code {code}): {_tail(logfile)}")


async def _start(runtime: Runtime, run: str, logfile: Path) -> asyncio.subprocess.Process:
    logfile.parent.mkdir(parents=True, exist_ok=True)
    with logfile.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *guarded_command(
                "nice", "-n", str(NICENESS), *command(runtime.settings.distill.processes, run)
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=runtime.settings.data_dir,
            env={**os.environ, **runtime.settings.environment(), **_engine(runtime)},
        )


def command(processes: int, run: str) -> list[str]:
    """What trains: one process, or several under torch's launcher."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    alone = processes == 1
    return [sys.executable, *([] if alone else launcher), "-m", "distill", "run", run]


def _engine(runtime: Runtime) -> dict[str, str]:
    """Where a child that samples there finds the engine; its key goes to no other."""
    if runtime.settings.distill.sampler == "local":
        return {}
    return {
        f"{ENV_PREFIX}ENGINE__URLS": ",".join(runtime.engine.urls),
        f"{ENV_PREFIX}ENGINE__API_KEY": runtime.engine.api_key,
    }


async def _wait(runtime: Runtime, run: str, child: asyncio.subprocess.Process) -> int:
    """The child's exit code; a run that was cancelled meanwhile ends its child."""
    waiting = asyncio.ensure_future(child.wait())
    while not waiting.done():
        await asyncio.wait({waiting}, timeout=POLL_S)
        # A database that is away is asked again; the trainer need not end for it.
        with suppress(*AWAY):
            if _status(runtime, run) is RunStatus.CANCELLED:
                await terminate(child)
    return waiting.result()


def _status(runtime: Runtime, run: str) -> RunStatus:
    with runtime.db.read() as session:
        found = runs.get(session, run)
    if found is None:
        raise runs.UnknownRun(run)
    return found.status


def _tail(logfile: Path) -> str:
    return logfile.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip()
