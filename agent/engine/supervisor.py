"""`Supervisor`: starts vLLM as a guarded child, waits until it generates, restarts it, ends it.

    starting -> ready -> restarting -> ready ...     stopped: by us
            \\-> failed    \\-> failed: too many crashes in a while

vLLM forgets its adapters when it restarts, so `watch` calls `on_restart` before it says ready
again. Its output goes to `logs/engine.log`, with the run before it in `engine.log.1`; whoever has
to read about a failure gets its last lines.
"""

import asyncio
import enum
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.engine import launch
from agent.engine.client import VllmEngine
from agent.engine.errors import EngineError
from agent.process import guard
from config.sections import Engine

log = structlog.get_logger(__name__)

Report = Callable[[str], None]
CPUINFO = Path("/proc/cpuinfo")
POLL_S = 0.2
GRACE_S = 10.0
LOOKED_AT_BYTES = 2**16
QUOTED_LINES = 12
QUOTED_CAUSES = 3
CAUSE = re.compile(r"\b\w*(?:Error|Exception): \S")
PHASES = (
    ("non-default args", "reading the model's configuration"),
    ("Initializing a V1 LLM engine", "starting the engine process"),
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "warming up"),
    ("init engine", "opening the server"),
    ("Application startup complete", "generating a first token"),
)
"""What vLLM logs, in order, and what it is doing from then on."""


class EngineFailed(Exception):
    """vLLM did not start, or crashed too often; the message has its last lines."""


