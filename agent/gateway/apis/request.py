"""Requests as every API has them: read strictly, and built again for the engine field by field.

An unknown field is refused, and a number out of range never reaches the engine (one request with a
huge `n`, a bad `cache_salt` or a deep schema has been enough to take engines down). What is
`NOT_FORWARDED` is accepted, stored with the interaction, and not forwarded.
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

from agent.gateway.apis import messages
from agent.gateway.apis.schema_cost import check_grammar_cost
from agent.gateway.apis.strict import Strict
from agent.gateway.errors import RequestError, short
from store.contexts import Message

INT64 = 2**63
MAX_LOGPROBS = 2**17
"""Most tokens, with their alternatives, that an answer may list with probabilities."""
MAX_VALUES = 2**16
"""Most values in a request: it is read in the event loop, so many hold everybody up."""
JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""Of JSON; one that does not end goes to the end, so that looking takes linear time."""
MAX_CHOICES_PER_PROMPT = 8
SUGGESTION_CUTOFF = 0.75
"""How like a field's name another one is that may have been meant."""
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
    """The body of a request to the model, in whatever API."""

    NOT_FORWARDED: ClassVar[frozenset[str]]
    """Fields that are not forwarded as they are: of no meaning to vLLM, or not for clients."""
    CONTENT_FIELDS: ClassVar[frozenset[str]]
    """Fields that say what was said: recorded as messages, and composed by the gateway."""
    LIMIT_FIELD: ClassVar[str] = ""
    """The field that bounds an answer that the engine would not bound by itself; empty: it does."""
    CLAMPS_LIMIT: ClassVar[bool] = False
    """Whether clients must bound the answer, and do so by more than they mean to have."""

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
        """What was said, as the chat messages that are recorded and composed with a context."""

    @abstractmethod
    def content_fields(self, messages: list[Message]) -> dict[str, Any]:
        """The fields for the engine that say what `said` does: `chat`'s messages and a context."""

    def token_limits(self) -> Mapping[str, int | None]:
        """The fields that bound the answer's length, in tokens."""
        return {}

    def engine_limits(self, most: int) -> dict[str, int]:
        """The limit of an answer of at most `most` tokens, where the client sets none of its own.

        A ceiling is lowered to it: the engine refuses one that is above what it can do.
        """
        given = {name: limit for name, limit in self.token_limits().items() if limit is not None}
        if self.CLAMPS_LIMIT:
            return {name: min(limit, most) for name, limit in given.items()}
        return {self.LIMIT_FIELD: most} if self.LIMIT_FIELD and not given else {}

    def max_answer_tokens(self, cap: int) -> int:
        """How many tokens an answer may have where at most `cap` are served."""
        return min(filter(None, [*self.token_limits().values(), cap]))

    def choice_count(self) -> int:
        """How many answers are asked for."""
        return getattr(self, "n", None) or 1

    def max_total_tokens(self, cap: int) -> int:
        """How many all the answers may have that are asked for."""
        return self.choice_count() * self.max_answer_tokens(cap)

    def grammar_schemas(self) -> list[dict[str, Any] | None]:
        """The schemas of tools that the engine makes one grammar of."""
        return []

    def logprobs_per_token(self) -> int:
        """How many tokens with probabilities an answer has for each of its own."""
        return 0

    def tags(self) -> Mapping[str, str]:
        """What the client says about the request."""
        return {}

    @property
    def end_user(self) -> str | None:
        """Whom the request is made for, where the client says so."""
        return self.safety_identifier or self.user

    @property
    def wants_usage(self) -> bool:
        """Whether a streamed answer has a chunk of its own with the token counts."""
        return False

    def params(self) -> dict[str, Any]:
        """Everything but what was said, as it is stored."""
        return self.model_dump(exclude=set(self.CONTENT_FIELDS), exclude_none=True, by_alias=True)

    def forwarded_fields(self) -> dict[str, Any]:
        """The fields that the engine gets, beside the model and what is said."""
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
"""Kept back in every API."""

RequestT = TypeVar("RequestT", bound=ApiRequest)


