"""`POST /v1/embeddings`, for engines with an embedding model."""

import re
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BeforeValidator, Field

from agent.gateway.apis.answer import Answer, decode_body
from agent.gateway.apis.request import NEVER_FORWARDED, ApiRequest
from agent.gateway.apis.strict import Text, as_text_list
from store.contexts import Message

MAX_INPUTS = 2048
USAGE = re.compile(rb'"usage":\{"[^{}]*\}(?=\}$)')
USAGE_TAIL_BYTES = 1024
"""The last bytes of an answer, which contain its token counts."""

Inputs = Annotated[
    list[Text],
    Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS),
    BeforeValidator(as_text_list),
]


class EmbeddingRequest(ApiRequest):
    """The body of `POST /v1/embeddings`."""

    NOT_FORWARDED: ClassVar = NEVER_FORWARDED
    CONTENT_FIELDS: ClassVar = frozenset({"input"})

    input: Inputs
    """Texts; token ids are rejected."""
    stream: None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None

    def chat_messages(self) -> list[Message]:
        """Return each text as a user message."""
        return [{"role": "user", "content": text} for text in self.input]

    def content_fields(self, messages: list[Message]) -> dict[str, Any]:
        """Return the texts."""
        return {"input": [message["content"] for message in messages]}


def parse_body(body: bytes) -> Answer:
    """Parse the token counts; vectors are not stored, and usually not parsed."""
    answer = Answer()
    usage_json = USAGE.search(body, max(0, len(body) - USAGE_TAIL_BYTES))
    whole = (
        orjson.loads(b"{" + usage_json.group() + b"}") if usage_json else decode_body(body, answer)
    )
    usage = whole.get("usage") or {}
    answer.prompt_tokens = usage.get("prompt_tokens")
    return answer


def parse_events(_events: bytes) -> Answer:
    """Return an empty answer: embeddings are not streamed."""
    return Answer()
