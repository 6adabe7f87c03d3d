"""`run_daemon()`: `byheart serve` as a child process, for tests over real HTTP.

with run_daemon(tmp_path, {"BYHEART_ENGINE__URLS": fake.url}) as daemon:
    daemon.chat("When do you open?")
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from agent.process.data_dir import ADDRESS_FILE
from store.db import Database
from tests.support.until import until_sync

FAST_SETTINGS = {
    "BYHEART_SERVER__PORT": "0",
    "BYHEART_LEARNING__IDLE_S": "0",
    "BYHEART_LEARNING__TICK_S": "0.2",
    "BYHEART_DISTILL__AUTO": "false",
}


class RunningDaemon:
    """A `byheart serve` process, with its data folder and log."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, logfile: Path) -> None:
        self.process = process
        self.folder = folder
        self.logfile = logfile
        self.http = httpx.Client(timeout=120)
        self.model = ""

    @property
    def url(self) -> str:
        return str(json.loads((self.folder / ADDRESS_FILE).read_text())["url"])

    @contextmanager
    def database(self) -> Iterator[Database]:
        db = Database(f"sqlite:///{self.folder / 'byheart.db'}")
        try:
            yield db
        finally:
            db.close()

    def chat(self, text: str, **params: Any) -> httpx.Response:
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], **params}
        return self.http.post(f"{self.url}/v1/chat/completions", json=body)

    def demonstrate(self, interaction: str, answer: str) -> httpx.Response:
        body = {"target_id": interaction, "name": "demonstration", "value": True}
        return self.http.post(f"{self.url}/v1/feedback", json=body | {"demonstration": answer})

    def cli(self, *arguments: str) -> Any:
        """Run a `byheart` verb on this daemon's data; returns its parsed output."""
        done = subprocess.run(
            [sys.executable, "-m", "agent", *arguments],
            env=environment(self.folder, {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout) if "json" in arguments else done.stdout

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


def environment(folder: Path, settings: dict[str, str]) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("BYHEART_")}
    return plain | FAST_SETTINGS | {"BYHEART_STORE__DATA_DIR": str(folder)} | settings


@contextmanager
def run_daemon(
    folder: Path, settings: dict[str, str], timeout_s: float = 60, wait: bool = True
) -> Iterator[RunningDaemon]:
    """Run `byheart serve` until left; with `wait`, it is ready when entered."""
    folder.mkdir(parents=True, exist_ok=True)
    logfile = folder / "test.log"
    with logfile.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "serve"],
            env=environment(folder, settings),
            stdout=output,
            stderr=output,
            # As in a terminal; under nohup the child would inherit SIG_IGN.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
    daemon = RunningDaemon(process, folder, logfile)
    try:
        if wait:
            until_sync(lambda: is_ready(daemon), timeout_s, logfile.read_text)
            daemon.model = daemon.http.get(f"{daemon.url}/v1/models").json()["data"][0]["id"]
        yield daemon
    finally:
        daemon.http.close()
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def is_ready(daemon: RunningDaemon) -> bool:
    assert daemon.process.poll() is None, daemon.logfile.read_text()
    try:
        return daemon.http.get(f"{daemon.url}/readyz").status_code == 200
    except (httpx.TransportError, FileNotFoundError):
        return False
