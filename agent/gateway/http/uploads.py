"""How much of requests' bodies may be in memory, and how many may be on their way.

A body is bytes that come as slowly as a client likes, and what is made of a request to the model
has its text until the answer is recorded. All together have so many bytes, and each caller a share
of them and of the connections, so that nobody's uploads take the room of the others'.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from agent.gateway.errors import RequestError, unavailable
from agent.gateway.http.asgi import Call, read_body

MOST_BYTES = 512 * 2**20
MOST_BYTES_EACH = MOST_BYTES // 4
MOST_EACH = 128
"""Bodies of one caller that may be on their way at once."""
TOO_MUCH = "Too much is being sent with this key at once. Send less in parallel."


class Uploads:
    """Bytes of bodies, by caller."""

    def __init__(self, most: int = MOST_BYTES, each: int = MOST_BYTES_EACH) -> None:
        self._most = most
        self._each = each
        self._held: Counter[str] = Counter()
        self._coming: Counter[str] = Counter()

    async def read(self, caller: str, call: Call, limit: int) -> bytes:
        """The body of a caller's request, of at most `limit` bytes, which is soon done with.

        Raises:
            RequestError: As by `held`.
            ClientGone: The client went away before the end of it.
        """
        async with self.held(caller, call, limit) as body:
            return body

    @asynccontextmanager
    async def held(self, caller: str, call: Call, limit: int) -> AsyncIterator[bytes]:
        """The body of a caller's request, of at most `limit` bytes, counted until this is left.

        Raises:
            RequestError: On entering: there is no room for it, of this caller (429) or of anybody
                (503); or as `read_body` raises it.
            ClientGone: The client went away before the end of it.
        """
        with self.of(caller) as add:
            with self._one_coming(caller):
                body = await read_body(call, limit, add)
            yield body

    @contextmanager
    def _one_coming(self, caller: str) -> Iterator[None]:
        if self._coming[caller] >= MOST_EACH:
            raise RequestError(429, TOO_MUCH, code="too_many_uploads")
        self._coming[caller] += 1
        try:
            yield
        finally:
            self._coming[caller] -= 1
            if not self._coming[caller]:
                del self._coming[caller]

    @contextmanager
    def of(self, caller: str) -> Iterator[Callable[[int], None]]:
        """Count one body of a caller, by the function that is given, until this is left.

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
                raise RequestError(429, TOO_MUCH, code="too_many_uploads")
            if self._held.total() > self._most:
                message = "Too much is being sent at once. Try again shortly."
                raise unavailable(message, code="too_many_uploads")

        try:
            yield add
        finally:
            self._held[caller] -= held
            if not self._held[caller]:
                del self._held[caller]
