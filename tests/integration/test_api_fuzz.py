"""Schemathesis on both APIs: no request causes a 500."""

import itertools
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from agent.gateway.apis import APIS
from agent.gateway.conversation_id import METADATA_KEYS
from agent.gateway.feedback import FeedbackRequest
from tests.support.event_loop import background_loop
from tests.support.fake_vllm import FakeVllm
from tests.support.running_control_api import API, run_control_api
from tests.support.running_gateway import QUESTION, RunningGateway, run_gateway

pytestmark = pytest.mark.usefixtures("each_database")

EXAMPLES = 25
MODEL = "small"
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def described() -> dict[str, Any]:
    """The API for clients, from the schemas that requests are read with."""
    bodies = {api.path: api.request for api in APIS} | {"/v1/feedback": FeedbackRequest}

    def operation(model: Any) -> dict[str, Any]:
        form = model.model_json_schema(ref_template="#/components/schemas/{model}")
        if "model" in form["properties"]:
            form["properties"]["model"] = {"const": MODEL}  # else nothing reaches the engine
        parts.update(form.pop("$defs", {}))
        return {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": form}},
                },
                "responses": {"default": {"description": "An answer, or an error."}},
            }
        }

    parts: dict[str, Any] = {}
    paths = {path: operation(model) for path, model in bodies.items()}
    info = {"title": "byheart", "version": "1"}
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": paths,
        "components": {"schemas": parts},
    }


@contextmanager
def running(gateway: AbstractAsyncContextManager[RunningGateway]) -> Iterator[str]:
    """Run a gateway in a background event loop; yields its URL."""
    with background_loop() as loop, loop.wrap_async_context_manager(gateway) as served:
        yield served.url


@pytest.fixture
def control_url(tmp_path: Path) -> Iterator[str]:
    with running(run_control_api(tmp_path)) as url:
        yield url


@pytest.fixture
def engine() -> Iterator[FakeVllm]:
    fake = FakeVllm(model=MODEL)
    fake.can_embed = True
    with fake.in_thread():
        yield fake


@pytest.fixture
def client_url(tmp_path: Path, engine: FakeVllm) -> Iterator[str]:
    with running(run_gateway(tmp_path, engine)) as url:
        yield url


def fuzz(schema: Any, url: str) -> int:
    """Send each operation what its schema allows, and what it does not; how many there were."""
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation, mode in itertools.product(operations, GenerationMode):
        if mode is GenerationMode.NEGATIVE and not takes_something(operation):
            continue

        @fuzzed
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            response = case.call(base_url=url)
            assert response.status_code < 500, (case.as_curl_command(), response.text)

        check()
    return len(operations)


def takes_something(operation: Any) -> bool:
    """Whether there is anything in a request that could be wrong."""
    return bool(operation.body or operation.query)


HEADERS = (
    "Authorization",
    "X-Api-Key",
    "X-Byheart-Conversation",
    "X-Byheart-Namespace",
    "X-Byheart-No-Learn",
    "X-Request-Id",
    "X-OpenWebUI-Chat-Id",
)
# What a header may hold (RFC 9110, section 5.5); an HTTP client sends nothing else.
values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))


@fuzzed
@given(
    model=st.text(),
    sent=st.dictionaries(st.sampled_from(HEADERS), values),
    tags=st.dictionaries(st.sampled_from(METADATA_KEYS), st.text()),
    user=st.text(),
    name=st.text(),
)
def test_no_model_name_id_or_header_causes_a_500(
    client_url: str, model: str, sent: dict[str, str], tags: dict[str, str], user: str, name: str
) -> None:
    headers = {key: value.strip().encode("latin-1") for key, value in sent.items()}
    asked = {"messages": QUESTION, "model": model, "metadata": tags, "user": user}
    with httpx.Client(base_url=client_url, headers=headers) as http:
        answers = [
            http.post("/v1/chat/completions", json=asked),
            http.post("/v1/chat/completions", json=asked | {"model": MODEL}),
            http.get(f"/v1/models/{quote(name, safe='')}"),
            http.get(f"/v1/feedback/{quote(name, safe='')}"),
            http.put(f"/v1/feedback/{quote(name, safe='')}", json={"target_id": name, "value": 1}),
        ]
    assert all(answer.status_code < 500 for answer in answers), answers


def test_the_control_api_answers_any_request_without_a_500(control_url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{control_url}{API}/openapi.json")
    assert fuzz(schema, control_url) > 20


def test_the_gateway_answers_any_request_without_a_500(client_url: str, engine: FakeVllm) -> None:
    schema = schemathesis.openapi.from_dict(described())
    assert fuzz(schema, client_url) == len(APIS) + 1
    assert len(engine.history) > EXAMPLES
