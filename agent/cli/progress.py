"""Shows progress by stage: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from agent.cli.options import console

LINE_EVERY_S = 30.0


class Show(Protocol):
    """Shows the current stage, how much of it is done, and its total."""

    def __call__(self, stage: str, done: float | None = None, total: float | None = None) -> None:
        """Show progress; another `stage` starts another stage."""
        ...


@contextmanager
def stages() -> Iterator[Show]:
    """Yield the progress display that suits standard output."""
    if console.is_terminal:
        with bars() as show:
            yield show
    else:
        yield Lines()


@contextmanager
def bars() -> Iterator[Show]:
    """Yield a display with one bar per stage, finished stages first."""
    from rich import progress  # slow to import, and only terminals need it

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console) as display:
        tasks: dict[str, progress.TaskID] = {}

        def show(stage: str, done: float | None = None, total: float | None = None) -> None:
            if stage not in tasks:
                for previous in tasks.values():
                    display.stop_task(previous)
                tasks[stage] = display.add_task(stage, total=total)
            display.update(tasks[stage], completed=done, total=total)

        yield show


class Lines:
    """Prints a line when a stage starts and ends, and every `LINE_EVERY_S` seconds."""

    def __init__(self) -> None:
        self._started_s = self._printed_s = time.monotonic()
        self._stage = self._amount = ""

    def __call__(self, stage: str, done: float | None = None, total: float | None = None) -> None:
        """Print a line if one is due."""
        now_s = time.monotonic()
        amount = f" {done:g}/{total:g}" if done is not None and total else ""
        ends = done and done == total and amount != self._amount
        if stage != self._stage or now_s - self._printed_s > LINE_EVERY_S or ends:
            console.print(f"{now_s - self._started_s:5.0f} s  {stage}{amount}", markup=False)
            self._stage, self._amount, self._printed_s = stage, amount, now_s
