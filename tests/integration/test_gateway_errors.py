"""Errors that clients get: OpenAI's shape, with the remedy."""

import json
from collections.abc import Mapping
from pathlib import Path

import openai
import pytest
from anyio.lowlevel import checkpoint

from agent.gateway.exchange import Exchange
from config.sections import Server
from store.schema import InteractionStatus
from tests.support.factories import go_live
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import QUESTION, RunningGateway, run_gateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

ASK = {"model": "small", "messages": QUESTION}
CHAT = "/v1/chat/completions"
TEXT = "one two three four"


async def refused(gateway: RunningGateway, path: str, **request: object) -> tuple[int, dict]:
    method = str(request.pop("method", "POST"))
    headers = request.pop("headers", {}) | (
        {"Content-Type": "application/json"} if "data" in request else {}
    )
    async with (
        gateway.http() as http,
        http.request(method, path, headers=headers, **request) as response,
    ):
        body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "code", "param"}
    return response.status, body["error"]


async def answered(
    gateway: RunningGateway, path: str, body: object
) -> tuple[int, Mapping[str, str], dict]:
    """Status, headers and error of a GET, or of a POST where there is a body."""
    method = "POST" if body else "GET"
    async with gateway.http() as http, http.request(method, path, json=body) as response:
        return response.status, response.headers, (await response.json())["error"]


@pytest.mark.parametrize(
    ("request_", "status", "code", "said"),
    [
        ({"data": b"{"}, 400, "invalid_json", "not valid JSON"),
        ({"data": b'{"model": "\xff"}'}, 400, "invalid_json", "UTF-8"),
        ({"data": b"[]"}, 400, "model_type", ""),
        ({"json": {"model": "small"}}, 400, "missing", "messages"),
        ({"json": ASK | {"temprature": 1}}, 400, "unknown_field", "'temperature'"),
        ({"json": ASK | {"n": 9}}, 400, "less_than_equal", "'n'"),
        ({"json": ASK | {"max_tokens": 4097}}, 400, "value_out_of_range", "max_tokens"),
        ({"json": ASK | {"model": "gpt-9"}}, 404, "model_not_found", "small, base"),
        ({"json": ASK | {"model": "bh-12345678-123456789abc"}}, 404, "model_not_found", "small"),
        ({"json": ASK | {"model": "../../etc/passwd"}}, 404, "model_not_found", "small"),
        ({"data": b"x" * 2000}, 413, "request_too_large", "1000 bytes"),
        (
            {"json": ASK, "headers": {"X-Byheart-Namespace": "nobody"}},
            404,
            "namespace_not_found",
            "'nobody'",
        ),
        (
            {"json": ASK, "headers": {"X-Byheart-Namespace": "../x"}},
            404,
            "namespace_not_found",
            "X-Byheart-Namespace",
        ),
    ],
)
async def test_an_invalid_request_is_rejected_and_does_not_reach_the_engine(
    fake: FakeVllm, tmp_path: Path, request_: dict, status: int, code: str, said: str
) -> None:
    small = Server(max_body_bytes=1000)
    async with run_gateway(tmp_path, fake, settings=small) as gateway:
        answered, error = await refused(gateway, CHAT, **request_)

        assert (answered, error["code"]) == (status, code)
        assert said in error["message"]
        assert fake.history == []
        assert gateway.logged() == []


