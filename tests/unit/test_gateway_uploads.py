"""Limits on request bodies."""

import asyncio

import pytest
from anyio.lowlevel import checkpoint

from agent.gateway.access.uploads import Uploads
from agent.gateway.errors import RequestError
from agent.gateway.http.asgi import Call, replay_body

pytestmark = pytest.mark.anyio


def call(receive=None) -> Call:
    return Call(
        {b"content-type": b"application/json"}, b"", "", receive or replay_body(b"12345"), None
    )


async def test_a_body_counts_towards_the_limit_until_its_request_ends() -> None:
    uploads = Uploads(max_bytes=100, max_bytes_per_caller=6)
    async with uploads.body("ann", call(), 10) as body:
        assert body == b"12345"
        with pytest.raises(RequestError) as refused:
            await uploads.read("ann", call(), 10)
        assert await uploads.read("bob", call(), 10) == b"12345"
    assert refused.value.status == 429
    assert await uploads.read("ann", call(), 10) == b"12345"


async def test_a_callers_uploads_over_the_limit_are_rejected_immediately() -> None:
    uploads, never = Uploads(max_uploads_per_caller=2), asyncio.Event()
    slow = [asyncio.ensure_future(uploads.read("ann", call(never.wait), 10)) for _ in range(2)]
    await checkpoint()
    with pytest.raises(RequestError) as refused:
        await uploads.read("ann", call(), 10)
    assert refused.value.status == 429
    assert await uploads.read("bob", call(), 10) == b"12345"
    for each in slow:
        each.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert await uploads.read("ann", call(), 10) == b"12345"
