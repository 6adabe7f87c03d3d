"""`POST /v1/responses`: OpenAI's Responses API, without what a server keeps between requests."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Discriminator, Field, Tag

from agent.gateway.apis.answer import Json
from agent.gateway.grammar import JsonSchema
from agent.gateway.messages import MAX_MESSAGES, FunctionName, bounded_parts, content_tag, text_only
from agent.gateway.request import (
    NOT_FORWARDED,
    ApiRequest,
    Label,
    Limit,
    Metadata,
    MinP,
    Repetition,
    Seed,
    Stops,
    TopK,
    TopP,
)
from agent.gateway.strict import JsonObjects, Strict, unserved
from store.contexts import SYSTEM_ROLES, Message, split_system

Id = Annotated[str, Field(max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]
KEPT = "Nothing is kept between requests: send the whole conversation as 'input'."


class TextPart(Strict):
    """Text as one part of several."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Any = Field(None, exclude=True)
    prompt_cache_breakpoint: Any = Field(None, exclude=True)
    logprobs: Any = Field(None, exclude=True)
    parsed: Any = Field(None, exclude=True)


def _refusal_as_text(part: object) -> object:
    """A refusal of the model in the history is what it said."""
    if isinstance(part, dict) and part.get("type") == "refusal":
        return {"type": "output_text", "text": part.get("refusal")}
    return part


Part = Annotated[
    Annotated[TextPart, BeforeValidator(_refusal_as_text), Tag("<text>")],
    text_only(
        dict.fromkeys(("input_text", "output_text", "text", "refusal"), "<text>"), "parts of text"
    ),
]
Content = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[Part], Tag("<parts>"), Field(fail_fast=True, max_length=256)],
    Discriminator(content_tag),
]


def _joined_texts(output: object) -> object:
    """The texts of parts as one; anything else as it is, to be refused."""
    parts = output if isinstance(output, list) else []
    texts = [str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part]
    return "".join(texts) if parts and len(texts) == len(parts) else output


class Said(Strict):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: Id | None = None
    status: Status | None = None
    phase: Label | None = Field(None, exclude=True)


class Calling(Strict):
    """What servers note on calls and their outputs, and clients send back; of no meaning here."""

    asynchronous: Any = Field(None, validation_alias=AliasChoices("async", "async_"), exclude=True)
    caller: Any = Field(None, exclude=True)
    created_by: Any = Field(None, exclude=True)
    namespace: Any = Field(None, exclude=True)


class FunctionCall(Calling):
    """A call of a function in the history."""

    type: Literal["function_call"]
    call_id: Id
    name: FunctionName
    arguments: str
    parsed_arguments: Any = Field(None, exclude=True)
    id: Id | None = None
    status: Status | None = None


class FunctionOutput(Calling):
    """What a function gave back."""

    type: Literal["function_call_output"]
    call_id: Id
    name: Any = Field(None, exclude=True)
    output: Annotated[str, BeforeValidator(_joined_texts)]
    id: Id | None = None
    status: Status | None = None


class Thought(Strict):
    """What the model thought, sent back in the history."""

    type: Literal["reasoning"]
    id: Id | None = None
    summary: JsonObjects | None = None
    content: JsonObjects | None = None
    encrypted_content: str | None = None
    status: Status | None = None


def _item_tag(item: object) -> str | None:
    kind = item.get("type", "message") if isinstance(item, dict) else None
    return f"<{kind}>" if isinstance(kind, str) and kind in ITEMS else None


ITEMS = ("message", "function_call", "function_call_output", "reasoning")
Item = Annotated[
    Annotated[Said, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionOutput, Tag("<function_call_output>")]
    | Annotated[Thought, Tag("<reasoning>")],
    Discriminator(
        _item_tag,
        custom_error_type="text_only",
        custom_error_message="Only messages of text, function calls and their outputs are served "
        "here: this endpoint fetches no images or files, and runs no tools.",
    ),
]


class FunctionTool(Strict):
    """A function that the model may call; the client runs it."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class NamedFunction(Strict):
    """The one function that the model must call."""

    type: Literal["function"]
    name: FunctionName


class TextFormat(Strict):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: Label | None = None
    description: str | None = None
    json_schema: JsonSchema | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(Strict):
    """How the answer's text is to be."""

    format: TextFormat | None = None
    verbosity: Label | None = None


