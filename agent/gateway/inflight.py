"""Which requests are being answered by which version, so that a swap can wait for the old one.

A request enters before it looks up its version and takes the version after. A request that has not
taken one yet may still take the old one, so `wait_drained` waits for those too: once it returns
true, nothing that began before it will use the version. Thread-safe: requests run in the event
loop, the swap in a job.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Ticket:
    """One request being answered."""

    def __init__(self) -> None:
        self.version: str | None = None
        """The version that answers; None until it is chosen."""


class Inflight:
    """The requests being answered."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[Ticket] = set()

    @contextmanager
    def request(self) -> Iterator[Ticket]:
        """One request, from before its version is chosen to its end."""
        ticket = Ticket()
        with self._changed:
            self._open.add(ticket)
        try:
            yield ticket
        finally:
            with self._changed:
                self._open.discard(ticket)
                self._changed.notify_all()

    def take(self, ticket: Ticket, version: str) -> None:
        """Say which version answers a request."""
        with self._changed:
            ticket.version = version
            self._changed.notify_all()

    def count(self, version: str | None = None) -> int:
        """How many requests a version is answering; all of them for None."""
        with self._changed:
            return sum(version in (None, ticket.version) for ticket in self._open)

    def wait_drained(self, version: str, timeout_s: float) -> bool:
        """Wait until no request uses `version`; False if some still do after `timeout_s`."""
        with self._changed:
            undecided = {ticket for ticket in self._open if ticket.version is None}

            def drained() -> bool:
                return not any(
                    ticket.version == version or (ticket.version is None and ticket in undecided)
                    for ticket in self._open
                )

            return self._changed.wait_for(drained, timeout_s)