async def test_the_size_of_a_body_is_checked_while_it_arrives(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async def endless():
        while True:
            yield b" " * 1000
            await checkpoint()

    small = Server(max_body_bytes=100_000)
    async with run_gateway(tmp_path, fake, settings=small) as gateway:
        status, error = await refused(gateway, CHAT, data=endless())

        assert status == 413
        assert error["code"] == "request_too_large"


async def test_errors_of_unknown_routes_and_methods_list_the_valid_ones(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    for path in ("/", "/v1/load_lora_adapter", "/tokenize", "/v1/chat/completions/x"):
        status, error = await refused(gateway, path)
        assert status == 404
        assert CHAT in error["message"]
    assert (await refused(gateway, CHAT, method="GET"))[0] == 405
    assert (await refused(gateway, "/v1/models", method="DELETE"))[0] == 405
    assert fake.history == []


async def test_an_error_quotes_little_of_the_request(gateway: RunningGateway) -> None:
    long = "x" * 5_000
    for path, headers in (
        (f"/{long}", {}),
        (f"/v1/models/{long}", {}),
        ("/v1/models", {"X-Byheart-Namespace": long}),
    ):
        status, error = await refused(gateway, path, method="GET", headers=headers)
        assert status == 404
        assert len(error["message"]) < 400


async def test_with_the_engine_down_a_request_gets_503_and_is_recorded_as_failed(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    await fake.down()
    async with gateway.client() as client:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(**ASK, stream=stream)
            assert caught.value.status_code == 503
            assert caught.value.code == "engine_unavailable"
            assert caught.value.response.headers["retry-after"] == "5"
            assert caught.value.response.headers["x-byheart-version"] == "base"
        await fake.up()
        await client.chat.completions.create(**ASK)
    statuses = [said.interaction.status for said in gateway.logged()]

    assert statuses == [
        InteractionStatus.FAILED,
        InteractionStatus.FAILED,
        InteractionStatus.DONE,
    ]
    assert gateway.logged()[0].interaction.error


@pytest.mark.parametrize("model", ["small", "base", "live"])
async def test_with_the_engine_down_a_request_for_any_model_gets_503_and_is_recorded(
    fake: FakeVllm, gateway: RunningGateway, model: str
) -> None:
    with gateway.state.db.begin() as session:
        name = go_live(session, "default")
    await fake.down()
    asked = {"model": name if model == "live" else model, "messages": QUESTION}
    for stream in (False, True):
        status, headers, error = await answered(gateway, CHAT, asked | {"stream": stream})
        assert (status, error["code"]) == (503, "engine_unavailable")
        assert headers["Retry-After"] == "5"
        said = gateway.logged()[-1]
        assert headers["X-Byheart-Interaction"] == said.interaction.id
        assert said.interaction.status is InteractionStatus.FAILED
        assert said.payload.messages == QUESTION
    status, headers, error = await answered(gateway, "/v1/models", None)
    assert (status, error["code"]) == (503, "engine_unavailable")


async def test_with_the_database_down_a_request_gets_503_and_is_recorded_once_it_is_back(
    gateway: RunningGateway,
) -> None:
    with gateway.no_database():
        for model in ("small", "base", "bh-1"):
            asked = {"model": model, "messages": QUESTION}
            status, headers, error = await answered(gateway, CHAT, asked)
            assert (status, error["code"]) == (503, "database_unavailable")
            assert headers["Retry-After"] == "5"
            assert headers["X-Byheart-Version"] == "none"
        feedback = {"target_id": headers["X-Byheart-Interaction"], "name": "thumbs"}
        for path, body in (("/v1/models", None), ("/v1/feedback", feedback)):
            status, headers, error = await answered(gateway, path, body)
            assert (status, error["code"]) == (503, "database_unavailable")
            assert headers["Retry-After"] == "5"
    for said in await gateway.wait_logged(3):
        assert said.interaction.status is InteractionStatus.FAILED
        assert said.payload.messages == QUESTION


async def test_with_the_database_down_the_last_known_models_are_listed(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    with gateway.state.db.begin() as session:
        name = go_live(session, "default")
    fake.adapters[name] = f"/adapters/{name}"
    async with gateway.client() as client:
        before = [model.id async for model in client.models.list()]
        with gateway.no_database():
            assert [model.id async for model in client.models.list()] == before
    assert before == ["small", "base", name]


async def test_the_engines_own_4xx_error_is_passed_on(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    for stream in (False, True):
        body = {"error": {"message": "too long", "type": "B", "param": "x", "code": 400}}
        fake.refuse_with = (400, body)
        status, error = await refused(gateway, CHAT, json=ASK | {"stream": stream})
        assert (status, error["message"], error["param"]) == (400, "too long", "x")

        fake.refuse_with = (500, {"error": {"message": "secret trace"}})
        status, error = await refused(gateway, CHAT, json=ASK | {"stream": stream})
        assert status == 502
        assert "secret" not in error["message"]
    assert {said.interaction.status for said in gateway.logged()} == {InteractionStatus.FAILED}


@pytest.mark.parametrize("status", [201, 302, 307])
async def test_an_engine_status_other_than_200_is_not_an_answer(
    fake: FakeVllm, gateway: RunningGateway, status: int
) -> None:
    fake.refuse_with = (status, {"choices": []})
    for stream in (False, True):
        told, error = await refused(gateway, CHAT, json=ASK | {"stream": stream})
        assert (told, error["code"]) == (502, "engine_error")


async def test_redirects_of_the_engine_are_not_followed(tmp_path: Path) -> None:
    async with (
        FakeVllm(model="small") as elsewhere,
        FakeVllm(model="small") as fake,
        run_gateway(tmp_path, fake) as gateway,
    ):
        fake.refuse_with = (307, {})
        fake.refusal_headers = {"Location": f"{elsewhere.url}/v1/chat/completions"}
        told, error = await refused(gateway, CHAT, json=ASK)
        assert (told, error["code"]) == (502, "engine_error")
        assert len(fake.history) == 1
        assert elsewhere.history == []


@pytest.mark.parametrize("tokens", range(6))
async def test_a_stream_whose_engine_dies_ends_with_an_error_event_and_without_done(
    fake: FakeVllm, gateway: RunningGateway, tokens: int
) -> None:
    fake.enqueue(TEXT)
    fake.die_after_tokens = tokens
    fake.token_delay_s = 0.02
    async with (
        gateway.http() as http,
        http.post(CHAT, json=ASK | {"stream": True}) as response,
    ):
        body = await response.read()
    [said] = gateway.logged()

    assert said.interaction.status is InteractionStatus.FAILED
    fault = "the engine disconnected" if tokens else "the engine did not answer"
    assert said.interaction.error == fault
    if tokens == 0:
        assert response.status == 503
        return
    events = body.split(b"\n\n")
    assert response.status == 200
    assert b"[DONE]" not in body
    assert json.loads(events[-2].removeprefix(b"data: "))["error"]["code"] == ("engine_unavailable")
    assert said.payload.response == " ".join(TEXT.split()[: tokens - 1])


async def test_the_official_client_raises_when_a_stream_breaks(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.enqueue(TEXT)
    fake.die_after_tokens = 3
    async with gateway.client() as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="is unavailable"):
            async for _ in stream:
                pass


async def test_health_readiness_models_and_metrics(fake: FakeVllm, gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        await client.chat.completions.create(**ASK)
        names = [model.id async for model in client.models.list()]
        assert names == ["small", "base"]
        assert (await client.models.retrieve("small")).id == "small"
        with pytest.raises(openai.NotFoundError, match="small, base"):
            await client.models.retrieve("other/model")
    async with gateway.http() as http:
        assert await (await http.get("/healthz")).json() == {
            "status": "ok",
            "log": "database",
        }
        assert (await http.get("/readyz")).status == 200
        text = await (await http.get("/metrics")).text()
        assert 'byheart_requests_total{arm="live",code="200"} 1.0' in text
        assert "byheart_engine_up 1.0" in text
        assert "byheart_inflight_requests 0.0" in text
        await fake.down()
        assert (await http.get("/readyz")).status == 503
        assert (await http.get("/healthz")).status == 200
        assert "byheart_engine_up 0.0" in await (await http.get("/metrics")).text()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_internal_error_is_500_and_leaves_no_request_running(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, is_stream: bool
) -> None:
    def fail(_: Exchange) -> dict:
        raise ZeroDivisionError("CANARY")

    monkeypatch.setattr(Exchange, "compose_body", fail)

    status, _, error = await answered(gateway, CHAT, ASK | {"stream": is_stream})
    assert (status, "CANARY" in str(error)) == (500, False)
    [said] = gateway.logged()
    assert said.interaction.status is InteractionStatus.FAILED
    assert said.interaction.error == "byheart failed on this request"
