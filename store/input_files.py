"""Parsers for the operator's files: contexts, prompts and anchors; errors name file and line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from store.contexts import Context, Messages
from store.schema import LessonKind

if TYPE_CHECKING:
    from store.anchors import Anchor

ROLES = ("system", "developer", "user", "assistant", "tool")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
T = TypeVar("T")


class BadInput(ValueError):
    """A file is invalid; the message names the file, the line and the expected content."""


def read_context(path: Path) -> tuple[Context, tuple[str, ...]]:
    """Return a context and the kinds of its lessons.

    A `.jsonl` file contains lessons, one `{"kind": ..., "text": ...}` per line; any other file is a
    system prompt.
    """
    if path.suffix == ".jsonl":
        lessons = read_json_lines(path, _lesson)
        kinds, texts = zip(*lessons, strict=True) if lessons else ((), ())
        return Context(lessons=texts), kinds
    return Context(system_prompt=read_system_prompt(path)), ()


def read_system_prompt(path: Path) -> str:
    """Return the system prompt in a text file.

    Raises:
        BadInput: The file is empty or cannot be read.
    """
    text = _read_text(path).strip()
    if not text:
        raise BadInput(f"{path} is empty: there is nothing to internalise.")
    return text


def read_prompts(path: Path | None) -> tuple[Messages, ...]:
    """Return conversations, one `{"prompt": ...}` or `{"messages": [...]}` per line."""
    return tuple(read_json_lines(path, _messages)) if path else ()


def read_anchors(path: Path | None) -> tuple["Anchor", ...]:
    """Return anchors, one `{"prompt": ..., "expect": {...}}` per line."""
    return tuple(read_json_lines(path, _anchor)) if path else ()


def read_json_lines(path: Path, parse: Callable[[dict[str, Any]], T]) -> list[T]:
    """Parse each line of a JSON-lines file, skipping blank lines.

    Raises:
        BadInput: The file cannot be read, has no lines, or a line is invalid.
    """
    parsed = []
    # Not splitlines: JSON strings may contain U+2028 and other Unicode line separators.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            parsed.append(parse(_object(line)))
        except ValueError as error:
            raise BadInput(f"{path}, line {number}: {error}") from error
    if not parsed:
        raise BadInput(f"{path} has no lines.")
    return parsed


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_reject_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise BadInput(
            f"a line must be a JSON object ({error.msg}, column {error.colno})."
        ) from error
    except UnicodeEncodeError as error:
        surrogate = error.object[error.start].encode("unicode_escape").decode()
        raise BadInput(
            f"{surrogate} is a lone surrogate: the text was cut within a character."
        ) from error
    except RecursionError as error:
        raise BadInput("a line must be a JSON object with less nesting.") from error
    if not isinstance(value, dict):
        raise BadInput("a line must be a JSON object.")
    return value


def _reject_constant(name: str) -> None:
    raise BadInput(f"{name} is not valid JSON.")


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(
            encoding="utf-8-sig"
        )  # some editors start a file with a byte order mark
    except FileNotFoundError as error:
        raise BadInput(f"File not found: {path}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadInput(f"{path} is not UTF-8 (line {line}): save it as UTF-8.") from error
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
    control = CONTROL.search(text)
    if control:
        line = text[: control.start()].count("\n") + 1
        raise BadInput(f"{path} is not a text file: line {line} contains {control[0]!r}.")
    return text


def _lesson(value: dict[str, Any]) -> tuple[str, str]:
    kind, text = value.get("kind", "fact"), value.get("text")
    if kind not in set(LessonKind):
        raise BadInput(f"kind {kind!r} is not one of {', '.join(LessonKind)}.")
    if not isinstance(text, str) or not text.strip():
        raise BadInput('a lesson needs a non-empty string "text".')
    return kind, text.strip()


def _messages(value: dict[str, Any]) -> Messages:
    if isinstance(value.get("prompt"), str) and value["prompt"].strip():
        return ({"role": "user", "content": value["prompt"]},)
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadInput('a line needs "prompt" (a non-empty string) or "messages" (a list).')
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadInput(f"a message needs content and a role: {', '.join(ROLES)}.")
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise BadInput("the content of a message must be a non-empty string.")
    if messages[-1]["role"] != "user":
        raise BadInput("the last message must have the role user.")
    return tuple(messages)


def _anchor(value: dict[str, Any]) -> "Anchor":
    expect = value.get("expect")
    if not isinstance(expect, dict):
        raise BadInput('an anchor needs "expect", for example {"contains": ["48 euros"]}.')
    # Imported here because its dependencies are large and few files contain anchors.
    from store.anchors import CHECKS, Anchor

    misplaced = sorted(set(value) & set(CHECKS))
    if misplaced:
        raise BadInput(f'move {misplaced[0]} into "expect": outside it, it checks nothing.')
    return Anchor(_messages(value), expect)
