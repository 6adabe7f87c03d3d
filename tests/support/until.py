"""`until()` and `until_sync()`: wait for a condition, up to a deadline."""

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

TIMEOUT_S = 30.0
POLL_S = 0.01


async def until(condition: Callable[[], Any | Awaitable[Any]], timeout_s: float = TIMEOUT_S) -> Any:
    """Poll until the condition, which may be asynchronous, is true; returns its value."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {timeout_s} s"
        await anyio.sleep(POLL_S)


def until_sync(
    condition: Callable[[], Any],
    timeout_s: float = TIMEOUT_S,
    explain: Callable[[], str] = lambda: "",
) -> Any:
    """Poll until the condition is true; returns its value.

    Args:
        condition: What is waited for.
        timeout_s: The longest wait.
        explain: Says more about a failure, such as a log's text.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {timeout_s} s\n{explain()}"
        time.sleep(POLL_S)
    return value
