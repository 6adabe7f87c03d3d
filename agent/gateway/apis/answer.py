"""What the engine said: text, tool calls and token counts, whatever API it said it in.

Read once, after the last byte, from a whole body or from a whole stream; both give the same
`Answer`.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.json import Decoder

Json = dict[str, Any]
ANY_OBJECT: Decoder[Json] = Decoder(Json)
"""Of everything in an answer."""


@dataclass
class Answer:
    """One answer of the engine."""

    text: str = ""
    reasoning: str = ""
    """What the model thought before it."""
    refusal: str = ""
    finish_reason: str | None = None
    tool_calls: list[Json] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    other_choices: list[str] = field(default_factory=list)
    """Texts of the further choices, where several were asked for."""
    error: str | None = None
    """What the engine reported inside a stream that had begun."""
    chunk_count: int = 0
    """In how many pieces a stream had it come, of whatever kind; each is a token or more."""

    def details(self) -> Json:
        """What is stored beside the text."""
        details: Json = {"finish_reason": self.finish_reason}
        more = {
            "tool_calls": self.tool_calls,
            "others": self.other_choices,
            "reasoning": self.reasoning,
            "refusal": self.refusal,
        }
        return details | {name: value for name, value in more.items() if value}


def decode_body(body: bytes, answer: Answer, decoder: Decoder[Any] = ANY_OBJECT) -> Json:
    """The JSON object of a whole answer; empty, with an error noted, for anything else.

    Args:
        body: The answer.
        answer: Where an error is noted.
        decoder: Of what is read: the rest is passed over, which for a hundred thousand
            probabilities takes milliseconds instead of a part of a second.
    """
    try:
        whole: Json = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer.error = "the engine's answer is not JSON"
        return {}
    return whole


def error_text(error: object) -> str:
    """What an error of the engine says."""
    return str(error.get("message")) if isinstance(error, dict) else str(error)
