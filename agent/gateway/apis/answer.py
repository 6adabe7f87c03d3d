"""The engine's answer, independent of the API: text, tool calls, token counts.

An answer is parsed once, after its last byte, from a body or from the events of a stream; both
yield the same `Answer`.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.json import Decoder

Json = dict[str, Any]
ANY_OBJECT: Decoder[Json] = Decoder(Json)
"""Decodes every field of an answer."""


@dataclass
class Answer:
    """One answer of the engine."""

    text: str = ""
    reasoning: str = ""
    """The reasoning before the text."""
    refusal: str = ""
    finish_reason: str | None = None
    tool_calls: list[Json] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    other_choices: list[str] = field(default_factory=list)
    """The texts of the choices after the first."""
    error: str | None = None
    """The error that the engine reported inside a started stream."""
    chunk_count: int = 0
    """The number of deltas in a stream; each has at least one token."""

    def details(self) -> Json:
        """Return what is stored in addition to the text."""
        details: Json = {"finish_reason": self.finish_reason}
        optional = {
            "tool_calls": self.tool_calls,
            "others": self.other_choices,
            "reasoning": self.reasoning,
            "refusal": self.refusal,
        }
        return details | {name: value for name, value in optional.items() if value}


def decode_body(body: bytes, answer: Answer, decoder: Decoder[Any] = ANY_OBJECT) -> Json:
    """Decode the JSON object of a body; return an empty one, and set the error, if it is not one.

    Args:
        body: The body.
        answer: Gets the error.
        decoder: Decodes the fields that are read and skips the others: for 100,000 log
            probabilities that takes milliseconds instead of a fraction of a second.
    """
    try:
        decoded: Json = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer.error = "the engine's answer is not JSON"
        return {}
    return decoded


def error_text(error: object) -> str:
    """Return the message of an engine's error."""
    return str(error.get("message")) if isinstance(error, dict) else str(error)
