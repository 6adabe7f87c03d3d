"""A stream of server-sent events on its way through: every byte as the engine sent it, but two.

The chunk with the token counts, which the gateway always asks for, goes out only if the client
asked for it too; and everything from the end on, `data: [DONE]` or what an API has in its place, is
held back until the interaction is durable. Bytes leave in whole events, so what was sent can always
be followed by an error event, and how the engine's bytes were cut on the way changes neither what
is sent nor what is recorded. Each byte is looked at a fixed number of times, however it arrives.
"""

import re
from collections.abc import Callable
from typing import Any

import orjson

EVENT_END = re.compile(rb"\n\r?\n")
MAX_EVENT_END_BYTES = 3
DATA = b"data:"


class EventStream:
    """The events of one answer; `feed` gives what may be sent.

    Args:
        is_end: Whether an event is the last one, which is held back.
        is_hidden: Whether an event is not for the client.
    """

    def __init__(self, is_end: Callable[[bytes], bool], is_hidden: Callable[[bytes], bool]) -> None:
        self.complete = False
        """Whether the engine said that the answer is at its end."""
        self._held: list[bytes] = []
        self._is_end = is_end
        self._is_hidden = is_hidden
        self._pending = bytearray()
        self._seen: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the engine; returns what is to be sent to the client now."""
        searched = max(0, len(self._pending) - MAX_EVENT_END_BYTES + 1)
        self._pending += data
        passed: list[bytes] = []
        start = 0
        while end := EVENT_END.search(self._pending, max(start, searched)):
            self._take(bytes(self._pending[start : end.end()]), passed)
            start = end.end()
        del self._pending[:start]
        return b"".join(passed)

    def finish(self) -> None:
        """The engine has sent its last byte.

        The end of the stream ends a last event that has no blank line; any other event that lacks
        it has been cut off, and is dropped.
        """
        rest = bytes(self._pending)
        self._pending.clear()
        if self.complete or self._is_end(rest):
            self._take(rest, [])

    @property
    def tail(self) -> bytes:
        """What to send once the interaction is durable."""
        return b"".join(self._held)

    @property
    def events(self) -> bytes:
        """All whole events so far, also those that were not sent."""
        return b"".join(self._seen)

    def _take(self, event: bytes, passed: list[bytes]) -> None:
        self._seen.append(event)
        self.complete = self.complete or self._is_end(event)
        if self.complete:
            self._held.append(event)
        elif not self._is_hidden(event):
            passed.append(event)


def event_data(event: bytes) -> bytes:
    """The data of an event, without comments and other fields."""
    lines = (line[len(DATA) :].strip() for line in event.splitlines() if line.startswith(DATA))
    return b"\n".join(lines)


def event_json(event: bytes) -> dict[str, Any] | None:
    """The JSON object in an event's data; None for comments, `[DONE]` and what is not JSON."""
    try:
        data = orjson.loads(event_data(event))
    except orjson.JSONDecodeError:
        return None
    return data if isinstance(data, dict) else None
