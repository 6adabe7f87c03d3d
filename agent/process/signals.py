"""Ending in order: a signal sets an event, and what is in hand finishes, or is cut short."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def shutdown_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM, SIGINT or a terminal's end sets; what follows is outside the handler.

    SIGHUP that nohup has set aside stays so.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heeded = [number for number in SIGNALS if not (is_nohup and number is signal.SIGHUP)]
    for number in heeded:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


async def run_unless_stopped(stop: asyncio.Event, step: Coroutine[Any, Any, T]) -> T | None:
    """The step's result; None where `stop` was set first, and the step has cleaned up after it."""
    task = asyncio.ensure_future(step)
    await wait_or_cancel(task, stop)
    return None if task.cancelled() else task.result()


async def wait_or_cancel(task: "asyncio.Future[Any]", stop: asyncio.Event) -> None:
    """Wait for the task; on `stop`, cancel it and wait for it to clean up."""
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def sleep_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, or return at once when `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
