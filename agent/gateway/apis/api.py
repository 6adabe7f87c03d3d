"""The interface of an API: its path, its request schema, its parsers and its errors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from agent.gateway.apis.answer import Answer
from agent.gateway.apis.request import ApiRequest
from agent.gateway.errors import RequestError


def openai_error(error: RequestError) -> dict[str, Any]:
    """Return the body of an error in OpenAI's shape."""
    return error.payload()


def openai_error_event(error: RequestError) -> bytes:
    """Return an error as an event of a started stream."""
    return b"data: " + orjson.dumps(error.payload()) + b"\n\n"


def never(_event: bytes) -> bool:
    """Return False: no event matches."""
    return False


@dataclass(frozen=True)
class Api:
    """An API that clients use; the engine serves it on the same path."""

    path: str
    request: type[ApiRequest]
    parse_body: Callable[[bytes], Answer]
    """Parses the body of an answer."""
    parse_events: Callable[[bytes], Answer]
    """Parses the events of a stream, complete or cut off."""
    is_end: Callable[[bytes], bool] = never
    """Returns whether an event is the last of a stream."""
    is_usage_only: Callable[[bytes], bool] = never
    """Returns whether an event has only the token counts that the gateway requests."""
    has_usage_option: bool = False
    """Whether a stream has token counts only on request."""
    error: Callable[[RequestError], dict[str, Any]] = openai_error
    error_event: Callable[[RequestError], bytes] = openai_error_event
    is_conversation: bool = True
    """Whether requests are conversations: composed with a context, and learned from."""
