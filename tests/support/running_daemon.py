"""A real `byheart serve` as a child process, for tests over real HTTP.

with daemon(tmp_path, {"BYHEART_ENGINE__URLS": fake.url}) as served:
    served.chat("When do you open?")
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

IMPATIENT = {
    "BYHEART_SERVER__PORT": "0",
    "BYHEART_LEARNING__IDLE_S": "0",
    "BYHEART_LEARNING__TICK_S": "0.2",
    "BYHEART_DISTILL__AUTO": "false",
}


class Served:
    """A running daemon."""

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
        """The parsed output of a `byheart` verb on this daemon's data."""
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
    return plain | IMPATIENT | {"BYHEART_STORE__DATA_DIR": str(folder)} | settings


@contextmanager
def daemon(
    folder: Path, settings: dict[str, str], timeout_s: float = 60, wait: bool = True
) -> Iterator[Served]:
    """Run `byheart serve` until left; ready when entered."""
    folder.mkdir(parents=True, exist_ok=True)
    logfile = folder / "test.log"
    with logfile.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "serve"],
            env=environment(folder, settings),
            stdout=output,
            stderr=output,
            # As in a terminal: under nohup it would be set aside.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
    served = Served(process, folder, logfile)
    try:
        if wait:
            until_sync(lambda: is_ready(served), timeout_s, logfile.read_text)
            served.model = served.http.get(f"{served.url}/v1/models").json()["data"][0]["id"]
        yield served
    finally:
        served.http.close()
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def is_ready(served: Served) -> bool:
    assert served.process.poll() is None, served.logfile.read_text()
    try:
        return served.http.get(f"{served.url}/readyz").status_code == 200
    except (httpx.TransportError, FileNotFoundError):
        return False
