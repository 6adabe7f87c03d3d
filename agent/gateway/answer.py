"""What the engine said: text, tool calls and token counts, read from the bytes the client got.

Read once, after the last byte, from a whole body or from a whole stream; both give the same
`Answer`. Only the first choice is kept: it is what a conversation continues from.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from agent.gateway.stream import EVENT_END, event_json

Json = dict[str, Any]


@dataclass
class Answer:
    """One answer of the engine."""

    text: str = ""
    finish_reason: str | None = None
    tool_calls: list[Json] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None
    """What the engine reported inside a stream that had begun."""

    def details(self) -> Json:
        """What is stored beside the text."""
        details: Json = {"finish_reason": self.finish_reason}
        return details | ({"tool_calls": self.tool_calls} if self.tool_calls else {})


def answer_in_body(body: bytes) -> Answer:
    """The answer in the body of a response that was not streamed."""
    answer = Answer()
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer.error = "the engine's answer is not JSON"
        return answer
    _count(answer, whole)
    for choice in _first_choice(whole):
        message = choice.get("message") or {}
        answer.text = message.get("content") or ""
        answer.tool_calls = message.get("tool_calls") or []
        answer.finish_reason = choice.get("finish_reason")
    return answer


def answer_in_events(events: bytes) -> Answer:
    """The answer in the events of a stream, whole or broken off."""
    answer = Answer()
    texts: list[str] = []
    calls: dict[int, Json] = {}
    for event in EVENT_END.split(events):
        chunk = event_json(event)
        if chunk is None:
            continue
        _count(answer, chunk)
        if "error" in chunk:
            answer.error = _error_text(chunk["error"])
        for choice in _first_choice(chunk):
            delta = choice.get("delta") or {}
            texts.append(delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                _add_call(calls, call)
            answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    answer.text = "".join(texts)
    answer.tool_calls = [_joined(calls[index]) for index in sorted(calls)]
    return answer


def _first_choice(chunk: Json) -> list[Json]:
    return [choice for choice in chunk.get("choices") or () if choice.get("index", 0) == 0]


def _count(answer: Answer, chunk: Json) -> None:
    usage = chunk.get("usage")
    if usage:
        answer.prompt_tokens = usage.get("prompt_tokens")
        answer.completion_tokens = usage.get("completion_tokens")


def _error_text(error: object) -> str:
    return str(error.get("message")) if isinstance(error, dict) else str(error)


def _add_call(calls: dict[int, Json], delta: Json) -> None:
    """Add a piece of a tool call; its arguments come in many."""
    call = calls.setdefault(delta.get("index", 0), {"name": "", "arguments": []})
    call["id"] = delta.get("id") or call.get("id")
    function = delta.get("function") or {}
    call["name"] = function.get("name") or call["name"]
    call["arguments"].append(function.get("arguments") or "")


def _joined(call: Json) -> Json:
    function = {"name": call["name"], "arguments": "".join(call["arguments"])}
    return {"id": call.get("id"), "type": "function", "function": function}
