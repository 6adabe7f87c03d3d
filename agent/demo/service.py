"""The demo's daemon: a real `byheart serve` as a child process, in its own folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from agent.demo.errors import ServiceDied
from agent.process import guard
from agent.process.data_dir import ADDRESS_FILE
from config.environment import ENV_PREFIX

POLL_S = 0.2
STOP_S = 60.0


@dataclass(frozen=True)
class Service:
    """A running daemon."""

    url: str
    process: subprocess.Popen[bytes]
    logfile: Path

    def check(self) -> None:
        """Raise `ServiceDied` if the daemon has exited."""
        if self.process.poll() is not None:
            raise ServiceDied(
                f"byheart serve exited with code {self.process.returncode}:\n{tail(self.logfile)}"
            )


@contextmanager
def serving(config: Path, data_dir: Path, report: Callable[[str], None]) -> Iterator[Service]:
    """Start `byheart serve -c CONFIG` and wait until it is ready; stop it when the block is left.

    Raises:
        ServiceDied: The daemon exited before it was ready.
    """
    logfile = data_dir / "logs" / "daemon.log"
    logfile.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "agent", "serve", "--config", str(config)]
    with logfile.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, guard.__file__, "--grace", "45", "--", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # Without settings from the environment, which may name a real database.
            env={key: os.environ[key] for key in os.environ if not key.startswith(ENV_PREFIX)},
        )
    try:
        yield _wait_ready(process, data_dir, logfile, report)
    finally:
        process.terminate()
        process.wait(STOP_S)


def _wait_ready(
    process: subprocess.Popen[bytes], data_dir: Path, logfile: Path, report: Callable[[str], None]
) -> Service:
    discovery = data_dir / ADDRESS_FILE
    while True:
        url = json.loads(discovery.read_text())["url"] if discovery.exists() else ""
        Service(url, process, logfile).check()
        report(stage(logfile))
        if url and _ready(url):
            return Service(url, process, logfile)
        time.sleep(POLL_S)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def stage(logfile: Path) -> str:
    """Return the last status line that the daemon printed."""
    messages = [
        line.removeprefix("byheart: ")
        for line in logfile.read_text(errors="replace").splitlines()
        if line.startswith("byheart: ")
    ]
    return messages[-1] if messages else "starting"


def tail(logfile: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    return "\n".join(logfile.read_text(errors="replace").splitlines()[-lines:])
