"""Limits on concurrent work, by caller and in total."""

import asyncio

import pytest
from anyio.lowlevel import checkpoint

from agent.gateway.access.fair_share import ByteBudget, FairShare
from agent.gateway.errors import RequestError

pytestmark = pytest.mark.anyio


async def hold(share: FairShare, caller: str, done: asyncio.Event, log: list[str]) -> None:
    async with share.slot(caller):
        log.append(caller)
        await done.wait()


async def test_a_caller_waits_for_its_own_operations_and_not_for_those_of_others() -> None:
    share, done, log = FairShare(per_caller=2), asyncio.Event(), []
    tasks = [asyncio.ensure_future(hold(share, "ann", done, log)) for _ in range(5)]
    await checkpoint()
    tasks.append(asyncio.ensure_future(hold(share, "bob", done, log)))
    await checkpoint()
    assert log == ["ann", "ann", "bob"]
    done.set()
    await asyncio.gather(*tasks)
    assert log == ["ann", "ann", "bob", "ann", "ann", "ann"]


async def test_a_caller_over_its_pending_limit_is_rejected_until_operations_end() -> None:
    share, done, log = FairShare(per_caller=1, max_pending_per_caller=2), asyncio.Event(), []
    tasks = [asyncio.ensure_future(hold(share, "ann", done, log)) for _ in range(2)]
    await checkpoint()
    with pytest.raises(RequestError) as refused:
        await hold(share, "ann", done, log)
    assert (refused.value.status, refused.value.code) == (429, "too_many_at_once")
    done.set()
    await asyncio.gather(*tasks)
    await hold(share, "ann", done, log)
    assert len(log) == 3


async def test_a_cancelled_wait_takes_no_slot() -> None:
    share, done, log = FairShare(per_caller=1), asyncio.Event(), []
    first = asyncio.ensure_future(hold(share, "ann", done, log))
    await checkpoint()
    second = asyncio.ensure_future(hold(share, "ann", done, log))
    await checkpoint()
    second.cancel()
    done.set()
    await first
    await hold(share, "ann", done, log)
    assert log == ["ann", "ann"]


async def test_operations_over_the_total_wait_in_order_of_arrival() -> None:
    share, done, log = FairShare(total=2, per_caller=1), asyncio.Event(), []
    callers = ["ann", "bob", "cem", "dan"]
    tasks = [asyncio.ensure_future(hold(share, caller, done, log)) for caller in callers]
    await checkpoint()
    assert log == ["ann", "bob"]
    done.set()
    await asyncio.gather(*tasks)
    assert log == callers


async def test_a_share_without_a_limit_per_caller_rejects_no_operation() -> None:
    share, done, log = FairShare(total=1), asyncio.Event(), []
    tasks = [asyncio.ensure_future(hold(share, "ann", done, log)) for _ in range(100)]
    await checkpoint()
    assert log == ["ann"]
    done.set()
    await asyncio.gather(*tasks)
    assert log == ["ann"] * 100


async def test_a_caller_slot_may_outlast_the_total_slot() -> None:
    share, done, log = FairShare(total=1, per_caller=1), asyncio.Event(), []
    done.set()
    async with share.caller_slot("ann"):
        async with share.total_slot():
            pass
        await hold(share, "bob", done, log)
        waiting = asyncio.ensure_future(hold(share, "ann", done, log))
        await checkpoint()
        assert log == ["bob"]
    await waiting
    assert log == ["bob", "ann"]


async def test_bytes_are_limited_for_a_caller_and_in_total_until_they_are_released() -> None:
    budget = ByteBudget(total=10, per_caller=6)
    with budget.reservation("ann") as ann, budget.reservation("bob") as bob:
        ann(6)
        with pytest.raises(RequestError) as of_ann:
            ann(1)
        with pytest.raises(RequestError) as of_all:
            bob(4)
    assert (of_ann.value.status, of_all.value.status) == (429, 503)
    with budget.reservation("ann") as ann:
        ann(6)


def test_two_reservations_of_a_caller_share_its_limit() -> None:
    budget = ByteBudget(total=10, per_caller=6)
    with budget.reservation("ann") as first, budget.reservation("ann") as second:
        first(3)
        second(3)
        with pytest.raises(RequestError):
            second(1)
