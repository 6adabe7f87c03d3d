"""Who is let in, with which key, to what, and how often."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from openai import (
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    PermissionDeniedError,
    RateLimitError,
)

from agent.gateway.access.api_key import format_key, generate_key, issue_key, parse
from agent.gateway.state import MAX_CONTROL_REQUESTS
from store import keys, namespaces
from store.keys import Grant, Limits, Scope
from store.schema import InteractionStatus, Trust
from tests.support.control_rig import controlled
from tests.support.fake_vllm import MAX_MODEL_LEN, FakeVllm
from tests.support.gateway_rig import PEPPER, QUESTION, Rig, gateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

USER = frozenset({Scope.INFER, Scope.FEEDBACK})


def key(rig: Rig, **values: Any) -> str:
    defaults: dict[str, Any] = {
        "name": "app",
        "namespace": "default",
        "trust": Trust.USER,
        "scopes": USER,
    }
    with rig.state.db.begin() as session:
        for name in ("shop", "bank"):
            namespaces.ensure(session, name, datetime.now(UTC))
        return issue_key(session, PEPPER, Grant(**defaults | values), "operator", datetime.now(UTC))


async def status(rig: Rig, held: str | None, **headers: str) -> tuple[int, str]:
    """Of a chat request with a key, and the error's code."""
    sent = headers | ({"Authorization": f"Bearer {held}"} if held else {})
    body = {"model": "small", "messages": QUESTION}
    async with (
        rig.http() as http,
        http.post("/v1/chat/completions", json=body, headers=sent) as response,
    ):
        said = await response.json()
        return response.status, said.get("error", {}).get("code", "")


LISTED = [{"target_id": "resp_none", "name": "wrong", "value": True}]


@pytest.mark.parametrize("asked", [("GET", "/api/v1/savings"), ("POST", "/v1/feedback")])
async def test_a_caller_waits_for_its_own_requests_and_not_for_anothers(
    tmp_path: Path, asked: tuple[str, str]
) -> None:
    async with controlled(tmp_path) as rig, AsyncExitStack() as held:
        both = frozenset({Scope.READ, Scope.FEEDBACK})
        shop, bank = (key(rig, name=who, scopes=both) for who in ("shop", "bank"))
        with rig.state.db.read() as session:
            [principal] = [
                each.principal for each in keys.keys(session) if each.grant.name == "shop"
            ]
        body = LISTED if asked[0] == "POST" else None
        for _ in range(MAX_CONTROL_REQUESTS):
            await held.enter_async_context(rig.state.control_requests.caller_slot(principal))
        await held.enter_async_context(rig.state.feedback_lists.caller_slot(principal))

        waiting = asyncio.ensure_future(rig.fetch(*asked, shop, json=body))
        for _ in range(5):
            assert (await rig.fetch(*asked, bank, json=body))[0] == 200
        assert not waiting.done()
        await held.aclose()
        assert (await waiting)[0] == 200


