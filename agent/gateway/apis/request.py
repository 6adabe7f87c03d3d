"""The base of every API's request: strict validation, and a body for the engine built from it.

Unknown fields are rejected, and numbers out of range never reach the engine: a single request with
a huge `n`, an invalid `cache_salt` or a deep schema has crashed engines. Fields in `NOT_FORWARDED`
are accepted and stored with the interaction, but not forwarded.
"""

import difflib
import re
import sys
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import orjson
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from agent.gateway.apis import chat_messages
from agent.gateway.apis.schema_cost import check_grammar_cost
from agent.gateway.apis.strict import Strict
from agent.gateway.errors import RequestError, short
from store.contexts import Message

INT64 = 2**63
MAX_LOGPROBS = 2**17
"""Log probabilities in all answers to a request, alternatives included."""
MAX_VALUES = 2**16
"""Values in a request; parsing many in the event loop would delay other requests."""
JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""A JSON string; an unterminated one extends to the end, so that a scan takes linear time."""
MAX_CHOICES_PER_PROMPT = 8
SUGGESTION_CUTOFF = 0.75
"""Minimum similarity of the field name that an error suggests."""
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
LogitBias = Annotated[dict[TokenId, Bias], Field(fail_fast=True, max_length=300)]
Metadata = Annotated[dict[Key, Label], Field(fail_fast=True, max_length=16)]
Seed = Annotated[int, Field(ge=-INT64, lt=INT64)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=-1, le=100_000)]
MinP = Annotated[float, Field(ge=0, le=1)]
Repetition = Annotated[float, Field(gt=0, le=2)]


class ApiRequest(Strict):
    """The body of a request to the model, of any API."""

    NOT_FORWARDED: ClassVar[frozenset[str]]
    """Fields that vLLM does not know, or that clients may not set in the engine."""
    CONTENT_FIELDS: ClassVar[frozenset[str]]
    """Fields with the conversation's content: recorded as messages, and composed with a context."""
    LIMIT_FIELD: ClassVar[str] = ""
    """The field that limits an answer, if the engine has no default limit; else empty."""
    CLAMPS_LIMIT: ClassVar[bool] = False
    """Whether a limit above the cap is lowered, not rejected, since the API requires a limit."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    stream: bool | None = None
    store: bool | None = None
    user: Label | None = None
    safety_identifier: Label | None = None
    cache_salt: Label | None = None
    priority: int | None = None
    request_id: Label | None = None

    @abstractmethod
    def chat_messages(self) -> list[Message]:
        """Return the content as chat messages, which are recorded and composed with a context."""

    @abstractmethod
    def content_fields(self, messages: list[Message]) -> dict[str, Any]:
        """Return the engine's fields for `messages`: those of `chat_messages`, with a context."""

    def token_limits(self) -> Mapping[str, int | None]:
        """Return the fields that limit the answer's length, in tokens."""
        return {}

    def engine_limits(self, max_tokens: int) -> dict[str, int]:
        """Return the fields that limit an answer to `max_tokens`, if the client sets no limit.

        With `CLAMPS_LIMIT`, a larger limit of the client is lowered: the engine would reject it.
        """
        client_limits = {
            name: limit for name, limit in self.token_limits().items() if limit is not None
        }
        if self.CLAMPS_LIMIT:
            return {name: min(limit, max_tokens) for name, limit in client_limits.items()}
        return {self.LIMIT_FIELD: max_tokens} if self.LIMIT_FIELD and not client_limits else {}

    def max_answer_tokens(self, cap: int) -> int:
        """Return the maximum length of one answer in tokens, at most `cap`."""
        return min(filter(None, [*self.token_limits().values(), cap]))

    def choice_count(self) -> int:
        """Return the number of answers that the client requests."""
        return getattr(self, "n", None) or 1

    def max_total_tokens(self, cap: int) -> int:
        """Return the maximum number of tokens of all answers together."""
        return self.choice_count() * self.max_answer_tokens(cap)

    def grammar_schemas(self) -> list[dict[str, Any] | None]:
        """Return the schemas of tools that the engine compiles into one grammar."""
        return []

    def logprobs_per_token(self) -> int:
        """Return the number of log probabilities for each token of an answer."""
        return 0

    def tags(self) -> Mapping[str, str]:
        """Return the client's metadata on the request."""
        return {}

    @property
    def end_user(self) -> str | None:
        """The end user that the client names, if any; trusted as sent."""
        return self.safety_identifier or self.user

    @property
    def wants_usage(self) -> bool:
        """Whether the client requests an event with the token counts."""
        return False

    def params(self) -> dict[str, Any]:
        """Return all fields except the content, as they are stored."""
        return self.model_dump(exclude=set(self.CONTENT_FIELDS), exclude_none=True, by_alias=True)

    def forwarded_fields(self) -> dict[str, Any]:
        """Return the fields that the engine gets, in addition to the model and the content."""
        params = self.params()
        return {name: value for name, value in params.items() if name not in self.NOT_FORWARDED}


NEVER_FORWARDED = frozenset(
    {
        "model",
        "store",
        "metadata",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
        "cache_salt",
        "priority",
        "request_id",
    }
)
"""Fields that no API forwards."""

RequestT = TypeVar("RequestT", bound=ApiRequest)


