"""Relay a stream of server-sent events byte for byte, with two exceptions.

The event with the token counts, which the gateway always requests, is relayed only if the client
requested it too. The last event (`data: [DONE]`, or its equivalent in another API) and everything
after it are held back until the interaction is durable.

Bytes are relayed in whole events, so an error event can follow at any time, and the engine's
chunking affects neither what is sent nor what is recorded. Each byte is scanned a constant number
of times.
"""

import re
from collections.abc import Callable
from typing import Any

import orjson

EVENT_END = re.compile(rb"\n\r?\n")
MAX_EVENT_END_BYTES = 3
DATA = b"data:"


class EventStream:
    """The events of one answer; `feed` returns the bytes to relay.

    Args:
        is_end: Returns whether an event is the last one, which is held back.
        is_hidden: Returns whether an event is not for the client.
    """

    def __init__(self, is_end: Callable[[bytes], bool], is_hidden: Callable[[bytes], bool]) -> None:
        self.complete = False
        """Whether the engine has sent the last event."""
        self._held_back: list[bytes] = []
        self._is_end = is_end
        self._is_hidden = is_hidden
        self._pending = bytearray()
        self._seen: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Add bytes from the engine; return the bytes to send to the client."""
        searched = max(0, len(self._pending) - MAX_EVENT_END_BYTES + 1)
        self._pending += data
        relayed: list[bytes] = []
        start = 0
        while end := EVENT_END.search(self._pending, max(start, searched)):
            self._add(bytes(self._pending[start : end.end()]), relayed)
            start = end.end()
        del self._pending[:start]
        return b"".join(relayed)

    def finish(self) -> None:
        """Handle the end of the engine's stream.

        It terminates a last event that lacks its blank line. Any other unterminated event was cut
        off, and is dropped.
        """
        unterminated = bytes(self._pending)
        self._pending.clear()
        if self.complete or self._is_end(unterminated):
            self._add(unterminated, [])

    @property
    def tail(self) -> bytes:
        """The bytes to send once the interaction is durable."""
        return b"".join(self._held_back)

    @property
    def events(self) -> bytes:
        """All whole events so far, including those that were not sent."""
        return b"".join(self._seen)

    def _add(self, event: bytes, relayed: list[bytes]) -> None:
        self._seen.append(event)
        self.complete = self.complete or self._is_end(event)
        if self.complete:
            self._held_back.append(event)
        elif not self._is_hidden(event):
            relayed.append(event)


def event_data(event: bytes) -> bytes:
    """Return the data of an event, without comments and other fields."""
    lines = (line[len(DATA) :].strip() for line in event.splitlines() if line.startswith(DATA))
    return b"\n".join(lines)


def event_json(event: bytes) -> dict[str, Any] | None:
    """Return the JSON object in an event's data; None for comments, `[DONE]` and other data."""
    try:
        data = orjson.loads(event_data(event))
    except orjson.JSONDecodeError:
        return None
    return data if isinstance(data, dict) else None
