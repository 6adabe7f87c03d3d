"""Authentication, scopes and limits of keys."""

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


async def status(gateway: RunningGateway, key: str | None, **headers: str) -> tuple[int, str]:
    """Of a chat request with a key, and the error's code."""
    sent = headers | ({"Authorization": f"Bearer {key}"} if key else {})
    body = {"model": "small", "messages": QUESTION}
    async with (
        gateway.http() as http,
        http.post("/v1/chat/completions", json=body, headers=sent) as response,
    ):
        body = await response.json()
        return response.status, body.get("error", {}).get("code", "")


LISTED = [{"target_id": "resp_none", "name": "wrong", "value": True}]


@pytest.mark.parametrize("request_line", [("GET", "/api/v1/savings"), ("POST", "/v1/feedback")])
async def test_a_caller_waits_only_for_its_own_requests(
    tmp_path: Path, request_line: tuple[str, str]
) -> None:
    async with run_control_api(tmp_path) as gateway, AsyncExitStack() as slots:
        both = frozenset({Scope.READ, Scope.FEEDBACK})
        shop, bank = (create_key(gateway, name=who, scopes=both) for who in ("shop", "bank"))
        with gateway.state.db.read() as session:
            [principal] = [
                issued.principal for issued in keys.keys(session) if issued.grant.name == "shop"
            ]
        body = LISTED if request_line[0] == "POST" else None
        for _ in range(MAX_CONTROL_REQUESTS):
            await slots.enter_async_context(gateway.state.control_requests.caller_slot(principal))
        await slots.enter_async_context(gateway.state.feedback_lists.caller_slot(principal))

        waiting = asyncio.ensure_future(gateway.fetch(*request_line, shop, json=body))
        for _ in range(5):
            assert (await gateway.fetch(*request_line, bank, json=body))[0] == 200
        assert not waiting.done()
        await slots.aclose()
        assert (await waiting)[0] == 200


