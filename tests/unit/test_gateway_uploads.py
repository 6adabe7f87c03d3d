"""How much of bodies is in memory at once."""

import asyncio

import pytest

from agent.gateway.errors import RequestError
from agent.gateway.http import uploads as module
from agent.gateway.http.asgi import Call, replay_body
from agent.gateway.http.uploads import Uploads

pytestmark = pytest.mark.anyio


def call(receive=None) -> Call:
    return Call(
        {b"content-type": b"application/json"}, b"", "", receive or replay_body(b"12345"), None
    )


async def test_a_body_counts_until_what_was_asked_is_done() -> None:
    uploads = Uploads(most=100, each=6)
    async with uploads.held("ann", call(), 10) as body:
        assert body == b"12345"
        with pytest.raises(RequestError) as refused:
            await uploads.read("ann", call(), 10)
        assert await uploads.read("bob", call(), 10) == b"12345"
    assert refused.value.status == 429
    assert await uploads.read("ann", call(), 10) == b"12345"


async def test_bodies_that_do_not_come_are_so_many_of_a_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_EACH", 2)

    uploads, never = Uploads(), asyncio.Event()
    slow = [asyncio.ensure_future(uploads.read("ann", call(never.wait), 10)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as refused:
        await uploads.read("ann", call(), 10)
    assert refused.value.status == 429
    assert await uploads.read("bob", call(), 10) == b"12345"
    for each in slow:
        each.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert await uploads.read("ann", call(), 10) == b"12345"


def test_a_caller_has_a_share_and_all_together_have_so_much() -> None:
    uploads = Uploads(most=10, each=6)
    with uploads.of("ann") as ann, uploads.of("bob") as bob:
        ann(6)
        with pytest.raises(RequestError) as of_ann:
            ann(1)
        with pytest.raises(RequestError) as of_all:
            bob(4)
    assert (of_ann.value.status, of_all.value.status) == (429, 503)


def test_what_has_been_received_makes_room() -> None:
    uploads = Uploads(most=10, each=6)
    for _ in range(5):
        with uploads.of("ann") as add:
            add(3)
            add(3)
    with uploads.of("ann") as one, uploads.of("ann") as other:
        one(3)
        other(3)
        with pytest.raises(RequestError):
            other(1)