def parse(kind: type[RequestT], body: bytes, max_tokens_cap: int) -> RequestT:
    """Read a request.

    Raises:
        RequestError: It is not JSON, has an unknown field, or a value out of range (400).
    """
    try:
        request = kind.model_validate(parse_json(body))
    except ValidationError as error:
        raise explain(error, kind) from error
    for name, limit in request.token_limits().items():
        if limit is not None and limit > max_tokens_cap and not request.CLAMPS_LIMIT:
            message = f"'{name}' is {limit}, but at most {max_tokens_cap} is served here. Ask for "
            raise out_of_range(name, message + "less, or raise server.max_tokens_cap.")
    _check_length(request, max_tokens_cap)
    try:
        check_grammar_cost(request.grammar_schemas())
    except PydanticCustomError as error:
        raise RequestError(400, error.message(), code=error.type, param="tools") from error
    return request


def _check_length(request: ApiRequest, max_tokens_cap: int) -> None:
    """Refuse answers that cannot be, or that would hold everybody up when they are read."""
    least = getattr(request, "min_tokens", None) or 0
    most = request.max_answer_tokens(max_tokens_cap)
    if least > most:
        message = f"'min_tokens' is {least}, but the answer may have at most {most} tokens."
        raise out_of_range("min_tokens", message)
    listed = request.max_total_tokens(max_tokens_cap) * request.logprobs_per_token()
    if listed > MAX_LOGPROBS:
        message = (
            f"An answer may list {MAX_LOGPROBS} tokens with probabilities, and this one {listed}: "
            "ask for a lower max_tokens, n or number of alternatives."
        )
        raise out_of_range("logprobs", message)


def out_of_range(param: str, message: str) -> RequestError:
    """The error for a number that is not served."""
    return RequestError(400, message, code="value_out_of_range", param=param)


def inconsistent(param: str, message: str) -> PydanticCustomError:
    """The error for fields that contradict each other, to be raised by a validator."""
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "param": param})


def check_tool_choice(must_call: bool, name: str | None, offered: Collection[str]) -> None:
    """Refuse the choice of a tool, that of `name` if there is one, which is not `offered`."""
    if must_call and not offered:
        raise inconsistent("tool_choice", "Give 'tools', or leave 'tool_choice' out.")
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


def check_value_count(body: bytes, most: int) -> None:
    """Let pass what can be read in a moment.

    Raises:
        RequestError: It has more than `most` values (400).
    """
    if body.count(b'"') - body.count(b'\\"') > 4 * most:
        message = f"The request has more texts than {2 * most}. Send several requests."
        raise RequestError(400, message, code="too_many_values")
    if _values(body) > most and (count := _values(JSON_STRING.sub(b"", body))) > most:
        raise RequestError(
            400,
            f"The request has {count} values, but may have {most}. Shorten it, or send several "
            "requests.",
            code="too_many_values",
        )


def _values(body: bytes) -> int:
    """At most how many values there are, with those that only look so in strings."""
    return sum(map(body.count, (b",", b"[", b"{")))


def explain(error: ValidationError, model: type[Strict]) -> RequestError:
    """The first problem of a request, in words."""
    problem = error.errors(include_url=False, include_input=False)[0]
    path = _path([str(part) for part in problem["loc"]], problem["type"])
    context = problem.get("ctx", {})
    where = str(context.get("param") or ".".join(path))
    if problem["type"] == "extra_forbidden":
        known = model.model_fields if len(path) == 1 else _nested_fields(model)
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=SUGGESTION_CUTOFF)
        remedy = f"Did you mean '{near[0]}'?" if near else "It is not served here: leave it out."
        message = f"Unknown field '{where}'. {remedy}"
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


def _nested_fields(model: type[Strict]) -> list[str]:
    """Names of the fields that parts of a request may have."""
    kinds = [*vars(sys.modules[model.__module__]).values(), *vars(messages).values()]
    parts = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Strict)]
    return sorted(
        {field.alias or name for part in parts for name, field in part.model_fields.items()}
    )
