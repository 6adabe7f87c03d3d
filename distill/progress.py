"""How a run shows itself: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

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

LINE_EVERY = 10
PASSED, PLAN, RESUME = "anchors that the teacher passes", "plan, steps", "go on after step"
"""What is told once: how many anchors can be passed; how many steps will be taken, and of a run
that was broken off, how many are."""


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


def plain_lines(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """A line at the start of a stage, at its end, and every few steps; with the time of day."""
    if done in (0, 1, total) or done % LINE_EVERY == 0 or stage in (PASSED, PLAN, RESUME):
        line = f"{time.strftime('%H:%M:%S')} {stage} {done}/{total} {numbers(metrics)}"
        _write(line.rstrip(), sys.stderr)


def unheard(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """Show nothing: of several processes, the first speaks."""


def numbers(metrics: dict[str, float]) -> str:
    """Metrics on one line."""
    return " ".join(f"{name}={value:.3g}" for name, value in metrics.items())


def _write(line: str, stream: TextIO) -> None:
    stream.write(line + "\n")
    stream.flush()