async def test_where_keys_are_needed_only_good_ones_reach_the_model(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with gateway(tmp_path, fake, needs_key=True) as rig:
        good = key(rig)
        presented = parse(good)
        assert presented
        past = datetime.now(UTC) - timedelta(seconds=1)
        bad = [
            None,
            "sk-other",
            good[:-1],
            format_key(generate_key()),
            f"bh_{presented.id}_{'0' * 64}",
            key(rig, expires_at=past),
        ]
        for held in bad:
            assert await status(rig, held) == (401, "invalid_api_key")
        assert fake.history == []
        assert await status(rig, good) == (200, "")
        assert await status(rig, None, **{"X-Api-Key": good}) == (200, "")
        for path, code in (("/v1/models", 401), ("/metrics", 401), ("/healthz", 200)):
            assert (await rig.fetch("GET", path))[0] == code


async def test_the_official_client_gets_its_own_errors(fake: FakeVllm, tmp_path: Path) -> None:
    async with gateway(tmp_path, fake, needs_key=True) as rig:
        may_only_rate = key(rig, scopes=frozenset({Scope.FEEDBACK}))
        slow = key(rig, name="slow", limits=Limits(requests_per_minute=1))

        async def ask(held: str) -> None:
            async with rig.client(api_key=held) as client:
                await client.chat.completions.create(model="small", messages=QUESTION)

        with pytest.raises(AuthenticationError):
            await ask("none")
        with pytest.raises(PermissionDeniedError, match="needs the scope infer"):
            await ask(may_only_rate)
        await ask(slow)
        with pytest.raises(RateLimitError, match="1 requests per minute") as caught:
            await ask(slow)
        assert 50 <= int(caught.value.response.headers["retry-after"]) <= 60


async def test_a_revoked_key_is_of_no_use_within_a_second(rig: Rig) -> None:
    held = key(rig)
    presented = parse(held)
    assert presented
    assert (await status(rig, held))[0] == 200
    with rig.state.db.begin() as session:
        keys.revoke(session, presented.id, "operator", datetime.now(UTC))
    rig.clock.advance(1.1)
    assert (await status(rig, held))[0] == 401
    assert (await status(rig, key(rig)))[0] == 200  # a new one works at once


async def test_a_key_acts_in_its_namespace_only(rig: Rig) -> None:
    held = key(rig, namespace="shop")
    everywhere = key(rig, name="ops", namespace=None)
    bank = {"X-Byheart-Namespace": "bank"}
    assert await status(rig, held, **bank) == (403, "namespace_not_allowed")
    assert (await status(rig, held))[0] == 200
    assert (await status(rig, everywhere, **bank))[0] == 200
    (one,), (other,) = rig.said("shop"), rig.said("bank")
    assert one.interaction.principal != other.interaction.principal
    assert rig.said("default") == []


async def test_without_keys_a_proxy_is_nobody_and_a_client_with_a_foreign_key_is_the_operator(
    rig: Rig,
) -> None:
    assert (await status(rig, "sk-whatever"))[0] == 200
    assert (await status(rig, None))[0] == 200
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        assert (await status(rig, None, **{header: "10.0.0.1"}))[0] == 401
    assert (await status(rig, key(rig), **{"X-Forwarded-For": "10.0.0.1"}))[0] == 200


async def test_a_key_has_so_many_requests_at_once_and_others_do_not_notice(
    fake: FakeVllm, rig: Rig
) -> None:
    fake.first_byte_delay_s = 0.3
    narrow = key(rig, limits=Limits(concurrent=2))
    other = key(rig, name="other")
    asked = [status(rig, held) for held in (narrow,) * 4 + (other,) * 4]
    codes = [code for code, _ in await asyncio.gather(*asked)]
    assert sorted(codes[:4]) == [200, 200, 429, 429]
    assert codes[4:] == [200] * 4
    assert (await status(rig, narrow))[0] == 200


async def test_tokens_are_counted_when_an_answer_has_ended(rig: Rig) -> None:
    held = key(rig, limits=Limits(tokens_per_minute=5))
    assert (await status(rig, held))[0] == 200
    assert await status(rig, held) == (429, "rate_limit_exceeded")
    (said,) = rig.said()
    assert said.interaction.status is InteractionStatus.DONE


async def test_an_answer_that_is_left_before_its_end_is_counted_too(
    fake: FakeVllm, rig: Rig
) -> None:
    fake.token_delay_s = 0.05
    fake.enqueue("one two three four five six seven eight nine ten " * 9)
    held = key(rig, limits=Limits(tokens_per_minute=5))
    async with rig.client(api_key=held) as client:
        stream = await client.chat.completions.create(model="small", messages=QUESTION, stream=True)
        await anext(aiter(stream))
        await stream.close()
    [said] = await rig.recorded(1)
    assert said.interaction.status is InteractionStatus.ABORTED
    assert await status(rig, held) == (429, "rate_limit_exceeded")


async def test_a_plain_answer_that_is_left_and_a_refused_prompt_are_counted_too(
    fake: FakeVllm, rig: Rig
) -> None:
    limits = Limits(tokens_per_minute=50)
    leaving, refused = (key(rig, name=name, limits=limits) for name in ("ann", "bob"))
    fake.token_delay_s = 1.0
    fake.enqueue("one two three four")
    async with rig.client(api_key=leaving, timeout=0.5) as client:
        with pytest.raises(APITimeoutError):
            await client.chat.completions.create(model="small", messages=QUESTION)
    await rig.recorded(1)
    fake.token_delay_s = 0
    assert await status(rig, leaving) == (429, "rate_limit_exceeded")

    long = [{"role": "user", "content": "word " * MAX_MODEL_LEN}]
    async with rig.client(api_key=refused) as client:
        with pytest.raises(BadRequestError):
            await client.chat.completions.create(model="small", messages=long)
    assert await status(rig, refused) == (429, "rate_limit_exceeded")


async def test_each_of_several_prompts_that_are_left_is_counted(fake: FakeVllm, rig: Rig) -> None:
    texts = ["word " * 1500] * 20
    held = key(rig, limits=Limits(tokens_per_minute=10 * MAX_MODEL_LEN))
    fake.token_delay_s = 1.0
    async with rig.client(api_key=held, timeout=0.5) as client:
        with pytest.raises(APITimeoutError):
            await client.completions.create(model="small", prompt=texts, max_tokens=1)
    await rig.recorded(1)
    fake.token_delay_s = 0
    assert await status(rig, held) == (429, "rate_limit_exceeded")


async def test_whatever_a_key_asks_for_counts_among_its_requests(rig: Rig) -> None:
    held = key(rig, limits=Limits(requests_per_minute=2), scopes=frozenset(Scope))
    assert (await rig.fetch("GET", "/v1/models", held))[0] == 200
    assert (await rig.fetch("GET", "/v1/feedback", held))[0] == 200
    for path in ("/v1/models", "/v1/feedback", "/metrics", "/api/v1/lessons"):
        assert (await rig.fetch("GET", path, held))[0] == 429


async def test_counts_of_all_namespaces_are_for_keys_of_all(rig: Rig) -> None:
    own = key(rig, scopes=frozenset({Scope.READ}))
    every = key(rig, name="every", namespace=None, scopes=frozenset({Scope.READ}))
    assert (await rig.fetch("GET", "/metrics", own))[0] == 403
    assert (await rig.fetch("GET", "/metrics", every))[0] == 200


async def test_a_key_is_revoked_whatever_the_clocks_say(rig: Rig) -> None:
    held = key(rig)
    with rig.state.db.begin() as session:  # on a machine whose clock is fast
        grant = Grant("fast", "default", Trust.USER, frozenset({Scope.INFER}))
        issue_key(session, PEPPER, grant, "operator", datetime.now(UTC) + timedelta(hours=1))
    assert (await status(rig, held))[0] == 200
    presented = parse(held)
    assert presented
    with rig.state.db.begin() as session:
        keys.revoke(session, presented.id, "operator", datetime.now(UTC))
    rig.clock.advance(1.1)
    assert (await status(rig, held))[0] == 401


async def test_with_the_database_away_known_keys_stay_good_and_others_may_come_back(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with gateway(tmp_path, fake, timeout_s=0.2, needs_key=True) as rig:
        held = key(rig)
        assert (await status(rig, held))[0] == 200
        with rig.no_database():
            rig.clock.advance(1.1)
            assert (await status(rig, held))[0] == 200
            assert (await status(rig, format_key(generate_key())))[0] == 503
        assert (await status(rig, format_key(generate_key())))[0] == 401