def parse(kind: type[RequestT], body: bytes, max_tokens_cap: int) -> RequestT:
    """Parse and validate a request.

    Raises:
        RequestError: It is not JSON, has an unknown field, or a value out of range (400).
    """
    try:
        request = kind.model_validate(parse_json(body))
    except ValidationError as error:
        raise explain(error, kind) from error
    for name, limit in request.token_limits().items():
        if limit is not None and limit > max_tokens_cap and not request.CLAMPS_LIMIT:
            message = f"'{name}' is {limit}; the limit is {max_tokens_cap}. Lower it, or raise "
            raise out_of_range(name, message + "server.max_tokens_cap.")
    _check_length(request, max_tokens_cap)
    try:
        check_grammar_cost(request.grammar_schemas())
    except PydanticCustomError as error:
        raise RequestError(400, error.message(), code=error.type, param="tools") from error
    return request


def _check_length(request: ApiRequest, max_tokens_cap: int) -> None:
    """Reject contradictory lengths, and answers that would take too long to parse."""
    min_tokens = getattr(request, "min_tokens", None) or 0
    max_tokens = request.max_answer_tokens(max_tokens_cap)
    if min_tokens > max_tokens:
        message = (
            f"'min_tokens' is {min_tokens}, but the answer may have at most {max_tokens} tokens."
        )
        raise out_of_range("min_tokens", message)
    logprobs = request.max_total_tokens(max_tokens_cap) * request.logprobs_per_token()
    if logprobs > MAX_LOGPROBS:
        message = (
            f"The answer may have {logprobs} log probabilities; the limit is {MAX_LOGPROBS}. "
            "Lower max_tokens, n or the number of alternatives."
        )
        raise out_of_range("logprobs", message)


def out_of_range(param: str, message: str) -> RequestError:
    """Return the error for a number out of range."""
    return RequestError(400, message, code="value_out_of_range", param=param)


def inconsistent(param: str, message: str) -> PydanticCustomError:
    """Return the error for contradictory fields, for a validator to raise."""
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "param": param})


def check_tool_choice(must_call: bool, name: str | None, offered: Collection[str]) -> None:
    """Reject a tool choice without tools, or of a function `name` that is not `offered`."""
    if must_call and not offered:
        raise inconsistent("tool_choice", "Send 'tools', or omit 'tool_choice'.")
    if name is not None and name not in offered:
        raise inconsistent("tool_choice", "'tool_choice' names a function not in 'tools'.")


def parse_json(body: bytes) -> object:
    """Decode a JSON body.

    Raises:
        RequestError: It is not UTF-8 or not JSON, or has too many values (400).
    """
    check_value_count(body, MAX_VALUES)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            400, f"The request body is not valid JSON in UTF-8: {error}.", code="invalid_json"
        ) from error


def check_value_count(body: bytes, max_values: int) -> None:
    """Check the number of values in a JSON body, before it is parsed.

    Raises:
        RequestError: It has more than `max_values` values (400).
    """
    if body.count(b'"') - body.count(b'\\"') > 4 * max_values:
        message = f"The request has more than {2 * max_values} strings. Split it."
        raise RequestError(400, message, code="too_many_values")
    if _values(body) > max_values and (count := _values(JSON_STRING.sub(b"", body))) > max_values:
        raise RequestError(
            400,
            f"The request has {count} values; the limit is {max_values}. Shorten or split it.",
            code="too_many_values",
        )


def _values(body: bytes) -> int:
    """Return an upper bound of the number of values; strings may contain the separators."""
    return sum(map(body.count, (b",", b"[", b"{")))


def explain(error: ValidationError, model: type[Strict]) -> RequestError:
    """Return the error for the first problem of a request."""
    problem = error.errors(include_url=False, include_input=False)[0]
    path = _path([str(part) for part in problem["loc"]], problem["type"])
    context = problem.get("ctx", {})
    where = str(context.get("param") or ".".join(path))
    if problem["type"] == "extra_forbidden":
        known = model.model_fields if len(path) == 1 else _nested_fields(model)
        similar = difflib.get_close_matches(path[-1], known, n=1, cutoff=SUGGESTION_CUTOFF)
        remedy = f"Did you mean '{similar[0]}'?" if similar else "It is not supported: omit it."
        message = f"Unknown field '{where}'. {remedy}"
        return RequestError(400, message, code="unknown_field", param=where)
    message = (
        problem["msg"] if where in ("", context.get("param")) else f"'{where}': {problem['msg']}"
    )
    return RequestError(400, message, code=problem["type"], param=where or None)


def _path(location: list[str], problem: str) -> list[str]:
    """Return the path of a problem without union tags; an unknown field may look like a tag."""
    unknown = location[-1:] if problem == "extra_forbidden" else []
    known = location[: len(location) - len(unknown)]
    return [short(part) for part in (*(part for part in known if part[:1] != "<"), *unknown)]


def _nested_fields(model: type[Strict]) -> list[str]:
    """Return the names of all fields of nested objects."""
    kinds = [*vars(sys.modules[model.__module__]).values(), *vars(chat_messages).values()]
    schemas = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Strict)]
    return sorted(
        {field.alias or name for schema in schemas for name, field in schema.model_fields.items()}
    )
