"""Turns a structured text into plain lines, each of which can be understood by itself.

System prompts are Markdown, YAML, JSON, XML or plain lines. A list item gets the line that
introduces it ("Never share: prices"), a table row the names of its columns, a key the keys above
it, a short line its heading. Lines that only introduce others are dropped, and so is code. Lines
that were wrapped to fit a width are joined. All of them know their places in the prompt.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from distill.context import json_lines, tables
from distill.context.headings import with_headings
from distill.context.margin import without_margin
from distill.context.syntax import HEADING, ITEM, MARKUP, TAG, ends_sentence, is_key
from distill.context.traced import (
    Line,
    Traced,
    divided,
    indent,
    joined,
    prompt_lines,
)

# Tags that format text but carry no content.
HTML = re.compile(
    r"</?(?:a|b|br|div|em|font|h[1-6]|i|li|ol|p|small|span|strong|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
FENCE = re.compile(r"^\s*(?:```|~~~)\s*(?P<kind>\w*)")
# Fenced blocks of these kinds count as text unless they start as code does.
TEXT_KINDS = frozenset({"", "text", "txt", "md", "markdown", "yaml", "yml"})
CODE_STARTS = ("{", "[", "<", "$")
TAGGED = re.compile(r"^(\s*)<([^\W\d][\w-]*)>\s*(\S.*?)\s*</\2>\s*$")
QUOTED = re.compile(r"^(\s*)\"([^\"]+)\"\s*:\s*\"?(.*?)\"?,?\s*[{\[]?$")
FOLDED = re.compile(r"(?<=:)\s*[|>][-+]?\s*$")
# A wrapped line is at least this long.
MIN_WRAPPED_CHARS = 50
# Shorter tag names are mostly HTML, which only formats text.
MIN_TAG_NAME_CHARS = 5


@dataclass(frozen=True)
class Reading:
    """What the lines of a prompt are read as."""

    stated: list[Line]
    """The plain lines."""
    lines: list[Line]
    """All lines with content, as written but for markup: also headings and introductions."""
    code: Sequence[range] = ()
    """The numbers of the lines of each block of code, with its fences."""
    fenced: Sequence[range] = ()
    """Those of each block of text in fences."""


def plain_lines(text: str) -> list[str]:
    """The lines with content, without markup."""
    return [line.text.text for line in read(prompt_lines(text)).stated]


def read(lines: Sequence[Line]) -> Reading:
    """Read the lines of a prompt, or of a part of it."""
    leaves = json_lines.leaves(lines)
    if leaves is not None:
        return Reading(leaves, leaves)
    text_lines = [part for line in without_margin(lines) for part in divided(line)]
    outside, code, fenced = _without_code(text_lines)
    keyed = [replace(line, text=_keyed(line.text.without(HTML))) for line in outside]
    unwrapped = [line for paragraph in _paragraphs(keyed) for line in _unwrapped(paragraph)]
    content = list(tables.with_columns(unwrapped))
    return Reading(list(with_headings(content)), content, code, fenced)


def _without_code(lines: Sequence[Line]) -> tuple[list[Line], list[range], list[range]]:
    """The lines, blank in fenced code and at fences, and the blocks of code and of text in fences.

    An unclosed fence is ignored.
    """
    fences = [index for index, line in enumerate(lines) if FENCE.match(line.text.text)]
    blank = set(fences)
    code: list[range] = []
    fenced: list[range] = []
    for first, last in zip(fences[::2], fences[1::2], strict=False):
        fence = FENCE.match(lines[first].text.text)
        block = "".join(line.text.text for line in lines[first + 1 : last]).lstrip()
        is_kind = fence and fence["kind"].lower() in TEXT_KINDS
        is_code = not is_kind or block.startswith(CODE_STARTS)
        blank |= set(range(first, last)) if is_code else set()
        block_numbers = range(lines[first].numbers[0], lines[last].numbers[0] + 1)
        (code if is_code else fenced).append(block_numbers)
    outside = [
        replace(line, text=line.text[:0]) if index in blank else line
        for index, line in enumerate(lines)
    ]
    return outside, code, fenced


def _keyed(line: Traced) -> Traced:
    """A line of XML, JSON or YAML as a key or a heading; any other line unchanged."""
    tag = TAG.match(line.text)
    if not line.text.strip(" {}[],") or (tag and len(tag["name"]) < MIN_TAG_NAME_CHARS):
        return line[:0]
    if tag:  # a closing tag ends its section
        return Traced.added("###### ") + (line[:0] if tag["close"] else line.group(tag, "name"))
    for pattern in (TAGGED, QUOTED):
        if match := pattern.match(line.text):
            space, name, value = (line.group(match, group) for group in (1, 2, 3))
            line = space + name + ": " + value
    return line.without(FOLDED)


def _paragraphs(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Groups of lines that may be one text; headings, items, rows and keys start a group."""
    paragraph: list[Line] = []
    for line in lines:
        text = line.text.text
        is_single = HEADING.match(text) or tables.ROW.match(text)
        if paragraph and (not text.strip() or is_single or MARKUP.match(text) or is_key(text)):
            yield paragraph
            paragraph = []
        if is_single:
            yield [line]
        elif text.strip():
            paragraph.append(line)
    if paragraph:
        yield paragraph


def _unwrapped(paragraph: Sequence[Line]) -> list[Line]:
    """The lines of a paragraph, with wrapped lines joined."""
    first, *rest = paragraph
    is_item = bool(ITEM.match(first.text.text))
    if is_item and rest and all(indent(line.text.text) > indent(first.text.text) for line in rest):
        return [_joined(paragraph)]
    is_prose = ends_sentence(paragraph[-1].text.text)
    groups = [[first]]
    for line, next_line in zip(paragraph, rest, strict=False):
        if _is_wrapped(line.text.text.rstrip(), next_line.text.text.strip(), is_prose):
            groups[-1].append(next_line)
        else:
            groups.append([next_line])
    return [_joined(group) for group in groups]


def _joined(lines: Sequence[Line]) -> Line:
    """Several lines as one; a single line unchanged."""
    first, *rest = lines
    text = joined(" ", [first.text.rstrip(), *(line.text.strip() for line in rest)])
    numbers = dict.fromkeys(number for line in lines for number in line.numbers)
    return replace(first, text=text, numbers=tuple(numbers)) if rest else first


def _is_wrapped(line: str, next_line: str, is_prose: bool) -> bool:
    """Whether the next line continues this one.

    In prose, the line is long or the next one starts in lower case; elsewhere, both.
    """
    if ends_sentence(line) or line.endswith((":", ";")):
        return False
    is_long, is_lower = len(line) >= MIN_WRAPPED_CHARS, not next_line[0].isupper()
    if is_prose or line.endswith(","):
        return is_long or is_lower
    return is_long and is_lower and next_line[0].isalpha()
