"""Anchors: an operator's checks of single answers; the gate counts how many a candidate passes.

A line of an anchors file is `{"prompt": ..., "expect": {...}}`, with one or more of

    contains      a text or a list of texts; every one is in the answer, in any case
    contains_any  a text or a list of texts; at least one is in the answer, in any case
    regex         a regular expression that is found in the answer, in any case
    json_schema   the answer is JSON that is valid under the schema
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import orjson
import regex  # type: ignore[import-untyped]
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from store.contexts import Messages

INVALID_EXPECTATION = (
    *(TypeError, regex.error, OverflowError, RecursionError),  # the last two of regular expressions
    *(jsonschema.SchemaError, Unresolvable),
)
# Of one expression on one answer: nested repetition takes years, and whoever waits is a run.
REGEX_TIMEOUT_S = 2.0
PROBE_VALUES: tuple[Any, ...] = (None, 0, "", [], {})
"""Of each type of JSON: a schema that refers to itself in circles never ends on one of them."""


class BadAnchor(ValueError):
    """An anchor cannot be checked; the message says what is wrong with it."""


@dataclass(frozen=True)
class Anchor:
    """A prompt, and what its answer must be like."""

    messages: Messages
    expect: dict[str, Any]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.expect) - set(CHECKS))
        if unknown or not self.expect:
            raise BadAnchor(f"expect has {unknown or 'nothing'}; known are {sorted(CHECKS)}.")
        for name, wanted in self.expect.items():
            try:
                CHECKS[name]("", wanted)
            except INVALID_EXPECTATION as error:
                reason = getattr(error, "message", error)  # a schema's error in one line
                raise BadAnchor(f"expect.{name} cannot be used: {reason}") from error

    def passes(self, answer: str) -> bool:
        """Whether the answer is as expected, in everything that is expected.

        Raises:
            BadAnchor: A regular expression takes too long.
        """
        return all(CHECKS[name](answer, wanted) for name, wanted in self.expect.items())


def _contains(answer: str, wanted: object) -> bool:
    return all(text.lower() in answer.lower() for text in _texts(wanted))


def _contains_any(answer: str, wanted: object) -> bool:
    return any(text.lower() in answer.lower() for text in _texts(wanted))


def _texts(wanted: object) -> list[str]:
    texts = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(texts, list) and texts and all(text and isinstance(text, str) for text in texts):
        return texts
    raise TypeError("it takes a text, or a list of texts.")


def _regex(answer: str, wanted: str) -> bool:
    if not wanted:
        raise TypeError("an empty expression is found in any answer.")
    flags = regex.IGNORECASE | regex.DOTALL
    try:
        return regex.search(wanted, answer, flags, timeout=REGEX_TIMEOUT_S) is not None
    except TimeoutError as error:
        raise BadAnchor(
            f"the regular expression {wanted!r} takes more than {REGEX_TIMEOUT_S:g} s on an answer "
            f"of {len(answer)} characters; repeat nothing that itself repeats, as in (a+)+."
        ) from error


def _json_schema(answer: str, wanted: dict[str, Any]) -> bool:
    validator = _validator(wanted)
    try:
        value = orjson.loads(answer)  # no NaN, and no thousand brackets in each other
    except orjson.JSONDecodeError:
        return False
    try:
        return bool(validator.is_valid(value))
    except RecursionError:
        return False


def _validator(wanted: dict[str, Any]) -> Any:  # noqa: ANN401
    """The schema's, made sure of on a few values; it reads nothing from elsewhere."""
    # With the formats of a schema's own words: a pattern must be a regular expression.
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator.check_schema(wanted, format_checker=formats)
    resource = DRAFT202012.create_resource(wanted)
    registry: Registry[Any] = Registry().with_resource("", resource)
    for reference in _references(wanted):
        registry.resolver().lookup(reference)
    validator = SCHEMA(wanted, registry=registry)
    for sample in PROBE_VALUES:
        validator.is_valid(sample)
    return validator


def _references(schema: object) -> Iterator[str]:
    """What a schema refers to, at any depth."""
    inner = schema.values() if isinstance(schema, dict) else schema
    for each in inner if isinstance(inner, Iterable) and not isinstance(inner, str) else ():
        yield from _references(each)
    if isinstance(schema, dict):
        named = (schema.get(word) for word in ("$ref", "$dynamicRef"))
        yield from (each for each in named if isinstance(each, str))


def _pattern(_: object, wanted: str, value: object, __: object) -> Iterator[Exception]:
    """The keyword of a schema, in limited time."""
    try:
        if isinstance(value, str) and not regex.search(wanted, value, timeout=REGEX_TIMEOUT_S):
            yield jsonschema.ValidationError(f"{value!r} does not match {wanted!r}")
    except TimeoutError as error:
        raise BadAnchor(f"the pattern {wanted!r} takes more than {REGEX_TIMEOUT_S:g} s.") from error


SCHEMA = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})

CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "contains": _contains,
    "contains_any": _contains_any,
    "regex": _regex,
    "json_schema": _json_schema,
}
