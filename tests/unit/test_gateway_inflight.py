"""Requests in flight by version, and waiting until a version is drained."""

import contextlib
import threading

from agent.inflight import Inflight, Ticket
from tests.support.until import until_sync


class Swap:
    """A swap that waits, in a thread, until a version is drained."""

    def __init__(self, inflight: Inflight, version: str) -> None:
        self.drained: bool | None = None
        self._looks: list[set[Ticket]] = []
        self._in_use = inflight._users
        inflight._users = self._look  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._wait, args=(inflight, version))
        self._thread.start()

    def users(self, look: int) -> set[Ticket]:
        """The version's users that it saw when it looked for the n-th time."""
        until_sync(lambda: len(self._looks) >= look)
        return self._looks[look - 1]

    def join(self) -> bool | None:
        self._thread.join(10)
        return self.drained

    def _look(self, version: str, namespace: str | None) -> set[Ticket]:
        self._looks.append(self._in_use(version, namespace))
        return self._looks[-1]

    def _wait(self, inflight: Inflight, version: str) -> None:
        self.drained = inflight.wait_drained(version, 10)


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


def test_draining_waits_for_requests_that_have_not_chosen_a_version() -> None:
    inflight = Inflight()
    with inflight.track("shop") as undecided:
        swap = Swap(inflight, "bh-1")
        assert swap.users(look=2) == {undecided}  # the first look was for whom to wait
        inflight.set_version(undecided, "bh-1")
        assert swap.users(look=3) == {undecided}
        assert swap.drained is None

    assert swap.join() is True


def test_a_version_is_in_use_while_an_undecided_request_may_choose_it() -> None:
    inflight = Inflight()
    with inflight.track("shop") as undecided:
        assert inflight.in_use("bh-1")
        inflight.set_version(undecided, "base")
        assert not inflight.in_use("bh-1")


def test_draining_does_not_wait_for_other_namespaces() -> None:
    inflight = Inflight()
    with inflight.track("shop") as theirs, inflight.track("bank"):
        inflight.set_version(theirs, "base")

        assert not inflight.wait_drained("base", 0, "shop")
        assert inflight.wait_drained("base", 0, "harbour")
        assert inflight.wait_drained("bh-1", 0, "shop")
        assert not inflight.wait_drained("bh-1", 0, "bank")
        assert inflight.in_use("base")
        assert not inflight.in_use("base", "harbour")


def test_draining_does_not_wait_for_requests_that_start_after_the_swap() -> None:
    inflight = Inflight()
    with contextlib.ExitStack() as later:
        with inflight.track("shop") as old:
            inflight.set_version(old, "bh-1")
            swap = Swap(inflight, "bh-1")
            assert swap.users(look=2) == {old}
            later.enter_context(inflight.track("shop"))

        assert swap.join() is True
