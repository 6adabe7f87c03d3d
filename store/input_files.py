"""The files that an operator gives: contexts, prompts and anchors; errors name file and line."""

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
    """A file cannot be used; the message names it, the line and what to write instead."""


def read_context(path: Path) -> tuple[Context, tuple[str, ...]]:
    """A context and the kinds of its lessons.

    A `.jsonl` file holds lessons, one `{"kind": ..., "text": ...}` a line; any other file is a
    system prompt.
    """
    if path.suffix == ".jsonl":
        lessons = read_json_lines(path, _lesson)
        kinds, texts = zip(*lessons, strict=True) if lessons else ((), ())
        return Context(lessons=texts), kinds
    return Context(system_prompt=read_system_prompt(path)), ()


def read_system_prompt(path: Path) -> str:
    """A system prompt.

    Raises:
        BadInput: There is none in it.
    """
    text = _read_text(path).strip()
    if not text:
        raise BadInput(f"{path} is empty: there is nothing to internalise.")
    return text


def read_prompts(path: Path | None) -> tuple[Messages, ...]:
    """Conversations, one `{"prompt": ...}` or `{"messages": [...]}` a line."""
    return tuple(read_json_lines(path, _messages)) if path else ()


def read_anchors(path: Path | None) -> tuple["Anchor", ...]:
    """Anchors, one `{"prompt": ..., "expect": {...}}` a line."""
    return tuple(read_json_lines(path, _anchor)) if path else ()


def read_json_lines(path: Path, parse: Callable[[dict[str, Any]], T]) -> list[T]:
    """Parse each line of a JSON-lines file; blank lines are skipped.

    Raises:
        BadInput: The file cannot be read, or a line is not what it should be.
    """
    parsed = []
    # Not splitlines: JSON may hold U+2028 and other line ends of Unicode as they are.
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
        value = json.loads(line, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise BadInput(
            f"a line must be a JSON object ({error.msg}, column {error.colno})."
        ) from error
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise BadInput(f"{half} is half a character: the text was cut in the middle.") from error
    except RecursionError as error:
        raise BadInput("a line must be a JSON object, and not this deep.") from error
    if not isinstance(value, dict):
        raise BadInput("a line must be a JSON object.")
    return value


def _refuse_constant(name: str) -> None:
    raise BadInput(f"{name} is not JSON.")


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except FileNotFoundError as error:
        raise BadInput(f"There is no file {path}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadInput(f"{path} is not UTF-8 (line {line}): save it as UTF-8.") from error
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
    control = CONTROL.search(text)
    if control:
        line = text[: control.start()].count("\n") + 1
        raise BadInput(f"{path} is not text: line {line} has the character {control[0]!r}.")
    return text


def _lesson(value: dict[str, Any]) -> tuple[str, str]:
    kind, text = value.get("kind", "fact"), value.get("text")
    if kind not in set(LessonKind):
        raise BadInput(f"kind {kind!r} is not one of {', '.join(LessonKind)}.")
    if not isinstance(text, str) or not text.strip():
        raise BadInput('a lesson needs a "text".')
    return kind, text.strip()


def _messages(value: dict[str, Any]) -> Messages:
    if isinstance(value.get("prompt"), str) and value["prompt"].strip():
        return ({"role": "user", "content": value["prompt"]},)
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadInput('a line needs a "prompt" (a text) or "messages" (a list).')
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadInput(f"a message needs a role out of {', '.join(ROLES)}, and content.")
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise BadInput("the content of a message is a text, and not empty.")
    if messages[-1]["role"] != "user":
        raise BadInput("the last message must be the user's, so that there is something to answer.")
    return tuple(messages)


def _anchor(value: dict[str, Any]) -> "Anchor":
    expect = value.get("expect")
    if not isinstance(expect, dict):
        raise BadInput('an anchor needs "expect", for example {"contains": ["48 euros"]}.')
    # Its libraries are large, and few files have anchors.
    from store.anchors import CHECKS, Anchor

    outside = sorted(set(value) & set(CHECKS))
    if outside:
        raise BadInput(f'{outside[0]} stands beside "expect", not in it, and would check nothing.')
    return Anchor(_messages(value), expect)
