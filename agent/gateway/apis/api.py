"""What an API is to the gateway: a path, a request, and how its answers and errors read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from agent.gateway.apis.answer import Answer
from agent.gateway.apis.request import ApiRequest
from agent.gateway.errors import RequestError


def openai_error(error: RequestError) -> dict[str, Any]:
    """The body of an error as OpenAI gives it."""
    return error.payload()


def openai_error_event(error: RequestError) -> bytes:
    """An error inside a stream that has begun."""
    return b"data: " + orjson.dumps(error.payload()) + b"\n\n"


def never(_event: bytes) -> bool:
    """Of no event."""
    return False


@dataclass(frozen=True)
class Api:
    """One of the APIs that clients speak; the engine speaks it too, on the same path."""

    path: str
    request: type[ApiRequest]
    parse_body: Callable[[bytes], Answer]
    """Reads a whole answer."""
    parse_events: Callable[[bytes], Answer]
    """Reads a stream, whole or broken off."""
    is_end: Callable[[bytes], bool] = never
    """Whether an event is the last of a stream."""
    is_usage_only: Callable[[bytes], bool] = never
    """Whether an event is there for its token counts alone, which the gateway asks for."""
    has_usage_option: bool = False
    """Whether streams have token counts only where they are asked for."""
    error: Callable[[RequestError], dict[str, Any]] = openai_error
    error_event: Callable[[RequestError], bytes] = openai_error_event
    is_conversation: bool = True
    """Whether what is said takes turns: gets a context, and may be learned from."""
