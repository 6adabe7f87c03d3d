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
from tests.support.fake_vllm import MAX_MODEL_LEN, FakeVllm
from tests.support.running_control_api import run_control_api
from tests.support.running_gateway import PEPPER, QUESTION, RunningGateway, run_gateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

USER = frozenset({Scope.INFER, Scope.FEEDBACK})


def create_key(gateway: RunningGateway, **values: Any) -> str:
    defaults: dict[str, Any] = {
        "name": "app",
        "namespace": "default",
        "trust": Trust.USER,
        "scopes": USER,
    }
    with gateway.state.db.begin() as session:
        for name in ("shop", "bank"):
            namespaces.ensure(session, name, datetime.now(UTC))
        return issue_key(session, PEPPER, Grant(**defaults | values), "operator", datetime.now(UTC))


async def status(gateway: RunningGateway, held: str | None, **headers: str) -> tuple[int, str]:
    """Of a chat request with a key, and the error's code."""
    sent = headers | ({"Authorization": f"Bearer {held}"} if held else {})
    body = {"model": "small", "messages": QUESTION}
    async with (
        gateway.http() as http,
        http.post("/v1/chat/completions", json=body, headers=sent) as response,
    ):
        said = await response.json()
        return response.status, said.get("error", {}).get("code", "")


LISTED = [{"target_id": "resp_none", "name": "wrong", "value": True}]


@pytest.mark.parametrize("asked", [("GET", "/api/v1/savings"), ("POST", "/v1/feedback")])
async def test_a_caller_waits_for_its_own_requests_and_not_for_anothers(
    tmp_path: Path, asked: tuple[str, str]
) -> None:
    async with run_control_api(tmp_path) as gateway, AsyncExitStack() as held:
        both = frozenset({Scope.READ, Scope.FEEDBACK})
        shop, bank = (create_key(gateway, name=who, scopes=both) for who in ("shop", "bank"))
        with gateway.state.db.read() as session:
            [principal] = [
                each.principal for each in keys.keys(session) if each.grant.name == "shop"
            ]
        body = LISTED if asked[0] == "POST" else None
        for _ in range(MAX_CONTROL_REQUESTS):
            await held.enter_async_context(gateway.state.control_requests.caller_slot(principal))
        await held.enter_async_context(gateway.state.feedback_lists.caller_slot(principal))

        waiting = asyncio.ensure_future(gateway.fetch(*asked, shop, json=body))
        for _ in range(5):
            assert (await gateway.fetch(*asked, bank, json=body))[0] == 200
        assert not waiting.done()
        await held.aclose()
        assert (await waiting)[0] == 200


async def test_where_keys_are_needed_only_good_ones_reach_the_model(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, needs_key=True) as gateway:
        good = create_key(gateway)
        presented = parse(good)
        assert presented
        past = datetime.now(UTC) - timedelta(seconds=1)
        bad = [
            None,
            "sk-other",
            good[:-1],
            format_key(generate_key()),
            f"bh_{presented.id}_{'0' * 64}",
            create_key(gateway, expires_at=past),
        ]
        for held in bad:
            assert await status(gateway, held) == (401, "invalid_api_key")
        assert fake.history == []
        assert await status(gateway, good) == (200, "")
        assert await status(gateway, None, **{"X-Api-Key": good}) == (200, "")
        for path, code in (("/v1/models", 401), ("/metrics", 401), ("/healthz", 200)):
            assert (await gateway.fetch("GET", path))[0] == code


async def test_the_official_client_gets_its_own_errors(fake: FakeVllm, tmp_path: Path) -> None:
    async with run_gateway(tmp_path, fake, needs_key=True) as gateway:
        may_only_rate = create_key(gateway, scopes=frozenset({Scope.FEEDBACK}))
        slow = create_key(gateway, name="slow", limits=Limits(requests_per_minute=1))

        async def ask(held: str) -> None:
            async with gateway.client(api_key=held) as client:
                await client.chat.completions.create(model="small", messages=QUESTION)

        with pytest.raises(AuthenticationError):
            await ask("none")
        with pytest.raises(PermissionDeniedError, match="needs the scope infer"):
            await ask(may_only_rate)
        await ask(slow)
        with pytest.raises(RateLimitError, match="1 requests per minute") as caught:
            await ask(slow)
        assert 50 <= int(caught.value.response.headers["retry-after"]) <= 60


async def test_a_revoked_key_is_of_no_use_within_a_second(gateway: RunningGateway) -> None:
    held = create_key(gateway)
    presented = parse(held)
    assert presented
    assert (await status(gateway, held))[0] == 200
    with gateway.state.db.begin() as session:
        keys.revoke(session, presented.id, "operator", datetime.now(UTC))
    gateway.clock.advance(1.1)
    assert (await status(gateway, held))[0] == 401
    assert (await status(gateway, create_key(gateway)))[0] == 200  # a new one works at once


async def test_a_key_acts_in_its_namespace_only(gateway: RunningGateway) -> None:
    held = create_key(gateway, namespace="shop")
    everywhere = create_key(gateway, name="ops", namespace=None)
    bank = {"X-Byheart-Namespace": "bank"}
    assert await status(gateway, held, **bank) == (403, "namespace_not_allowed")
    assert (await status(gateway, held))[0] == 200
    assert (await status(gateway, everywhere, **bank))[0] == 200
    (one,), (other,) = gateway.logged("shop"), gateway.logged("bank")
    assert one.interaction.principal != other.interaction.principal
    assert gateway.logged("default") == []