class State(enum.StrEnum):
    """What the engine is doing."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class RestartPolicy:
    """How patient `watch` is."""

    initial_backoff_s: float = 1.0
    """Doubles with each crash in the window."""
    max_backoff_s: float = 30.0
    max_crashes: int = 5
    """So many within the window and it gives up."""
    window_s: float = 900.0


class Supervisor:
    """One supervised vLLM; `engine` is a client of it, usable once it is ready."""

    def __init__(
        self,
        settings: Engine,
        model: Path,
        name: str,
        data_dir: Path,
        *,
        start: Sequence[str] = (),
        restarts: RestartPolicy | None = None,
    ) -> None:
        """`start` replaces vLLM's own command, up to the model."""
        self.state = State.STOPPED
        self.name = name
        self.api_key = secrets.token_urlsafe(32)
        self.logfile = data_dir / "logs" / "engine.log"
        self._settings = settings
        self._model = model
        self._start = tuple(start)
        self._restarts = restarts or RestartPolicy()
        self._socket = launch.socket_directory(data_dir) / "vllm.sock"
        self._process: asyncio.subprocess.Process | None = None
        self.engine = VllmEngine(
            [self.url],
            api_key=self.api_key,
            first_byte_timeout_s=settings.first_byte_timeout_s,
        )

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"unix://{self._socket}"

    @property
    def is_ready(self) -> bool:
        """Whether requests can be sent."""
        return self.state is State.READY

    async def start(self, report: Report) -> None:
        """Start vLLM and wait until it has generated a token.

        Raises:
            EngineFailed: It exited, or took longer than `engine.start_timeout_s`.
            VllmNotInstalled: vLLM is not installed.
        """
        self.state = State.STARTING
        await self._launch(report)
        self.state = State.READY
        log.info("engine ready", model=self.name)

    async def watch(self, on_restart: Callable[[], Awaitable[None]]) -> None:
        """Keep a started vLLM running until `stop`; `on_restart` gives a new one its adapters.

        Raises:
            EngineFailed: Too many crashes; the state is `failed`.
        """
        crashes: list[float] = []
        while await self._gone():
            now = time.monotonic()
            crashes = [then for then in crashes if now - then < self._restarts.window_s] + [now]
            if len(crashes) >= self._restarts.max_crashes:
                self.state = State.FAILED
                raise EngineFailed(f"vLLM crashed {len(crashes)} times.\n{self.log_excerpt()}")
            self.state = State.RESTARTING
            log.warning("engine exited", crashes=len(crashes), log_excerpt=self.log_excerpt())
            await asyncio.sleep(self._pause_s(len(crashes)))
            if self.state is State.RESTARTING:
                await self._restart(on_restart)

    async def stop(self) -> None:
        """End vLLM for good: asked first, killed after a grace. Its socket's folder goes too."""
        self.state = State.STOPPED
        await self._end()
        await self.engine.close()
        shutil.rmtree(self._socket.parent, ignore_errors=True)

    def log_excerpt(self) -> str:
        """The lines of the log that say why it ended."""
        if not self.logfile.exists():
            return ""
        with self.logfile.open("rb") as file:
            file.seek(max(0, self.logfile.stat().st_size - LOOKED_AT_BYTES))
            return log_excerpt(file.read().decode(errors="replace"))

    async def _gone(self) -> bool:
        """Wait for the process to exit; false when that was our doing."""
        if self._process:
            await self._process.wait()
        return self.state is not State.STOPPED

    async def _restart(self, on_restart: Callable[[], Awaitable[None]]) -> None:
        """One attempt; one that fails leaves no process, which `watch` sees as a crash."""
        try:
            await self._launch(lambda phase: log.info("engine restarting", phase=phase))
            await on_restart()
        except EngineFailed:
            return
        except Exception as error:  # noqa: BLE001 — boundary: an engine without adapters answers too
            log.warning("engine not restored", error=repr(error))
        if self.state is State.RESTARTING:
            self.state = State.READY

    def _pause_s(self, crashes: int) -> float:
        doubled_s = self._restarts.initial_backoff_s * 2.0 ** (crashes - 1)
        return min(doubled_s, self._restarts.max_backoff_s)

    async def _launch(self, report: Report) -> None:
        """Start the process and wait for it; when it fails, nothing of it is left."""
        try:
            self._process = await self._spawn()
            async with asyncio.timeout(self._settings.start_timeout_s):
                await self._wait_ready(self._process, report)
        except TimeoutError as error:
            await self._fail()
            waited = f"vLLM was not ready after {self._settings.start_timeout_s:.0f} s."
            raise EngineFailed(f"{waited}\n{self.log_excerpt()}") from error
        except BaseException:
            await self._fail()
            raise

    async def _spawn(self) -> asyncio.subprocess.Process:
        launch.clear_sockets(self._socket.parent)
        self.logfile.parent.mkdir(parents=True, exist_ok=True)
        if self.logfile.exists():
            self.logfile.replace(self.logfile.with_suffix(".log.1"))
        cpu = not self._start and launch.is_cpu_build()
        start = self._start or launch.launcher(
            cpu, CPUINFO.read_text(), self._settings.gpu_memory_utilization
        )
        command = launch.command(self._settings, self._model, self.name, self._socket, start)
        with self.logfile.open("wb") as output:
            # Not from our own folder: vLLM would import `config` or `store` from it.
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", guard.__file__, "--grace", str(GRACE_S), "--"),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._socket.parent,
                env=launch.environment(self._settings, self.api_key, cpu, os.environ),
            )

    async def _wait_ready(self, process: asyncio.subprocess.Process, report: Report) -> None:
        """Poll until a token comes, naming the phase whenever it changes."""
        phase = "starting vLLM"
        report(phase)
        while not await self._generates():
            if process.returncode is not None:
                raise EngineFailed(
                    f"vLLM exited with code {process.returncode}.\n{self.log_excerpt()}"
                )
            reached = current_phase(self.logfile.read_text(errors="replace")) or phase
            if reached != phase:
                phase = reached
                report(phase)
            await asyncio.sleep(POLL_S)

    async def _generates(self) -> bool:
        try:
            if await self.engine.is_healthy():
                await self.engine.complete("Hello", self.name, max_tokens=1)
                return True
        except EngineError as error:
            log.debug("engine not ready", error=str(error))
        return False

    async def _fail(self) -> None:
        if self.state is State.STARTING:
            self.state = State.FAILED
        await self._end()

    async def _end(self) -> None:
        """End the process and all that it started; the guard sees to its own deadline."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        await process.wait()


def current_phase(logged: str) -> str | None:
    """What vLLM is doing, from what it has logged so far."""
    reached = [phase for marker, phase in PHASES if marker in logged]
    return reached[-1] if reached else None


def log_excerpt(logged: str) -> str:
    """The last lines, and before them the errors: the server's end is seldom its cause."""
    lines = [line for line in logged.splitlines() if line.strip()]
    earlier, last = lines[:-QUOTED_LINES], lines[-QUOTED_LINES:]
    causes = dict.fromkeys(line for line in earlier if CAUSE.search(line))
    return "\n".join([*list(causes)[-QUOTED_CAUSES:], *last])
