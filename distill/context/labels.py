"""The labelled lines of a prompt, such as "User: ..." and "Answer: ...", however they are written.

Labels stand in front of a text, in a heading above it, in tags, in JSON objects or in the column
names of a table.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from distill.context.tables import ROW, RULE

_LABELS = tomllib.loads(Path(__file__).with_name("examples.toml").read_text())
ANSWER_LABELS = frozenset(_LABELS["answers"].split())
"""Labels of answers; the line above such a label is the prompt."""
PROMPT_LABELS = frozenset(_LABELS["prompts"].split())
"""Labels of prompts whose answer may have no label."""
ROLE_LABELS = ANSWER_LABELS | PROMPT_LABELS
UNAMBIGUOUS_ANSWER_LABELS = frozenset(_LABELS["unambiguous_answers"].split())
"""Labels that only an answer has, never a property of a thing."""
LINE = re.compile(
    r"^\W{0,4}(?P<label>[^\W\d_]+(?: [^\W\d_]+){0,2})(?: ?\d+)?[*_]{0,2}"
    r"(?::[*_]{0,2}(?:\s|$)|：)(?P<text>.*)$",  # noqa: RUF001 - not only Latin script
    re.DOTALL,
)
# A label by itself: "### User", "**User**", "[user]", "<input>".
LONE_LABEL = re.compile(r"^\s*[#*\[<|=-]+\s*(?P<close>/?)(?P<label>[^\W\d_]+)\s*:?[*\]>|=-]*\s*$")
FRAME = re.compile(r"^\s*</?examples?\b[^<>]*>\s*$")
TAGGED = re.compile(r"<(?P<label>[^\W\d]\w*)>\s*(?P<text>.*?)\s*</(?P=label)>", re.DOTALL)
NumberedLine = tuple[int, str]
"""A line, or a piece of one, with the number of the line in the prompt, from 0."""


def labelled(lines: Sequence[NumberedLine]) -> Iterator[NumberedLine]:
    """The numbered lines; headings, tags, objects and table rows become labelled lines."""
    columns: list[str] = []
    for number, line in lines:
        row = ROW.match(line)
        cells = [cell.strip() for cell in row[1].split("|")] if row else []
        if len(cells) > 1 and cells[-1].lower() in ANSWER_LABELS:
            columns = cells
            pieces = [line]
        elif columns and len(cells) == len(columns) and not RULE.match(line):
            pieces = [f"{columns[0]}: {cells[0]}", f"{columns[-1]}: {cells[-1]}", ""]
        else:
            columns = columns if row else []
            pieces = _pieces(line)
        for piece in pieces:
            yield number, piece


def _pieces(line: str) -> list[str]:
    """The content of a line as labelled lines."""
    lone = LONE_LABEL.match(line)
    if lone and lone["label"].lower() in ROLE_LABELS:
        return ["" if lone["close"] else f"{lone['label']}:"]
    tagged = [f"{tag['label']}: {tag['text']}" for tag in TAGGED.finditer(line)]
    if tagged and ANSWER_LABELS & set(map(label_of, tagged)):
        return [*tagged, ""]
    if tagged and PROMPT_LABELS & set(map(label_of, tagged)):
        return tagged
    return _from_object(line) or [line]


def is_frame(line: str) -> bool:
    """Whether a line only delimits the examples around it."""
    lone = LONE_LABEL.match(line)
    is_label = lone is not None and lone["label"].lower() in ROLE_LABELS
    return is_label or bool(FRAME.match(line))


def _from_object(line: str) -> list[str]:
    """The labelled values of a JSON object on one line; empty if none of them is an answer."""
    try:
        value = json.loads(line.strip().removesuffix(",")) if line.lstrip()[:1] == "{" else None
    except (ValueError, RecursionError):
        value = None
    named = {str(key).lower(): item for key, item in value.items()} if value else {}
    if len(named) < 2 or not ANSWER_LABELS & named.keys():
        return []
    texts = {
        key: item if isinstance(item, str) else json.dumps(item) for key, item in named.items()
    }
    prompt = next((key for key in texts if key not in ANSWER_LABELS), None)
    answer = next(key for key in texts if key in ANSWER_LABELS)
    return [f"{prompt}: {texts[prompt]}", f"{answer}: {texts[answer]}", ""] if prompt else []


def label_of(line: str) -> str | None:
    """The label of a line, in lower case; None if it has none."""
    match = LINE.match(line)
    return match["label"].lower() if match else None


def unquoted(text: str) -> str:
    """The text without surrounding quotes."""
    return text.strip().strip("\"'“”`").strip()


def text_of(lines: Sequence[str]) -> str:
    """The text of the lines, without the label of the first one."""
    first = LINE.match(lines[0])
    return unquoted("\n".join([first["text"] if first else lines[0], *lines[1:]]))
