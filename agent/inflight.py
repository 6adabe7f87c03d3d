"""Which requests are being answered by which version, so that a swap can wait for the old one.

A request enters before it looks up its version and takes the version after. One that has not taken
any yet may still take the old one, so it counts as a user of every version of its namespace until
it has. Its body is read before it enters: a slow upload holds nobody up. Thread-safe: requests run
in the event loop, the swap in a job.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Ticket:
    """One request being answered."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.version: str | None = None
        """The version that answers; None until it is chosen."""


class Inflight:
    """The requests being answered."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[Ticket] = set()

    @contextmanager
    def track(self, namespace: str) -> Iterator[Ticket]:
        """One request, from before its version is chosen to its end."""
        ticket = Ticket(namespace)
        with self._changed:
            self._open.add(ticket)
        try:
            yield ticket
        finally:
            with self._changed:
                self._open.discard(ticket)
                self._changed.notify_all()

    def set_version(self, ticket: Ticket, version: str) -> None:
        """Say which version answers a request."""
        with self._changed:
            ticket.version = version
            self._changed.notify_all()

    def count(self) -> int:
        """How many requests are being answered."""
        with self._changed:
            return len(self._open)

    def in_use(self, version: str, namespace: str | None = None) -> bool:
        """Whether a request is answered by `version`, or may still take it.

        Args:
            version: Name of an adapter, or `base`.
            namespace: Whose requests; None for those of all.
        """
        with self._changed:
            return bool(self._users(version, namespace))

    def wait_drained(self, version: str, timeout_s: float, namespace: str | None = None) -> bool:
        """Wait for the requests that use `version` or may still take it, but for no later ones.

        Args:
            version: Name of an adapter, or `base`.
            timeout_s: Longest wait, in seconds.
            namespace: Whose requests; None for those of all.

        Returns:
            False if some still use it after `timeout_s`.
        """
        with self._changed:
            before = self._users(version, namespace)
            return self._changed.wait_for(
                lambda: not before & self._users(version, namespace), timeout_s
            )

    def _users(self, version: str, namespace: str | None) -> set[Ticket]:
        return {
            ticket
            for ticket in self._open
            if namespace in (None, ticket.namespace) and ticket.version in (None, version)
        }