class Reasoning(Strict):
    """How much the model thinks first."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Label | None = None


class Obfuscation(Strict):
    """Whether events are padded to one length; here none is."""

    include_obfuscation: bool | None = None


class ResponsesRequest(ApiRequest):
    """The body of `POST /v1/responses`."""

    KEPT_BACK: ClassVar = NOT_FORWARDED | {
        *("background", "previous_response_id", "conversation"),
        *("max_tool_calls", "stream_options"),
    }
    SAID: ClassVar = frozenset({"instructions", "input"})
    LIMIT: ClassVar = "max_output_tokens"

    input: Annotated[
        list[Item],
        Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES),
        BeforeValidator(
            lambda said: [{"role": "user", "content": said}] if isinstance(said, str) else said
        ),
        BeforeValidator(bounded_parts),
    ]
    instructions: str | None = None
    background: Annotated[Literal[False] | None, unserved("Answers are given at once.")] = None
    previous_response_id: Annotated[None, unserved(KEPT)] = None
    conversation: Annotated[None, unserved(KEPT)] = None
    include: Annotated[list[Label], Field(fail_fast=True, max_length=16)] | None = None
    max_output_tokens: Limit | None = None
    max_tool_calls: Limit | None = None
    """Of tools that a server runs: there are none here."""
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    reasoning: Reasoning | None = None
    service_tier: Label | None = None
    stream_options: Obfuscation | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    text: TextConfig | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=128)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: TopP | None = None
    truncation: Literal["auto", "disabled"] | None = None

    # What vLLM takes beside the OpenAI API.
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: Repetition | None = None
    seed: Seed | None = None
    stop: Stops | None = None
    ignore_eos: bool | None = None

    def limits(self) -> dict[str, int | None]:
        """The longest answer."""
        return {"max_output_tokens": self.max_output_tokens}

    def compiled(self) -> list[dict[str, Any] | None]:
        """Those of functions that must be called, or strictly."""
        is_strict = self.tool_choice == "required"
        return [tool.parameters for tool in self.tools or () if tool.strict or is_strict]

    def listed_per_token(self) -> int:
        """The token itself and its alternatives."""
        return 1 + self.top_logprobs if self.top_logprobs else 0

    def tags(self) -> dict[str, str]:
        """The metadata."""
        return self.metadata or {}

    def chat(self) -> list[Message]:
        """The instructions and the items as chat messages; thoughts are not said."""
        first: list[Message] = (
            [{"role": "system", "content": self.instructions}] if self.instructions else []
        )
        said = (_chat_message(item) for item in self.input)
        return [*first, *_joined([message for message in said if message])]

    def said(self, messages: list[Message]) -> dict[str, Any]:
        """The system text of `messages` as instructions, and the other items of the request."""
        system, _ = split_system(messages)
        items = [item.model_dump(exclude_none=True) for item in self.input]
        while items and items[0].get("role") in SYSTEM_ROLES:
            del items[0]
        # Nothing is to be kept by the engine.
        said: dict[str, Any] = {"input": items, "store": False}
        return said | ({"instructions": system} if system else {})


def _joined(messages: list[Message]) -> list[Message]:
    """Chat messages with what the model said and called at a time in one, as it was answered."""
    joined: list[Message] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "assistant":
            last = joined[-1]
            calls = [*last.get("tool_calls", ()), *message.get("tool_calls", ())]
            text = f"{last['content']}{message['content']}"
            joined[-1] = last | {"content": text} | ({"tool_calls": calls} if calls else {})
        else:
            joined.append(message)
    return joined


def _chat_message(item: Said | FunctionCall | FunctionOutput | Thought) -> Message | None:
    if isinstance(item, Said):
        parts = item.content
        text = parts if isinstance(parts, str) else "\n".join(part.text for part in parts)
        return {"role": item.role, "content": text}
    if isinstance(item, FunctionCall):
        function: Json = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if isinstance(item, FunctionOutput):
        return {"role": "tool", "tool_call_id": item.call_id, "content": item.output}
    return None
