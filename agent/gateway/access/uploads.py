"""Limits on request bodies: how many arrive at the same time, and how much memory they hold.

A body may arrive slowly, and a request to the model keeps its text in memory until the answer is
recorded. Each caller has a share of the memory and of the uploads in progress, so that
one caller's uploads cannot use up the shares of others.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.gateway.access.fair_share import ByteBudget, FairShare
from agent.gateway.http.asgi import Call, read_body

MAX_BYTES_IN_MEMORY = 512 * 2**20
MAX_BYTES_IN_MEMORY_PER_CALLER = MAX_BYTES_IN_MEMORY // 4
MAX_UPLOADS_PER_CALLER = 128


class Uploads:
    """The bodies of requests, by caller.

    Args:
        max_bytes: Bytes of all callers in memory.
        max_bytes_per_caller: Bytes of one caller in memory.
        max_uploads_per_caller: Bodies of one caller that may be arriving at the same time.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES_IN_MEMORY,
        max_bytes_per_caller: int = MAX_BYTES_IN_MEMORY_PER_CALLER,
        max_uploads_per_caller: int = MAX_UPLOADS_PER_CALLER,
    ) -> None:
        self._memory = ByteBudget(total=max_bytes, per_caller=max_bytes_per_caller)
        self._in_progress = FairShare(
            per_caller=max_uploads_per_caller,
            max_pending_per_caller=max_uploads_per_caller,  # the next one is rejected, not queued
            code="too_many_uploads",
            message="This key has too many uploads in progress. Send fewer requests in parallel.",
        )

    async def read(self, caller: str, call: Call, max_bytes: int) -> bytes:
        """Read a body of at most `max_bytes`, and count it only until it has been read.

        Raises:
            RequestError: As for `body`.
            ClientGone: The client disconnected before the end of the body.
        """
        async with self.body(caller, call, max_bytes) as body:
            return body

    @asynccontextmanager
    async def body(self, caller: str, call: Call, max_bytes: int) -> AsyncIterator[bytes]:
        """Read a body of at most `max_bytes`, and count it until the context is left.

        Raises:
            RequestError: On entering: the caller's limit (429) or the total (503) is exceeded, or
                `read_body` raises it.
            ClientGone: The client disconnected before the end of the body.
        """
        with self._memory.reservation(caller) as reserve:
            async with self._in_progress.caller_slot(caller):
                body = await read_body(call, max_bytes, reserve)
            yield body
