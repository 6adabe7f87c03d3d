"""`Supervisor`: starts vLLM as a guarded child process, restarts it when it exits, and stops it.

    starting -> ready -> restarting -> ready ...     stopped: by `stop`
            \\-> failed    \\-> failed: too many crashes within the window

vLLM counts as ready once it has generated a token. It forgets its adapters on a restart, so `watch`
calls `on_restart` before the state becomes ready again. vLLM's output goes to `logs/engine.log`,
that of the previous process to `engine.log.1`; errors quote the lines that explain the failure.
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
STOP_GRACE_S = 10.0
LOG_TAIL_BYTES = 2**16
EXCERPT_LINES = 12
EXCERPT_ERRORS = 3
ERROR_LINE = re.compile(r"\b\w*(?:Error|Exception): \S")
STAGES = (
    ("non-default args", "reading the model's configuration"),
    ("Initializing a V1 LLM engine", "starting the engine process"),
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "warming up"),
    ("init engine", "opening the server"),
    ("Application startup complete", "generating a first token"),
)
"""Markers in vLLM's log, in order, each with the stage that begins there."""


class EngineFailed(Exception):
    """vLLM did not start, or crashed too often; the message quotes its log."""


class State(enum.StrEnum):
    """The state of the supervised engine."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class RestartPolicy:
    """When `watch` restarts vLLM, and when it gives up."""

    initial_backoff_s: float = 1.0
    """Pause before a restart; doubles with each crash within the window."""
    max_backoff_s: float = 30.0
    max_crashes: int = 5
    """Gives up at this many crashes within the window."""
    window_s: float = 900.0


class Supervisor:
    """One supervised vLLM; `engine` is its client, usable once vLLM is ready."""

    def __init__(
        self,
        settings: Engine,
        model: Path,
        name: str,
        data_dir: Path,
        *,
        launcher: Sequence[str] = (),
        restarts: RestartPolicy | None = None,
    ) -> None:
        """`launcher` replaces vLLM's own command, up to the model."""
        self.state = State.STOPPED
        self.name = name
        self.api_key = secrets.token_urlsafe(32)
        self.logfile = data_dir / "logs" / "engine.log"
        self._settings = settings
        self._model = model
        self._launcher = tuple(launcher)
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
        """The URL that the server listens on."""
        return f"unix://{self._socket}"

    @property
    def is_ready(self) -> bool:
        """Whether vLLM is ready for requests."""
        return self.state is State.READY

    async def start(self, report: Report) -> None:
        """Start vLLM and wait until it has generated a token.

        Raises:
            EngineFailed: It exited, or was not ready within `engine.start_timeout_s`.
            VllmNotInstalled: vLLM is not installed.
        """
        self.state = State.STARTING
        await self._launch(report)
        self.state = State.READY
        log.info("engine ready", model=self.name)

    async def watch(self, on_restart: Callable[[], Awaitable[None]]) -> None:
        """Restart vLLM when it exits, until `stop`; `on_restart` reloads the adapters.

        Raises:
            EngineFailed: Too many crashes; the state is `failed`.
        """
        crashes: list[float] = []
        while await self._exited_unexpectedly():
            now = time.monotonic()
            recent = [at for at in crashes if now - at < self._restarts.window_s]
            crashes = [*recent, now]
            if len(crashes) >= self._restarts.max_crashes:
                self.state = State.FAILED
                raise EngineFailed(f"vLLM crashed {len(crashes)} times.\n{self.log_excerpt()}")
            self.state = State.RESTARTING
            log.warning("engine exited", crashes=len(crashes), log_excerpt=self.log_excerpt())
            await asyncio.sleep(self._backoff_s(len(crashes)))
            if self.state is State.RESTARTING:
                await self._restart(on_restart)

    async def stop(self) -> None:
        """Stop vLLM for good: SIGTERM, SIGKILL after a grace period; remove its socket folder."""
        self.state = State.STOPPED
        await self._end()
        await self.engine.close()
        shutil.rmtree(self._socket.parent, ignore_errors=True)

    def log_excerpt(self) -> str:
        """Return the lines of the log that explain why vLLM exited."""
        if not self.logfile.exists():
            return ""
        with self.logfile.open("rb") as file:
            file.seek(max(0, self.logfile.stat().st_size - LOG_TAIL_BYTES))
            return log_excerpt(file.read().decode(errors="replace"))

    async def _exited_unexpectedly(self) -> bool:
        """Wait for the process to exit; return False if `stop` ended it."""
        if self._process:
            await self._process.wait()
        return self.state is not State.STOPPED

    async def _restart(self, on_restart: Callable[[], Awaitable[None]]) -> None:
        """Try once to restart; a failed attempt leaves no process and counts as a crash."""
        try:
            await self._launch(lambda stage: log.info("engine restarting", stage=stage))
            await on_restart()
        except EngineFailed:
            return
        except Exception as error:  # noqa: BLE001 — boundary: the base can still answer
            log.warning("adapters not reloaded after restart", error=repr(error))
        if self.state is State.RESTARTING:
            self.state = State.READY

    def _backoff_s(self, crashes: int) -> float:
        backoff_s = self._restarts.initial_backoff_s * 2.0 ** (crashes - 1)
        return min(backoff_s, self._restarts.max_backoff_s)

    async def _launch(self, report: Report) -> None:
        """Start the process and wait until it is ready; a failed attempt leaves no process."""
        try:
            self._process = await self._spawn()
            async with asyncio.timeout(self._settings.start_timeout_s):
                await self._wait_ready(self._process, report)
        except TimeoutError as error:
            await self._fail()
            message = f"vLLM was not ready after {self._settings.start_timeout_s:.0f} s."
            raise EngineFailed(f"{message}\n{self.log_excerpt()}") from error
        except BaseException:
            await self._fail()
            raise

    async def _spawn(self) -> asyncio.subprocess.Process:
        launch.clear_sockets(self._socket.parent)
        self.logfile.parent.mkdir(parents=True, exist_ok=True)
        if self.logfile.exists():
            self.logfile.replace(self.logfile.with_suffix(".log.1"))
        cpu = not self._launcher and launch.is_cpu_build()
        launcher = self._launcher or launch.launcher(
            cpu, CPUINFO.read_text(), self._settings.gpu_memory_utilization
        )
        command = launch.command(self._settings, self._model, self.name, self._socket, launcher)
        with self.logfile.open("wb") as output:
            # Not in our own directory: vLLM would import our `config` or `store` packages.
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", guard.__file__, "--grace", str(STOP_GRACE_S), "--"),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._socket.parent,
                env=launch.environment(self._settings, self.api_key, cpu, os.environ),
            )

    async def _wait_ready(self, process: asyncio.subprocess.Process, report: Report) -> None:
        """Poll until vLLM generates a token; report each stage of its start."""
        stage = "starting vLLM"
        report(stage)
        while not await self._generates():
            if process.returncode is not None:
                raise EngineFailed(
                    f"vLLM exited with code {process.returncode}.\n{self.log_excerpt()}"
                )
            reached = current_stage(self.logfile.read_text(errors="replace")) or stage
            if reached != stage:
                stage = reached
                report(stage)
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
        """End the process and its descendants; the guard enforces the deadline."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        await process.wait()


def current_stage(logged: str) -> str | None:
    """Return the stage of vLLM's start, from its log so far."""
    reached = [stage for marker, stage in STAGES if marker in logged]
    return reached[-1] if reached else None


def log_excerpt(logged: str) -> str:
    """Return the last lines, preceded by earlier errors: the last line seldom names the cause."""
    lines = [line for line in logged.splitlines() if line.strip()]
    earlier, last = lines[:-EXCERPT_LINES], lines[-EXCERPT_LINES:]
    errors = dict.fromkeys(line for line in earlier if ERROR_LINE.search(line))
    return "\n".join([*list(errors)[-EXCERPT_ERRORS:], *last])
