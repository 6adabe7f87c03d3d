"""Counting the requests of a version, so that a swap never pulls it from under one."""

import threading
import time

from agent.inflight import Inflight


def test_a_version_is_drained_when_its_last_request_ends() -> None:
    inflight = Inflight()
    with inflight.track("shop") as old, inflight.track("shop") as new:
        inflight.set_version(old, "bh-1")
        inflight.set_version(new, "bh-2")

        assert (inflight.in_use("bh-1"), inflight.count()) == (True, 2)
        assert not inflight.wait_drained("bh-1", 0.01)
        inflight.set_version(old, "bh-2")
        assert inflight.wait_drained("bh-1", 0.01)
        assert not inflight.in_use("bh-1")
    assert inflight.count() == 0


def test_a_request_that_has_not_chosen_yet_is_waited_for() -> None:
    inflight = Inflight()
    drained: list[bool] = []
    with inflight.track("shop") as undecided:
        swap = threading.Thread(target=lambda: drained.append(inflight.wait_drained("bh-1", 10)))
        swap.start()
        time.sleep(0.05)
        assert not drained
        inflight.set_version(undecided, "bh-1")
        time.sleep(0.05)
        assert not drained
    swap.join(10)

    assert drained == [True]


def test_a_version_that_a_request_may_still_take_is_in_use() -> None:
    inflight = Inflight()
    with inflight.track("shop") as undecided:
        assert inflight.in_use("bh-1")
        inflight.set_version(undecided, "base")
        assert not inflight.in_use("bh-1")


def test_other_namespaces_are_not_waited_for() -> None:
    inflight = Inflight()
    with inflight.track("shop") as theirs, inflight.track("bank"):
        inflight.set_version(theirs, "base")

        assert not inflight.wait_drained("base", 0, "shop")
        assert inflight.wait_drained("base", 0, "harbour")
        assert inflight.wait_drained("bh-1", 0, "shop")
        assert not inflight.wait_drained("bh-1", 0, "bank")
        assert inflight.in_use("base")
        assert not inflight.in_use("base", "harbour")


def test_requests_that_begin_after_the_flip_are_not_waited_for() -> None:
    inflight = Inflight()
    drained: list[bool] = []
    with inflight.track("shop") as old:
        inflight.set_version(old, "bh-1")
        swap = threading.Thread(target=lambda: drained.append(inflight.wait_drained("bh-1", 10)))
        swap.start()
        time.sleep(0.05)
        undecided = inflight.track("shop")
        undecided.__enter__()
    swap.join(10)
    undecided.__exit__(None, None, None)

    assert drained == [True]
