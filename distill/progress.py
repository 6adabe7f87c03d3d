"""How a run shows itself: a bar on a terminal, plain lines elsewhere."""

import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[str, int, int, dict[str, float]], None]
"""Called with (stage, done, total, metrics) as a run goes on."""

GIB = 2**30
LINE_EVERY = 10
SHORT_S = 60.0
"""What takes no longer needs no estimate."""
ANCHORS_PASSED, PLAN, RESUME = "anchors that the teacher passes", "plan, steps", "go on after step"
"""What is told once: how many anchors can be passed; how many steps will be taken, and of a run
that was broken off, how many are."""
ONCE = (ANCHORS_PASSED, PLAN, RESUME)


class TerminalProgress:
    """A bar for each stage."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        """Move the stage's bar; a new stage completes the ones before it."""
        if stage not in self.tasks:
            for task in self.tasks.values():
                self.progress.update(task, completed=self.progress.tasks[task].total)
            self.tasks[stage] = self.progress.add_task(stage, total=total, numbers="")
        self.progress.update(
            self.tasks[stage], completed=done, total=total, numbers=numbers(metrics)
        )


def terminal_bars() -> Progress:
    """The bars' layout, on standard error."""
    return Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
    )


class PlainProgress:
    """A line at the start of a stage, at its end, and every few steps, on standard error.

    It has the time of day, and the minutes that the rest of the stage will take at its pace so far.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.begun: dict[str, tuple[float, int]] = {}

    def __call__(
        self, stage: str, done: int, total: int, metrics: dict[str, float] | None = None
    ) -> None:
        """Write the line of this step, if it has one."""
        if not (done in (0, 1, total) or done % LINE_EVERY == 0 or stage in ONCE):
            return
        now = self.clock()
        parts = [time.strftime("%H:%M:%S", time.localtime(now)), stage, f"{done}/{total}"]
        line = " ".join([*parts, numbers(metrics or {}), self._left(stage, done, total, now)])
        sys.stderr.write(" ".join(line.split()) + "\n")

    def _left(self, stage: str, done: int, total: int, now: float) -> str:
        begun, first = self.begun.setdefault(stage, (now, done))
        if stage in ONCE or done <= first or done >= total:
            return ""
        left = (now - begun) / (done - first) * (total - done)
        return f"({math.ceil(left / 60)} min left)" if left > SHORT_S else ""


def no_report(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """Show nothing: of several processes, the first speaks."""


def numbers(metrics: dict[str, float]) -> str:
    """Metrics on one line."""
    return " ".join(f"{name}={value:.3g}" for name, value in metrics.items())


@dataclass
class Meter:
    """Counts trained tokens from when it is made."""

    timer: Callable[[], float]
    """Seconds, monotonic."""
    tokens: int = 0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.timer()

    def count(self, tokens: int) -> dict[str, float]:
        """Add a step's completion tokens.

        Returns:
            tokens_per_s: Completion tokens a second so far, sampling and scoring included.
            peak_memory_gib: Of the accelerator, or else resident in this process.
        """
        self.tokens += tokens
        seconds = max(self.timer() - self.began, 1e-9)
        return {"tokens_per_s": self.tokens / seconds, "peak_memory_gib": peak_memory() / GIB}


def peak_memory() -> int:
    """Most bytes that were in use at once."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
