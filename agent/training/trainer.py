"""The `train` job: runs `python -m distill run ID` as a child process and waits for its end.

The child frees all its memory when it exits, and its crash cannot affect serving.
The child reports only through its run's row. It runs at low priority and under the guard, so that
it ends with the daemon, however that ends; the next claim of the job resumes from the run's last
checkpoint.
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
from store.db import DATABASE_UNAVAILABLE
from store.schema import RunStatus

log = structlog.get_logger(__name__)

NICENESS = 10
POLL_S = 1.0
LOG_TAIL_CHARS = 1500


class TrainerCrashed(Exception):
    """The trainer exited without recording the end of its run."""


async def train(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Train the run `payload["run"]` until it has finished, failed or been cancelled.

    Raises:
        TrainerCrashed: The child crashed; the job is retried and the run resumes.
    """
    run = payload["run"]
    logfile = runtime.settings.data_dir / "logs" / f"{run}.log"
    child = await _start(runtime, run, logfile)
    try:
        code = await _wait(runtime, run, child)
    finally:
        await terminate(child)
    if _status(runtime, run) in (RunStatus.QUEUED, RunStatus.RUNNING):
        raise TrainerCrashed(f"The trainer crashed (exit code {code}): {_log_tail(logfile)}")


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
            env={**os.environ, **runtime.settings.environment(), **_engine_environment(runtime)},
        )


def command(processes: int, run: str) -> list[str]:
    """Return the training command: one process, or several under torch's launcher."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *(launcher if processes > 1 else []), "-m", "distill", "run", run]


def _engine_environment(runtime: Runtime) -> dict[str, str]:
    """Return the engine's URLs and key, for a child that samples with the engine; else nothing."""
    if runtime.settings.distill.sampler == "local":
        return {}
    return {
        f"{ENV_PREFIX}ENGINE__URLS": ",".join(runtime.engine.urls),
        f"{ENV_PREFIX}ENGINE__API_KEY": runtime.engine.api_key,
    }


async def _wait(runtime: Runtime, run: str, child: asyncio.subprocess.Process) -> int:
    """Wait for the child and return its exit code; end it when its run is cancelled."""
    waiting = asyncio.ensure_future(child.wait())
    while not waiting.done():
        await asyncio.wait({waiting}, timeout=POLL_S)
        # If the database is unavailable, training goes on and the next poll asks again.
        with suppress(*DATABASE_UNAVAILABLE):
            if _status(runtime, run) is RunStatus.CANCELLED:
                await terminate(child)
    return waiting.result()


def _status(runtime: Runtime, run: str) -> RunStatus:
    with runtime.db.read() as session:
        row = runs.get(session, run)
    if row is None:
        raise runs.UnknownRun(run)
    return row.status


def _log_tail(logfile: Path) -> str:
    return logfile.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip()
