"""Turns at what is shared."""

import asyncio

import pytest

from agent.gateway.access.limits import Slots
from agent.gateway.errors import RequestError

pytestmark = pytest.mark.anyio


async def hold(slots: Slots, caller: str, done: asyncio.Event, log: list[str]) -> None:
    async with slots.of(caller):
        log.append(caller)
        await done.wait()


async def test_a_caller_waits_for_its_own_and_nobody_for_anothers() -> None:
    slots, done, log = Slots(each=2), asyncio.Event(), []
    tasks = [asyncio.ensure_future(hold(slots, "ann", done, log)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(hold(slots, "bob", done, log)))
    await asyncio.sleep(0)
    assert log == ["ann", "ann", "bob"]
    done.set()
    await asyncio.gather(*tasks)
    assert log == ["ann", "ann", "bob", "ann", "ann", "ann"]


async def test_more_of_a_caller_than_may_wait_are_refused_until_some_are_done() -> None:
    slots, done, log = Slots(each=1, most_waiting=2), asyncio.Event(), []
    tasks = [asyncio.ensure_future(hold(slots, "ann", done, log)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as refused:
        await hold(slots, "ann", done, log)
    assert refused.value.status == 429
    done.set()
    await asyncio.gather(*tasks)
    await hold(slots, "ann", done, log)
    assert len(log) == 3


async def test_who_stops_waiting_takes_no_slot() -> None:
    slots, done, log = Slots(each=1), asyncio.Event(), []
    first = asyncio.ensure_future(hold(slots, "ann", done, log))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(hold(slots, "ann", done, log))
    await asyncio.sleep(0)
    second.cancel()
    done.set()
    await first
    await hold(slots, "ann", done, log)
    assert log == ["ann", "ann"]
