"""The servers that `make bench-gateway` compares, each in a process of its own.

Behind each stands the same stub of a model server (engine_stub.py). LiteLLM is installed into a
virtual environment of its own, never into byheart's; it runs as its documentation starts it, with
one worker and without a database.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from tests.bench.engine_stub import MODEL

LITELLM = "litellm[proxy]==1.106.2"
ALONE = {
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
}
"""No key, as byheart has none on loopback, and no download at the start."""
START_S = 180.0
UNLOGGED = """
from agent.gateway.log.recorder import Recorder
async def discard(self, *arguments): pass
Recorder.record = Recorder.record_running = discard
from agent.__main__ import main
main()
"""
"""Starts byheart with logging disabled, to measure its cost; no setting of byheart does this."""


@dataclass(frozen=True)
class Target:
    """Something that answers chat requests."""

    name: str
    url: str
    process: int

    @property
    def memory_mib(self) -> float:
        """Resident memory of the process and what it started."""
        return sum(map(_resident_mib, _family(self.process)))


@contextmanager
def targets(folder: Path, only: Sequence[str] = ()) -> Iterator[list[Target]]:
    """The stub itself, byheart, byheart without its log, and LiteLLM; or only some of them."""
    with ExitStack() as stack:
        stub = stack.enter_context(_server("direct", folder, _stub, {}))
        engine = {"BYHEART_ENGINE__URLS": stub.url, "BYHEART_DISTILL__AUTO": "false"}

        def run(name: str, arguments: Sequence[str], settings: Mapping[str, str]) -> Target:
            def command(port: int) -> list[str]:
                return [word.format(port=port) for word in arguments]

            return stack.enter_context(_server(name, folder, command, settings))

        def byheart(name: str, *start: str) -> Target:
            settings = engine | {"BYHEART_STORE__DATA_DIR": str(folder / name)}
            prepare = [sys.executable, "-m", "agent", "db", "upgrade"]
            subprocess.run(
                prepare, env=os.environ | settings, check=True, stdout=subprocess.DEVNULL
            )
            return run(name, [sys.executable, *start, "serve", "--port", "{port}"], settings)

        others: dict[str, Callable[[], Target]] = {
            "byheart": lambda: byheart("byheart", "-m", "agent"),
            "byheart, no log": lambda: byheart("byheart, no log", "-c", UNLOGGED),
            "LiteLLM": lambda: run("LiteLLM", _litellm(folder, stub.url), ALONE),
        }
        yield [stub, *(start() for name, start in others.items() if name in (only or others))]


def _stub(port: int) -> list[str]:
    return [sys.executable, "-m", "tests.bench.engine_stub", "--port", str(port)]


def _litellm(folder: Path, engine: str) -> list[str]:
    """Its command line; installs it first where it is not there."""
    home = folder / "litellm"
    program = home / "bin" / "litellm"
    if not program.exists():
        print(f"installing {LITELLM} into {home}", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", LITELLM], check=True)
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{engine}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(
        json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": parameters}]})
    )
    arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", "{port}"]
    return [
        str(program),
        *arguments,
        "--num_workers",
        "1",
    ]


@contextmanager
def _server(
    name: str, folder: Path, command: Callable[[int], list[str]], settings: Mapping[str, str]
) -> Iterator[Target]:
    """Start a server and wait until it answers; ended on leaving."""
    port = _free_port()
    log = folder / f"{name.replace(', ', '-').replace(' ', '-')}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command(port), env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT
        )
    target = Target(name, f"http://127.0.0.1:{port}", process.pid)
    try:
        _await_ready(target, process, log)
        yield target
    finally:
        process.terminate()
        process.wait(60)


def _await_ready(target: Target, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{target.url}/v1/models", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{target.name} did not start; see {log}.")


def _free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _family(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(one for child in children for one in _family(int(child)))]


def _resident_mib(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
