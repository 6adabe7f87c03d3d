"""A web page in the operator's browser gets nothing from the gateway."""

import json
from pathlib import Path

import pytest

from config.sections import Server
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import QUESTION, RunningGateway, run_gateway

pytestmark = pytest.mark.anyio

ASK = json.dumps({"model": "small", "messages": QUESTION}).encode()
FEEDBACK = json.dumps({"target_id": "int_0", "name": "thumbs"}).encode()
CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


async def answer(
    gateway: RunningGateway, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, str]:
    """Status, and code of the error if it is one."""
    method = "GET" if body is None else "POST"
    skip = ["Content-Type"]
    async with (
        gateway.http() as http,
        http.request(method, path, data=body, headers=headers, skip_auto_headers=skip) as response,
    ):
        said = await response.json() if response.content_type == "application/json" else {}
        return response.status, said.get("error", {}).get("code", "")


async def test_requests_of_a_web_page_are_rejected_on_every_route(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    for page, code in (
        ({"Host": "evil.example"}, "host_not_allowed"),
        ({"Origin": "https://evil.example"}, "origin_not_allowed"),
    ):
        for path in ("/v1/models", "/healthz", "/metrics", "/nowhere"):
            assert await answer(gateway, path, page) == (403, code)
        for path, body in ((CHAT, ASK), ("/v1/feedback", FEEDBACK)):
            assert await answer(gateway, path, JSON | page, body) == (403, code)
    assert fake.history == []
    assert gateway.logged() == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
async def test_content_types_that_a_page_may_send_without_preflight_are_rejected(
    fake: FakeVllm, gateway: RunningGateway, kind: str | None
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    for path, body in ((CHAT, ASK), ("/v1/feedback", FEEDBACK)):
        assert await answer(gateway, path, headers, body) == (415, "unsupported_media_type")
    assert fake.history == []


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
async def test_a_client_behind_an_allowed_proxy_is_answered(
    fake: FakeVllm, tmp_path: Path, kind: str
) -> None:
    proxied = Server(allowed_hosts=("llm.example.com",))
    async with run_gateway(tmp_path, fake, settings=proxied) as gateway:
        headers = {"Host": "llm.example.com", "Content-Type": kind}
        assert await answer(gateway, CHAT, headers, ASK) == (200, "")
