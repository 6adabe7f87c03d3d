"""Orderly shutdown: a signal sets an event, and the coroutines here stop when it is set."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def shutdown_signals() -> Iterator[asyncio.Event]:
    """Return an event that SIGTERM, SIGINT or SIGHUP sets; the handler does nothing else.

    SIGHUP stays ignored under nohup.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handled = [number for number in SIGNALS if not (is_nohup and number is signal.SIGHUP)]
    for number in handled:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


async def run_unless_stopped(stop: asyncio.Event, step: Coroutine[Any, Any, T]) -> T | None:
    """Return the coroutine's result, or None if `stop` was set first and it was cancelled."""
    task = asyncio.ensure_future(step)
    await wait_or_cancel(task, stop)
    return None if task.cancelled() else task.result()


async def wait_or_cancel(task: "asyncio.Future[Any]", stop: asyncio.Event) -> None:
    """Wait for the task; if `stop` is set first, cancel it and wait until it has cleaned up."""
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def sleep_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but return as soon as `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
