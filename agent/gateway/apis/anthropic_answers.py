"""Parse Anthropic messages and their streams; build Anthropic errors."""

import json
from typing import Any

import orjson

from agent.gateway.apis.answer import Answer, Json, decode_body, error_text
from agent.gateway.errors import RequestError
from agent.gateway.http.event_stream import EVENT_END, event_json


def parse_body(body: bytes) -> Answer:
    """Parse the body of a message."""
    answer = Answer()
    _read_message(decode_body(body, answer), answer)
    return answer


def parse_events(events: bytes) -> Answer:
    """Parse the events of a stream, complete or cut off."""
    answer = Answer()
    texts: list[str] = []
    thoughts: list[str] = []
    calls: dict[int, Json] = {}
    for raw in EVENT_END.split(events):
        event = event_json(raw) or {}
        delta = event.get("delta") or {}
        kind = event.get("type")
        if kind == "message_start":
            _read_message(event.get("message") or {}, answer)
        elif kind == "error":
            answer.error = error_text(event.get("error"))
        elif kind == "content_block_start":
            _begin_block(event, calls)
        elif kind == "content_block_delta":
            answer.chunk_count += 1
            texts.append(delta.get("text") or "")
            thoughts.append(delta.get("thinking") or "")
            if delta.get("type") == "input_json_delta" and event.get("index") in calls:
                calls[event["index"]]["function"]["arguments"] += delta.get("partial_json") or ""
        elif kind == "message_delta":
            answer.finish_reason = delta.get("stop_reason") or answer.finish_reason
            _count(event.get("usage"), answer)
    answer.text, answer.reasoning = "".join(texts), "".join(thoughts)
    answer.tool_calls = [calls[index] for index in sorted(calls)]
    return answer


def is_end(event: bytes) -> bool:
    """Return whether an event is the last of a stream."""
    return b"message_stop" in event and (event_json(event) or {}).get("type") == "message_stop"


def error_body(error: RequestError) -> dict[str, Any]:
    """Return the body of an error in Anthropic's shape."""
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
    kinds |= {413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error"}
    other = "invalid_request_error" if error.status < 500 else "api_error"
    return {
        "type": "error",
        "error": {"type": kinds.get(error.status, other), "message": error.message},
    }


def error_event(error: RequestError) -> bytes:
    """Return an error as an event of a started stream."""
    return b"event: error\ndata: " + orjson.dumps(error_body(error)) + b"\n\n"


def _read_message(message: Json, answer: Answer) -> None:
    blocks = message.get("content") or []
    answer.text = "".join(block.get("text") or "" for block in blocks)
    answer.reasoning = "".join(block.get("thinking") or "" for block in blocks)
    answer.tool_calls = [
        _tool_call(block, json.dumps(block.get("input") or {}))
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    answer.finish_reason = message.get("stop_reason")
    _count(message.get("usage"), answer)


def _begin_block(event: Json, calls: dict[int, Json]) -> None:
    block = event.get("content_block") or {}
    if block.get("type") == "tool_use":
        calls[event.get("index", 0)] = _tool_call(block, "")


def _tool_call(block: Json, arguments: str) -> Json:
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _count(usage: Json | None, answer: Answer) -> None:
    if usage:
        answer.prompt_tokens = usage.get("input_tokens") or answer.prompt_tokens
        answer.completion_tokens = usage.get("output_tokens") or answer.completion_tokens
