"""Counting the requests of a version, so that a swap never pulls it from under one."""

import threading
import time

from agent.gateway.inflight import Inflight


def test_a_version_is_drained_when_its_last_request_ends() -> None:
    inflight = Inflight()
    with inflight.request() as old, inflight.request() as new:
        inflight.take(old, "bh-1")
        inflight.take(new, "bh-2")

        assert (inflight.count("bh-1"), inflight.count()) == (1, 2)
        assert not inflight.wait_drained("bh-1", 0.01)
        inflight.take(old, "bh-2")
        assert inflight.wait_drained("bh-1", 0.01)
    assert inflight.count() == 0


def test_a_request_that_has_not_chosen_yet_is_waited_for() -> None:
    inflight = Inflight()
    drained: list[bool] = []
    with inflight.request() as undecided:
        swap = threading.Thread(target=lambda: drained.append(inflight.wait_drained("bh-1", 10)))
        swap.start()
        time.sleep(0.05)
        assert not drained
        inflight.take(undecided, "bh-1")
        time.sleep(0.05)
        assert not drained
    swap.join(10)

    assert drained == [True]


def test_requests_that_begin_after_the_flip_are_not_waited_for() -> None:
    inflight = Inflight()
    drained: list[bool] = []
    with inflight.request() as old:
        inflight.take(old, "bh-1")
        swap = threading.Thread(target=lambda: drained.append(inflight.wait_drained("bh-1", 10)))
        swap.start()
        time.sleep(0.05)
        undecided = inflight.request()
        undecided.__enter__()
    swap.join(10)
    undecided.__exit__(None, None, None)

    assert drained == [True]