async def test_with_keys_required_only_valid_ones_reach_the_model(
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
        for key in bad:
            assert await status(gateway, key) == (401, "invalid_api_key")
        assert fake.history == []
        assert await status(gateway, good) == (200, "")
        assert await status(gateway, None, **{"X-Api-Key": good}) == (200, "")
        for path, code in (("/v1/models", 401), ("/metrics", 401), ("/healthz", 200)):
            assert (await gateway.fetch("GET", path))[0] == code


async def test_the_official_client_raises_its_own_error_types(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, needs_key=True) as gateway:
        may_only_rate = create_key(gateway, scopes=frozenset({Scope.FEEDBACK}))
        slow = create_key(gateway, name="slow", limits=Limits(requests_per_minute=1))

        async def ask(key: str) -> None:
            async with gateway.client(api_key=key) as client:
                await client.chat.completions.create(model="small", messages=QUESTION)

        with pytest.raises(AuthenticationError):
            await ask("none")
        with pytest.raises(PermissionDeniedError, match="needs the scope infer"):
            await ask(may_only_rate)
        await ask(slow)
        with pytest.raises(RateLimitError, match="1 requests per minute") as caught:
            await ask(slow)
        assert 50 <= int(caught.value.response.headers["retry-after"]) <= 60


async def test_a_revoked_key_is_rejected_within_a_second(gateway: RunningGateway) -> None:
    key = create_key(gateway)
    presented = parse(key)
    assert presented
    assert (await status(gateway, key))[0] == 200
    with gateway.state.db.begin() as session:
        keys.revoke(session, presented.id, "operator", datetime.now(UTC))
    gateway.clock.advance(1.1)
    assert (await status(gateway, key))[0] == 401
    assert (await status(gateway, create_key(gateway)))[0] == 200  # a new one works at once


async def test_a_key_acts_in_its_namespace_only(gateway: RunningGateway) -> None:
    key = create_key(gateway, namespace="shop")
    everywhere = create_key(gateway, name="ops", namespace=None)
    bank = {"X-Byheart-Namespace": "bank"}
    assert await status(gateway, key, **bank) == (403, "namespace_not_allowed")
    assert (await status(gateway, key))[0] == 200
    assert (await status(gateway, everywhere, **bank))[0] == 200
    (in_shop,), (in_bank,) = gateway.logged("shop"), gateway.logged("bank")
    assert in_shop.interaction.principal != in_bank.interaction.principal
    assert gateway.logged("default") == []


async def test_without_keys_proxied_requests_are_rejected_and_unknown_keys_act_as_the_operator(
    gateway: RunningGateway,
) -> None:
    assert (await status(gateway, "sk-whatever"))[0] == 200
    assert (await status(gateway, None))[0] == 200
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        assert (await status(gateway, None, **{header: "10.0.0.1"}))[0] == 401
    assert (await status(gateway, create_key(gateway), **{"X-Forwarded-For": "10.0.0.1"}))[0] == 200


async def test_the_concurrency_limit_of_a_key_does_not_affect_other_keys(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.first_byte_delay_s = 0.3
    narrow = create_key(gateway, limits=Limits(concurrent=2))
    other = create_key(gateway, name="other")
    requests = [status(gateway, key) for key in (narrow,) * 4 + (other,) * 4]
    codes = [code for code, _ in await asyncio.gather(*requests)]
    assert sorted(codes[:4]) == [200, 200, 429, 429]
    assert codes[4:] == [200] * 4
    assert (await status(gateway, narrow))[0] == 200


async def test_tokens_are_counted_once_the_answer_has_ended(gateway: RunningGateway) -> None:
    key = create_key(gateway, limits=Limits(tokens_per_minute=5))
    assert (await status(gateway, key))[0] == 200
    assert await status(gateway, key) == (429, "rate_limit_exceeded")
    (row,) = gateway.logged()
    assert row.interaction.status is InteractionStatus.DONE


async def test_tokens_of_an_aborted_stream_are_counted(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.token_delay_s = 0.05
    fake.enqueue("one two three four five six seven eight nine ten " * 9)
    key = create_key(gateway, limits=Limits(tokens_per_minute=5))
    async with gateway.client(api_key=key) as client:
        stream = await client.chat.completions.create(model="small", messages=QUESTION, stream=True)
        await anext(aiter(stream))
        await stream.close()
    [row] = await gateway.wait_logged(1)
    assert row.interaction.status is InteractionStatus.ABORTED
    assert await status(gateway, key) == (429, "rate_limit_exceeded")


async def test_tokens_of_an_aborted_answer_and_of_a_rejected_prompt_are_counted(
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


async def test_every_prompt_of_an_aborted_batch_is_counted(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    texts = ["word " * 1500] * 20
    key = create_key(gateway, limits=Limits(tokens_per_minute=10 * MAX_MODEL_LEN))
    fake.token_delay_s = 1.0
    async with gateway.client(api_key=key, timeout=0.5) as client:
        with pytest.raises(APITimeoutError):
            await client.completions.create(model="small", prompt=texts, max_tokens=1)
    await gateway.wait_logged(1)
    fake.token_delay_s = 0
    assert await status(gateway, key) == (429, "rate_limit_exceeded")


async def test_every_request_counts_towards_the_limit_of_its_key(gateway: RunningGateway) -> None:
    key = create_key(gateway, limits=Limits(requests_per_minute=2), scopes=frozenset(Scope))
    assert (await gateway.fetch("GET", "/v1/models", key))[0] == 200
    assert (await gateway.fetch("GET", "/v1/feedback", key))[0] == 200
    for path in ("/v1/models", "/v1/feedback", "/metrics", "/api/v1/lessons"):
        assert (await gateway.fetch("GET", path, key))[0] == 429


async def test_metrics_require_a_key_for_all_namespaces(
    gateway: RunningGateway,
) -> None:
    own = create_key(gateway, scopes=frozenset({Scope.READ}))
    every = create_key(gateway, name="every", namespace=None, scopes=frozenset({Scope.READ}))
    assert (await gateway.fetch("GET", "/metrics", own))[0] == 403
    assert (await gateway.fetch("GET", "/metrics", every))[0] == 200


async def test_a_key_is_revoked_despite_clock_skew(gateway: RunningGateway) -> None:
    key = create_key(gateway)
    with gateway.state.db.begin() as session:  # on a machine whose clock is fast
        grant = Grant("fast", "default", Trust.USER, frozenset({Scope.INFER}))
        issue_key(session, PEPPER, grant, "operator", datetime.now(UTC) + timedelta(hours=1))
    assert (await status(gateway, key))[0] == 200
    presented = parse(key)
    assert presented
    with gateway.state.db.begin() as session:
        keys.revoke(session, presented.id, "operator", datetime.now(UTC))
    gateway.clock.advance(1.1)
    assert (await status(gateway, key))[0] == 401


async def test_while_the_database_is_unavailable_known_keys_work_and_others_get_503(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, timeout_s=0.2, needs_key=True) as gateway:
        key = create_key(gateway)
        assert (await status(gateway, key))[0] == 200
        with gateway.no_database():
            gateway.clock.advance(1.1)
            assert (await status(gateway, key))[0] == 200
            assert (await status(gateway, format_key(generate_key())))[0] == 503
        assert (await status(gateway, format_key(generate_key())))[0] == 401
