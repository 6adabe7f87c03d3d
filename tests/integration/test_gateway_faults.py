"""A network fault between gateway and engine, at any byte, is reported and recorded once."""

import asyncio
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.engine import client
from store.schema import InteractionStatus
from tests.support.fake_vllm import FakeVllm
from tests.support.fault_proxy import KINDS, Fault, FaultProxy
from tests.support.running_gateway import QUESTION, RunningGateway, run_gateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

PATIENCE_S = 0.4
SILENT = ("blackhole", "corrupt")
"""After these the gateway may wait for bytes that never come: a corrupt length promises more."""
AFTER = (0, 1, 17, 160, 300, 420, 700, 1500, 10**6)
"""Within the status line, the head, the first event, the later ones; never."""
SAID = "one two three four five six seven eight"
STREAM_END = "data: [DONE]\n\n"


def outcome(is_stream: bool, status: int, raw: Any) -> str:
    """What the client has: the whole answer, or an error it can tell."""
    if not is_stream:
        return "whole" if status == 200 and "choices" in raw else "error"
    if status != 200:
        return "error"
    if raw.endswith(STREAM_END):
        return "whole"
    return "error" if re.search(r'data: \{"error":[^\n]*\}\n\n$', raw) else "silence"


async def ask(gateway: RunningGateway, is_stream: bool, question: str = "When do you open?") -> str:
    messages = [{"role": "user", "content": question}]
    body = {"model": "small", "messages": messages, "stream": is_stream}
    status, raw = await gateway.fetch("POST", "/v1/chat/completions", json=body)
    assert status in (200, 502, 503)
    return outcome(is_stream, status, raw)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_network_fault_at_any_byte_is_reported_and_recorded_once(
    fake: FakeVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_stream: bool
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_PER_TOKEN_S", 0.0)
    patience_s = PATIENCE_S if kind in SILENT else 20.0

    async with (
        FaultProxy(fake.port) as proxy,
        run_gateway(
            tmp_path, fake, engine_url=proxy.url, first_byte_timeout_s=patience_s
        ) as gateway,
    ):
        for count, after in enumerate(AFTER, 1):
            proxy.fault = Fault(kind, after)
            fake.enqueue(SAID)
            had = await ask(gateway, is_stream, f"When do you open room {count}?")
            said = (await gateway.wait_logged(count))[-1]
            assert had in ("whole", "error"), (kind, after)
            if had == "whole":
                assert said.interaction.status is InteractionStatus.DONE
                assert kind == "corrupt" or said.payload.response == SAID
            else:
                assert said.interaction.status is InteractionStatus.FAILED
                assert said.interaction.error
                assert kind == "corrupt" or SAID.startswith(said.payload.response)
            assert len(gateway.logged()) == count
        proxy.fault = None
        assert "whole" in [await ask(gateway, is_stream, f"Now, {n}?") for n in range(3)]
        sent = [body["messages"][-1]["content"] for body in fake.history]
        assert len(sent) == len(set(sent))  # nothing is sent twice
        # On a machine that stands still for PATIENCE_S a question may not get as far.
        assert len(sent) == len(AFTER) + 3 or kind in SILENT


@pytest.mark.parametrize("kind", ["reset", "half_close", "blackhole"])
async def test_a_network_fault_after_a_streams_last_event_changes_nothing(
    fake: FakeVllm, tmp_path: Path, kind: str
) -> None:
    """Whatever becomes of the connection after that."""

    async with (
        FaultProxy(fake.port) as proxy,
        run_gateway(tmp_path, fake, engine_url=proxy.url) as gateway,
    ):
        whole = await stream_bytes(fake)
        proxy.fault = Fault(kind, after=whole - len(LAST_CHUNK))
        fake.enqueue(SAID)
        assert await ask(gateway, is_stream=True) == "whole"
        [said] = gateway.logged()
        assert said.interaction.status is InteractionStatus.DONE


LAST_CHUNK = b"0\r\n\r\n"


async def stream_bytes(fake: FakeVllm) -> int:
    """How long a streamed answer is on the wire."""
    fake.enqueue(SAID)
    body = {"model": "small", "messages": QUESTION, "stream": True}
    body |= {"stream_options": {"include_usage": True}}
    sent = orjson.dumps(body)
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(sent)}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + sent)
    answer = await reader.readuntil(LAST_CHUNK)
    writer.close()
    return len(answer)
