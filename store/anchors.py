"""Anchors: an operator's checks of single answers; the gate counts how many a candidate passes.

Each line of an anchors file is `{"prompt": ..., "expect": {...}}`. `expect` has one or more of

    contains      a string or list of strings; the answer contains all of them, ignoring case
    contains_any  a string or list of strings; the answer contains at least one, ignoring case
    regex         a regular expression that matches somewhere in the answer, ignoring case
    json_schema   a JSON schema; the answer is JSON that is valid against it
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
    *(TypeError, regex.error, OverflowError, RecursionError),  # the last two come from regex
    *(jsonschema.SchemaError, Unresolvable),
)
# Per expression and answer: nested repetition can take years and would block the run.
REGEX_TIMEOUT_S = 2.0
PROBE_VALUES: tuple[Any, ...] = (None, 0, "", [], {})
"""A value of each JSON type, to find schemas whose circular references recurse without end."""


class BadAnchor(ValueError):
    """An anchor is invalid; the message says why."""


@dataclass(frozen=True)
class Anchor:
    """A prompt and the checks of its answer."""

    messages: Messages
    expect: dict[str, Any]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.expect) - set(CHECKS))
        if unknown or not self.expect:
            raise BadAnchor(
                f"expect has {unknown or 'no check'}; valid checks are {sorted(CHECKS)}."
            )
        for name, expected in self.expect.items():
            try:
                CHECKS[name]("", expected)
            except INVALID_EXPECTATION as error:
                reason = getattr(error, "message", error)  # the short message of a schema error
                raise BadAnchor(f"expect.{name} is invalid: {reason}") from error

    def passes(self, answer: str) -> bool:
        """Return whether the answer passes all checks.

        Raises:
            BadAnchor: A regular expression timed out.
        """
        return all(CHECKS[name](answer, expected) for name, expected in self.expect.items())


def _contains(answer: str, expected: object) -> bool:
    return all(text.lower() in answer.lower() for text in _texts(expected))


def _contains_any(answer: str, expected: object) -> bool:
    return any(text.lower() in answer.lower() for text in _texts(expected))


def _texts(expected: object) -> list[str]:
    texts = [expected] if isinstance(expected, str) else expected
    if isinstance(texts, list) and texts and all(text and isinstance(text, str) for text in texts):
        return texts
    raise TypeError("it must be a string or a list of strings, none of them empty.")


def _regex(answer: str, expected: str) -> bool:
    if not expected:
        raise TypeError("an empty expression matches every answer.")
    flags = regex.IGNORECASE | regex.DOTALL
    try:
        return regex.search(expected, answer, flags, timeout=REGEX_TIMEOUT_S) is not None
    except TimeoutError as error:
        raise BadAnchor(
            f"the regular expression {expected!r} takes more than {REGEX_TIMEOUT_S:g} s on an "
            f"answer of {len(answer)} characters; avoid nested repetition, as in (a+)+."
        ) from error


def _json_schema(answer: str, expected: dict[str, Any]) -> bool:
    validator = _validator(expected)
    try:
        value = orjson.loads(answer)  # unlike json, rejects NaN and very deep nesting
    except orjson.JSONDecodeError:
        return False
    try:
        return bool(validator.is_valid(value))
    except RecursionError:
        return False


def _validator(expected: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return a validator for the schema, tried on sample values; it loads no remote schemas."""
    # The format checker also rejects a `pattern` that is not a regular expression.
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator.check_schema(expected, format_checker=formats)
    resource = DRAFT202012.create_resource(expected)
    registry: Registry[Any] = Registry().with_resource("", resource)
    for reference in _references(expected):
        registry.resolver().lookup(reference)
    validator = SCHEMA(expected, registry=registry)
    for sample in PROBE_VALUES:
        validator.is_valid(sample)
    return validator


def _references(schema: object) -> Iterator[str]:
    """Yield the references of a schema, at any depth."""
    inner = schema.values() if isinstance(schema, dict) else schema
    for item in inner if isinstance(inner, Iterable) and not isinstance(inner, str) else ():
        yield from _references(item)
    if isinstance(schema, dict):
        references = (schema.get(keyword) for keyword in ("$ref", "$dynamicRef"))
        yield from (reference for reference in references if isinstance(reference, str))


def _pattern(_: object, expected: str, value: object, __: object) -> Iterator[Exception]:
    """Validate the `pattern` keyword with a timeout."""
    try:
        if isinstance(value, str) and not regex.search(expected, value, timeout=REGEX_TIMEOUT_S):
            yield jsonschema.ValidationError(f"{value!r} does not match {expected!r}")
    except TimeoutError as error:
        raise BadAnchor(
            f"the pattern {expected!r} takes more than {REGEX_TIMEOUT_S:g} s."
        ) from error


SCHEMA = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})

CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "contains": _contains,
    "contains_any": _contains_any,
    "regex": _regex,
    "json_schema": _json_schema,
}