async def test_without_keys_a_proxy_is_nobody_and_a_client_with_a_foreign_key_is_the_operator(
    gateway: RunningGateway,
) -> None:
    assert (await status(gateway, "sk-whatever"))[0] == 200
    assert (await status(gateway, None))[0] == 200
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        assert (await status(gateway, None, **{header: "10.0.0.1"}))[0] == 401
    assert (await status(gateway, create_key(gateway), **{"X-Forwarded-For": "10.0.0.1"}))[0] == 200


async def test_a_key_has_so_many_requests_at_once_and_others_do_not_notice(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.first_byte_delay_s = 0.3
    narrow = create_key(gateway, limits=Limits(concurrent=2))
    other = create_key(gateway, name="other")
    asked = [status(gateway, held) for held in (narrow,) * 4 + (other,) * 4]
    codes = [code for code, _ in await asyncio.gather(*asked)]
    assert sorted(codes[:4]) == [200, 200, 429, 429]
    assert codes[4:] == [200] * 4
    assert (await status(gateway, narrow))[0] == 200


async def test_tokens_are_counted_when_an_answer_has_ended(gateway: RunningGateway) -> None:
    held = create_key(gateway, limits=Limits(tokens_per_minute=5))
    assert (await status(gateway, held))[0] == 200
    assert await status(gateway, held) == (429, "rate_limit_exceeded")
    (said,) = gateway.logged()
    assert said.interaction.status is InteractionStatus.DONE


async def test_an_answer_that_is_left_before_its_end_is_counted_too(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.token_delay_s = 0.05
    fake.enqueue("one two three four five six seven eight nine ten " * 9)
    held = create_key(gateway, limits=Limits(tokens_per_minute=5))
    async with gateway.client(api_key=held) as client:
        stream = await client.chat.completions.create(model="small", messages=QUESTION, stream=True)
        await anext(aiter(stream))
        await stream.close()
    [said] = await gateway.wait_logged(1)
    assert said.interaction.status is InteractionStatus.ABORTED
    assert await status(gateway, held) == (429, "rate_limit_exceeded")


async def test_a_plain_answer_that_is_left_and_a_refused_prompt_are_counted_too(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    limits = Limits(tokens_per_minute=50)
    leaving, refused = (create_key(gateway, name=name, limits=limits) for name in ("ann", "bob"))
    fake.token_delay_s = 1.0
    fake.enqueue("one two three four")
    async with gateway.client(api_key=leaving, timeout=0.5) as client:
        with pytest.raises(APITimeoutError):
            await client.chat.completions.create(model="small", messages=QUESTION)
    await gateway.wait_logged(1)
    fake.token_delay_s = 0
    assert await status(gateway, leaving) == (429, "rate_limit_exceeded")

    long = [{"role": "user", "content": "word " * MAX_MODEL_LEN}]
    async with gateway.client(api_key=refused) as client:
        with pytest.raises(BadRequestError):
            await client.chat.completions.create(model="small", messages=long)
    assert await status(gateway, refused) == (429, "rate_limit_exceeded")


async def test_each_of_several_prompts_that_are_left_is_counted(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    texts = ["word " * 1500] * 20
    held = create_key(gateway, limits=Limits(tokens_per_minute=10 * MAX_MODEL_LEN))
    fake.token_delay_s = 1.0
    async with gateway.client(api_key=held, timeout=0.5) as client:
        with pytest.raises(APITimeoutError):
            await client.completions.create(model="small", prompt=texts, max_tokens=1)
    await gateway.wait_logged(1)
    fake.token_delay_s = 0
    assert await status(gateway, held) == (429, "rate_limit_exceeded")


async def test_whatever_a_key_asks_for_counts_among_its_requests(gateway: RunningGateway) -> None:
    held = create_key(gateway, limits=Limits(requests_per_minute=2), scopes=frozenset(Scope))
    assert (await gateway.fetch("GET", "/v1/models", held))[0] == 200
    assert (await gateway.fetch("GET", "/v1/feedback", held))[0] == 200
    for path in ("/v1/models", "/v1/feedback", "/metrics", "/api/v1/lessons"):
        assert (await gateway.fetch("GET", path, held))[0] == 429


async def test_counts_of_all_namespaces_are_for_keys_of_all(gateway: RunningGateway) -> None:
    own = create_key(gateway, scopes=frozenset({Scope.READ}))
    every = create_key(gateway, name="every", namespace=None, scopes=frozenset({Scope.READ}))
    assert (await gateway.fetch("GET", "/metrics", own))[0] == 403
    assert (await gateway.fetch("GET", "/metrics", every))[0] == 200


async def test_a_key_is_revoked_whatever_the_clocks_say(gateway: RunningGateway) -> None:
    held = create_key(gateway)
    with gateway.state.db.begin() as session:  # on a machine whose clock is fast
        grant = Grant("fast", "default", Trust.USER, frozenset({Scope.INFER}))
        issue_key(session, PEPPER, grant, "operator", datetime.now(UTC) + timedelta(hours=1))
    assert (await status(gateway, held))[0] == 200
    presented = parse(held)
    assert presented
    with gateway.state.db.begin() as session:
        keys.revoke(session, presented.id, "operator", datetime.now(UTC))
    gateway.clock.advance(1.1)
    assert (await status(gateway, held))[0] == 401


async def test_with_the_database_away_known_keys_stay_good_and_others_may_come_back(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, timeout_s=0.2, needs_key=True) as gateway:
        held = create_key(gateway)
        assert (await status(gateway, held))[0] == 200
        with gateway.no_database():
            gateway.clock.advance(1.1)
            assert (await status(gateway, held))[0] == 200
            assert (await status(gateway, format_key(generate_key())))[0] == 503
        assert (await status(gateway, format_key(generate_key())))[0] == 401
