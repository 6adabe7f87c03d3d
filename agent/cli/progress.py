"""Progress of something long, stage by stage: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from agent.cli.options import console

LINE_EVERY_S = 30.0


class Show(Protocol):
    """Says what is going on, how much of it is done, and of how much."""

    def __call__(self, what: str, done: float | None = None, total: float | None = None) -> None:
        """Show it; a new `what` is a new stage."""
        ...


@contextmanager
def stages() -> Iterator[Show]:
    """How to show stages here."""
    if console.is_terminal:
        with bars() as show:
            yield show
    else:
        yield Lines()


@contextmanager
def bars() -> Iterator[Show]:
    """One bar for each stage, the finished ones above the running one."""
    from rich import progress  # for who looks on alone: the daemon does without

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console) as shown:
        tasks: dict[str, progress.TaskID] = {}

        def show(what: str, done: float | None = None, total: float | None = None) -> None:
            if what not in tasks:
                for before in tasks.values():
                    shown.stop_task(before)
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield show


class Lines:
    """A line at the start of a stage, at its end, and now and then between."""

    def __init__(self) -> None:
        self._began_s = self._said_s = time.monotonic()
        self._what = self._amount = ""

    def __call__(self, what: str, done: float | None = None, total: float | None = None) -> None:
        """Say it where it is news."""
        now_s = time.monotonic()
        amount = f" {done:g}/{total:g}" if done is not None and total else ""
        ends = done and done == total and amount != self._amount
        if what != self._what or now_s - self._said_s > LINE_EVERY_S or ends:
            console.print(f"{now_s - self._began_s:5.0f} s  {what}{amount}", markup=False)
            self._what, self._amount, self._said_s = what, amount, now_s
