"""Turns a structured text into plain lines, each of which can be understood by itself.

System prompts are Markdown, YAML, JSON, XML or plain lines. A list item gets the line that
introduces it ("Never share: prices"), a table row the names of its columns, a key the keys above
it, a short line its heading. Lines that only introduce others are dropped, and so is code. Lines
that were wrapped to fit a width are joined.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from itertools import zip_longest
from pathlib import Path
from typing import Any

# Bullets, numbers and letters of lists, but not a number or an initial that starts a sentence.
BULLET = r"[-*+•]|\d+[.)]|[a-z][.)]|[ivx]+[.)]|[A-Z]\)|\((?:\d+|[a-zA-Z])\)"
ITEM = re.compile(rf"^\s*(?:{BULLET})\s")
MARKUP = re.compile(rf"^\s*(?:#+|>|{BULLET})\s+")
# Tags that format text but carry no content.
HTML = re.compile(
    r"</?(?:a|b|br|div|em|font|h[1-6]|i|li|ol|p|small|span|strong|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
HEADING = re.compile(r"^\s*(?P<level>#+)\s|^\s*\*\*(?=\w)[^\s*.!?]+(?: [^\s*.!?]+){0,3}\*\*:?\s*$")
FENCE = re.compile(r"^\s*(?:```|~~~)\s*(?P<kind>\w*)")
# Fenced blocks of these kinds count as text unless they start as code does.
TEXT_KINDS = frozenset({"", "text", "txt", "md", "markdown", "yaml", "yml"})
CODE_STARTS = ("{", "[", "<", "$")
ROW = re.compile(r"^\s*\|(.+)\|\s*$")
TABLE_RULE = re.compile(r"^[\s|:-]*-[\s|:-]*$")
KEY = re.compile(
    r"^\s*[\"'*]{0,2}(?P<name>[^\W\d][\w.-]*(?: [\w&/-]+){0,3})[\"'*]{0,2}\s*:(?=\s|\*|$)"
)
TAG = re.compile(r"^\s*<(?P<close>/?)(?P<name>[^\W\d][\w-]*)(?:\s[^<>]*)?>\s*$")
TAGGED = re.compile(r"^(\s*)<([^\W\d][\w-]*)>\s*(\S.*?)\s*</\2>\s*$")
QUOTED = re.compile(r"^(\s*)\"([^\"]+)\"\s*:\s*\"?(.*?)\"?,?\s*[{\[]?$")
FOLDED = re.compile(r"(?<=:)\s*[|>][-+]?\s*$")
ENDS = (".", "!", "?", "。", "！", "？", "।", "؟")  # noqa: RUF001 - not only Latin script
# A wrapped line is at least this long.
MIN_WRAPPED_CHARS = 50
# Shorter tag names are mostly HTML, which only formats text.
MIN_TAG_NAME_CHARS = 5
# A line of at most this many words needs its heading to be understood.
MAX_DEPENDENT_WORDS = 6
# A line of at most this many words that introduces others is only a name.
MAX_NAME_WORDS = 4
# Headings that add nothing to the lines below them.
EMPTY_HEADINGS = frozenset(
    tomllib.loads(Path(__file__).with_name("markup.toml").read_text())["empty_headings"]
)
# A line that contains this many letters of its heading names its subject itself.
HEADING_PREFIX_CHARS = 4


def plain_lines(text: str) -> list[str]:
    """The lines with content, without markup."""
    try:
        value = json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        value = None
    if value is not None:
        return list(_leaves(value, ""))
    lines = [_keyed(HTML.sub("", line)) for line in _without_code(cleandoc(text).splitlines())]
    unwrapped = [line for paragraph in _paragraphs(lines) for line in _unwrapped(paragraph)]
    return list(_with_headings(list(_with_columns(unwrapped))))


def _leaves(value: Any, path: str) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """The leaves of a JSON value, each with its keys; flat objects in lists become table rows."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, f"{path} {key}".replace("_", " ").strip())
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and not any(
                isinstance(child, dict | list) for child in item.values()
            ):
                cells = {key: _value(child) for key, child in item.items()}
                for line in _row(list(cells), list(cells.values())):
                    yield f"{path}: {line}" if path else line
            else:
                yield from _leaves(item, path)
    else:
        yield f"{path}: {_value(value)}" if path else _value(value)


def _value(value: Any) -> str:  # noqa: ANN401 - any JSON
    return value if isinstance(value, str) else json.dumps(value)


def _without_code(lines: Sequence[str]) -> list[str]:
    """The lines without fenced code; an unclosed fence is ignored."""
    fences = [index for index, line in enumerate(lines) if FENCE.match(line)]
    result = ["" if FENCE.match(line) else line for line in lines]
    for first, last in zip(fences[::2], fences[1::2], strict=False):
        fence = FENCE.match(lines[first])
        block = "".join(lines[first + 1 : last]).lstrip()
        is_text = (
            fence and fence["kind"].lower() in TEXT_KINDS and not block.startswith(CODE_STARTS)
        )
        inside = lines[first + 1 : last] if is_text else [""] * (last - first - 1)
        result[first : last + 1] = ["", *inside, ""]
    return result


def _keyed(line: str) -> str:
    """A line of XML, JSON or YAML as a key or a heading; any other line unchanged."""
    tag = TAG.match(line)
    if not line.strip(" {}[],") or (tag and len(tag["name"]) < MIN_TAG_NAME_CHARS):
        return ""
    if tag:  # a closing tag ends its section
        return "###### " + ("" if tag["close"] else tag["name"])
    return FOLDED.sub("", QUOTED.sub(r"\1\2: \3", TAGGED.sub(r"\1\2: \3", line)))


