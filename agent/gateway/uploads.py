"""How much of requests' bodies may be in memory before they are read.

A key's limits hold once it is known what is asked; until then a body is bytes that come as slowly
as a client likes. All together have so many, and each caller a share of them, so that nobody's
uploads take the room of the others'.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.gateway.errors import RequestError, unavailable
from agent.gateway.wire import Call, read_body

MOST_BYTES = 256 * 2**20
MOST_BYTES_EACH = MOST_BYTES // 4


class Uploads:
    """Bytes of bodies that are being received, by caller."""

    def __init__(self, most: int = MOST_BYTES, each: int = MOST_BYTES_EACH) -> None:
        self._most = most
        self._each = each
        self._held: Counter[str] = Counter()

    async def read(self, caller: str, call: Call, limit: int) -> bytes:
        """The body of a caller's request, of at most `limit` bytes.

        Raises:
            RequestError: There is no room for it, of this caller (429) or of anybody (503); or as
                `read_body` raises it.
            ClientGone: The client went away before the end of it.
        """
        with self.of(caller) as add:
            return await read_body(call, limit, add)

    @contextmanager
    def of(self, caller: str) -> Iterator[Callable[[int], None]]:
        """Count one body of a caller while it is received, by the function that is given.

        Raises:
            RequestError: By that function: there is no room for more, of this caller (429) or of
                anybody (503).
        """
        held = 0

        def add(size: int) -> None:
            nonlocal held
            held += size
            self._held[caller] += size
            if self._held[caller] > self._each:
                message = "Too much is being sent with this key at once. Send less in parallel."
                raise RequestError(429, message, code="too_many_uploads")
            if self._held.total() > self._most:
                message = "Too much is being sent at once. Try again shortly."
                raise unavailable(message, code="too_many_uploads")

        try:
            yield add
        finally:
            self._held[caller] -= held
            if not self._held[caller]:
                del self._held[caller]
