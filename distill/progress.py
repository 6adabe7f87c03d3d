"""Progress of a run: bars on a terminal, plain lines elsewhere, and the throughput meter."""

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
"""Called with (stage, done, total, metrics) as a run proceeds."""

GIB = 2**30
LINE_EVERY = 10
SHORT_S = 60.0
"""Shorter remaining times are not estimated."""
ANCHORS_PASSED = "anchors passed by the teacher"
PLAN = "planned steps"
RESUME = "resume after step"
ONCE = (ANCHORS_PASSED, PLAN, RESUME)
"""Stages that are reported once, as a count: they have no duration."""


class TerminalProgress:
    """Shows one bar per stage."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        """Advance the stage's bar; a new stage completes all earlier ones."""
        if stage not in self.tasks:
            for task in self.tasks.values():
                self.progress.update(task, completed=self.progress.tasks[task].total)
            self.tasks[stage] = self.progress.add_task(stage, total=total, numbers="")
        self.progress.update(
            self.tasks[stage], completed=done, total=total, numbers=format_metrics(metrics)
        )


def terminal_bars() -> Progress:
    """Return the layout of the bars, on standard error."""
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
    """Writes a line at the start and end of a stage and every few steps, on standard error.

    A line has the time of day and the estimated minutes that are left of the stage.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.started: dict[str, tuple[float, int]] = {}

    def __call__(
        self, stage: str, done: int, total: int, metrics: dict[str, float] | None = None
    ) -> None:
        """Write a line for this step if one is due."""
        if not (done in (0, 1, total) or done % LINE_EVERY == 0 or stage in ONCE):
            return
        now = self.clock()
        fields = [time.strftime("%H:%M:%S", time.localtime(now)), stage, f"{done}/{total}"]
        line = " ".join(
            [*fields, format_metrics(metrics or {}), self._time_left(stage, done, total, now)]
        )
        sys.stderr.write(" ".join(line.split()) + "\n")

    def _time_left(self, stage: str, done: int, total: int, now: float) -> str:
        started, first = self.started.setdefault(stage, (now, done))
        if stage in ONCE or done <= first or done >= total:
            return ""
        seconds = (now - started) / (done - first) * (total - done)
        return f"({math.ceil(seconds / 60)} min left)" if seconds > SHORT_S else ""


def no_report(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """Report nothing; for processes other than the main one."""


def format_metrics(metrics: dict[str, float]) -> str:
    """Format metrics on one line."""
    return " ".join(f"{name}={value:.3g}" for name, value in metrics.items())


@dataclass
class Meter:
    """Measures training throughput from its creation on."""

    timer: Callable[[], float]
    """Seconds, monotonic."""
    tokens: int = 0
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.timer()

    def count(self, tokens: int) -> dict[str, float]:
        """Add a step's completion tokens.

        Returns:
            tokens_per_s: Completion tokens per second so far, sampling and scoring included.
            peak_memory_gib: Peak memory of the accelerator, or of this process without one.
        """
        self.tokens += tokens
        seconds = max(self.timer() - self.started, 1e-9)
        return {"tokens_per_s": self.tokens / seconds, "peak_memory_gib": peak_memory() / GIB}


def peak_memory() -> int:
    """Return the peak number of bytes in use."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