def _is_key(line: str) -> bool:
    """Whether a line starts with a name and a colon, not with the words of a sentence."""
    key = KEY.match(line)
    return key is not None and (" " not in key["name"] or not key["name"][0].islower())


def _paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Groups of lines that may be one text; headings, items, rows and keys start a group."""
    paragraph: list[str] = []
    for line in lines:
        is_single = HEADING.match(line) or ROW.match(line)
        if paragraph and (not line.strip() or is_single or MARKUP.match(line) or _is_key(line)):
            yield paragraph
            paragraph = []
        if is_single:
            yield [line]
        elif line.strip():
            paragraph.append(line)
    if paragraph:
        yield paragraph


def _unwrapped(paragraph: Sequence[str]) -> list[str]:
    """The lines of a paragraph, with wrapped lines joined."""
    first, *rest = paragraph
    if ITEM.match(first) and rest and all(_indent(line) > _indent(first) for line in rest):
        return [" ".join([first.rstrip(), *(line.strip() for line in rest)])]
    is_prose = _ends_sentence(paragraph[-1])
    joined = [first]
    for line, next_line in zip(paragraph, rest, strict=False):
        if _is_wrapped(line.rstrip(), next_line.strip(), is_prose):
            joined[-1] = f"{joined[-1].rstrip()} {next_line.strip()}"
        else:
            joined.append(next_line)
    return joined


def _is_wrapped(line: str, next_line: str, is_prose: bool) -> bool:
    """Whether the next line continues this one.

    In prose, the line is long or the next one starts in lower case; elsewhere, both.
    """
    if _ends_sentence(line) or line.endswith((":", ";")):
        return False
    is_long, is_lower = len(line) >= MIN_WRAPPED_CHARS, not next_line[0].isupper()
    if is_prose or line.endswith(","):
        return is_long or is_lower
    return is_long and is_lower and next_line[0].isalpha()


def _with_columns(lines: Sequence[str]) -> Iterator[str]:
    """Table rows with the names of their columns; all other lines unchanged."""
    columns: list[str] = []
    for line, next_line in zip_longest(lines, lines[1:], fillvalue=""):
        row = ROW.match(line)
        cells = [cell.strip() for cell in row[1].split("|")] if row else []
        if TABLE_RULE.match(line):
            continue
        if row and TABLE_RULE.match(next_line):
            columns = cells
        elif row:
            yield from _row(columns, cells)
        else:
            yield line


def _row(columns: Sequence[str], cells: Sequence[str]) -> list[str]:
    """The lines of a row: its first cell, which names the subject, with each other cell."""
    named = [
        f"{column}: {cell}" if column else cell
        for column, cell in zip_longest(columns[: len(cells)], cells, fillvalue="")
        if cell
    ]
    return [f"{named[0]}; {cell}" for cell in named[1:]] or named


def _with_headings(lines: Sequence[str]) -> Iterator[str]:
    """The lines, each with the lines above that it cannot be understood without."""
    title = _title(lines)
    heading, in_list = "", False
    parents: list[tuple[int, str]] = []
    for line, next_line in zip_longest(lines, lines[1:], fillvalue=""):
        content = _without_markup(line)
        if HEADING.match(line):
            parents, in_list = [], False
            heading = "" if line == title else content.rstrip(":")
            if content and not next_line:
                yield content
            continue
        if in_list and _ends_sentence(content) and not ITEM.match(line):
            heading = ""  # a sentence after a list does not belong to it
        in_list = bool(ITEM.match(line))
        parents = [(depth, text) for depth, text in parents if depth < _depth(line)]
        introductions = [f"{text.rstrip(':')}:" for _, text in parents]
        needs_heading = not parents and _needs_heading(content, heading)
        is_parent = next_line and not HEADING.match(next_line) and _depth(next_line) > _depth(line)
        introduces = content.endswith(":") or len(content.split()) <= MAX_NAME_WORDS
        if is_parent and not _ends_sentence(content) and (introduces or ITEM.match(line)):
            parents.append((_depth(line), content))
        is_name = content.endswith(":") and len(content.split()) <= MAX_NAME_WORDS
        if _ends_sentence(content) or not (introduces if is_parent else is_name):
            yield " ".join([f"{heading}:", content] if needs_heading else [*introductions, content])


def _needs_heading(content: str, heading: str) -> bool:
    """Whether a line is too short to be understood without its heading."""
    names_subject = heading[:HEADING_PREFIX_CHARS].lower() in content.lower()
    is_short = len(content.split()) <= MAX_DEPENDENT_WORDS
    return is_short and not names_subject and heading.lower() not in EMPTY_HEADINGS


def _without_markup(line: str) -> str:
    """A line without markup, with spaces instead of underscores in its key."""
    content = MARKUP.sub("", line).replace("**", "").strip()
    key, colon, rest = content.partition(":")
    return f"{key.replace('_', ' ')}{colon}{rest}" if colon and _is_key(content) else content


def _ends_sentence(text: str) -> bool:
    """Whether a text ends with a sentence, which may be in quotes or emphasis."""
    return text.rstrip(" \"'”’»)*_").endswith(ENDS)


def _title(lines: Sequence[str]) -> str | None:
    """The first line, if it is the heading of the whole text and not of a list."""
    headings = [match["level"] for match in map(HEADING.match, lines) if match]
    first = HEADING.match(lines[0]) if lines else None
    is_only = first and headings.count(first["level"]) == 1
    return lines[0] if is_only and not _without_markup(lines[0]).endswith(":") else None


def _depth(line: str) -> int:
    """The nesting depth of a line; an item is deeper than a plain line with the same indent."""
    return 2 * _indent(line) + bool(ITEM.match(line))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
