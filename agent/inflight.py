"""Track which version answers each request in progress, so that a swap can drain the old one.

A request is tracked from before it looks up its version. Until its version is set it may still get
the old one, so it counts as a user of every version of its namespace. Tracking starts after the
body has been read: a slow upload delays no swap. Thread-safe: requests run in the event loop, the
swap in a job.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Ticket:
    """One request in progress."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.version: str | None = None
        """The version that answers; None until it is chosen."""


class Inflight:
    """The requests in progress."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[Ticket] = set()

    @contextmanager
    def track(self, namespace: str) -> Iterator[Ticket]:
        """Track a request from before its version is chosen until the context is left."""
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
        """Set the version that answers a request."""
        with self._changed:
            ticket.version = version
            self._changed.notify_all()

    def count(self) -> int:
        """Return the number of requests in progress."""
        with self._changed:
            return len(self._open)

    def in_use(self, version: str, namespace: str | None = None) -> bool:
        """Return whether a request uses `version`, or may still get it.

        Args:
            version: The name of an adapter, or `base`.
            namespace: The namespace of the requests; None for all.
        """
        with self._changed:
            return bool(self._users(version, namespace))

    def wait_drained(self, version: str, timeout_s: float, namespace: str | None = None) -> bool:
        """Wait for the current requests that use `version` or may still get it, not for later ones.

        Args:
            version: The name of an adapter, or `base`.
            timeout_s: The longest wait, in seconds.
            namespace: The namespace of the requests; None for all.

        Returns:
            False if a request still uses it after `timeout_s`.
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
