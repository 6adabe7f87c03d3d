"""The chat request: every field of the OpenAI API, bounded, and what of it the engine gets.

The body that is forwarded is built again from here, field by field: an unknown field is refused
with the nearest known one, and a number out of range never reaches the engine (one request with a
huge `n`, a bad `cache_salt` or a deep schema has been enough to take engines down). Fields in
`KEPT_BACK` are accepted, stored with the interaction, and not forwarded.
"""

import difflib
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from agent.gateway import messages as parts
from agent.gateway.errors import RequestError, short
from agent.gateway.messages import (
    JsonSchema,
    Messages,
    NamedTool,
    ResponseFormat,
    StreamOptions,
    Strict,
    Tool,
    ToolChoice,
)

INT64 = 2**63
MAX_N = 8
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Limit = Annotated[int, Field(ge=1)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
Stops = Annotated[
    list[StopText],
    Field(fail_fast=True, max_length=4),
    BeforeValidator(lambda stop: [stop] if isinstance(stop, str) else stop),
]
Key = Annotated[str, Field(max_length=64)]
Label = Annotated[str, Field(max_length=512)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,7}$")]

KEPT_BACK = frozenset(
    {
        "messages",
        "model",
        "stream_options",
        "store",
        "metadata",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "service_tier",
        "verbosity",
        "modalities",
        "prediction",
        "moderation",
        "cache_salt",
        "priority",
        "request_id",
    }
)
"""Not forwarded as they are: composed by the gateway, of no meaning to vLLM, or not for clients."""


class ChatRequest(Strict):
    """The body of `POST /v1/chat/completions`."""

    messages: Messages
    model: Annotated[str, Field(min_length=1, max_length=256)]

    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Field(fail_fast=True, max_length=300)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    stop: Stops | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, min_length=1, max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )

    # What vLLM takes beside the OpenAI API.
    top_k: Annotated[int, Field(ge=-1, le=100_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None

    store: bool | None = None
    metadata: Annotated[dict[Key, Label], Field(fail_fast=True, max_length=16)] | None = None
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    prompt_cache_options: JsonSchema | None = None
    service_tier: Label | None = None
    verbosity: Label | None = None
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True, max_length=8)] | None = None
    prediction: JsonSchema | None = None
    moderation: JsonSchema | None = None
    cache_salt: Label | None = None
    priority: int | None = None
    request_id: Label | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise _inconsistent("top_logprobs", "Set 'logprobs' to true to get top_logprobs.")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise _inconsistent("tool_choice", "Give 'tools', or leave 'tool_choice' out.")
        if isinstance(self.tool_choice, NamedTool) and not self._has_tool(self.tool_choice):
            raise _inconsistent("tool_choice", "'tool_choice' names a function not in 'tools'.")
        if self.stream_options is not None and not self.stream:
            raise _inconsistent("stream_options", "Set 'stream' to true to use stream_options.")
        form = self.response_format
        if form is not None and form.type == "json_schema" and form.json_schema is None:
            raise _inconsistent("response_format", "Type 'json_schema' needs 'json_schema'.")
        return self

    def _has_tool(self, choice: NamedTool) -> bool:
        return any(tool.function.name == choice.function.name for tool in self.tools or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a streamed answer ends with a chunk that has the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def chat(self) -> list[dict[str, Any]]:
        """The messages as plain dicts, without nulls and fields that say nothing to a model."""
        return [message.model_dump(exclude_none=True, by_alias=True) for message in self.messages]

    def params(self) -> dict[str, Any]:
        """Everything but the messages, as it is stored."""
        return self.model_dump(exclude={"messages"}, exclude_none=True, by_alias=True)

    def forwarded(self) -> dict[str, Any]:
        """The fields that the engine gets, beside `model`, `messages` and `stream_options`."""
        return {name: value for name, value in self.params().items() if name not in KEPT_BACK}


def _inconsistent(param: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "param": param})


def parse_chat(body: bytes, max_tokens_cap: int) -> ChatRequest:
    """Read a chat request.

    Raises:
        RequestError: It is not JSON, has an unknown field, or a value out of range (400).
    """
    try:
        request = ChatRequest.model_validate(parse_json(body))
    except ValidationError as error:
        raise explain(error, ChatRequest) from error
    _check_limits(request, max_tokens_cap)
    return request


def _check_limits(request: ChatRequest, cap: int) -> None:
    limits = {
        "max_tokens": request.max_tokens,
        "max_completion_tokens": request.max_completion_tokens,
    }
    for name, limit in limits.items():
        if limit is not None and limit > cap:
            message = f"'{name}' is {limit}, but at most {cap} is served here. Ask for less, or "
            raise _out_of_range(name, message + "raise server.max_tokens_cap.")
    least, most = request.min_tokens or 0, min(filter(None, [*limits.values(), cap]))
    if least > most:
        message = f"'min_tokens' is {least}, but the answer may have at most {most} tokens."
        raise _out_of_range("min_tokens", message)


def _out_of_range(param: str, message: str) -> RequestError:
    return RequestError(400, message, code="value_out_of_range", param=param)


def parse_json(body: bytes) -> object:
    """Decode a JSON body.

    Raises:
        RequestError: It is not UTF-8 or not JSON (400).
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            400, f"The request body is not valid JSON in UTF-8: {error}.", code="invalid_json"
        ) from error


def explain(error: ValidationError, model: type[Strict]) -> RequestError:
    """The first problem of a request, in words."""
    problem = error.errors(include_url=False, include_input=False)[0]
    path = _path([str(part) for part in problem["loc"]], problem["type"])
    context = problem.get("ctx", {})
    where = str(context.get("param") or ".".join(path))
    if problem["type"] == "extra_forbidden":
        known = model.model_fields if len(path) == 1 else NESTED_FIELDS
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.0)
        message = f"Unknown field '{where}'. Did you mean '{near[0]}'?"
        return RequestError(400, message, code="unknown_field", param=where)
    message = (
        problem["msg"] if where in ("", context.get("param")) else f"'{where}': {problem['msg']}"
    )
    return RequestError(400, message, code=problem["type"], param=where or None)


def _path(location: list[str], problem: str) -> list[str]:
    """Where a problem is, without the tags of unions; an unknown field may look like one."""
    unknown = location[-1:] if problem == "extra_forbidden" else []
    known = location[: len(location) - len(unknown)]
    return [short(part) for part in (*(part for part in known if part[:1] != "<"), *unknown)]


NESTED_FIELDS = sorted(
    {
        field.alias or name
        for kind in vars(parts).values()
        if isinstance(kind, type) and issubclass(kind, Strict)
        for name, field in kind.model_fields.items()
    }
)
