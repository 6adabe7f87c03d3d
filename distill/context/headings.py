"""Gives each line of a prompt the words above it that it cannot be understood without."""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from distill.context.syntax import (
    HEADING,
    ITEM,
    MAX_NAME_WORDS,
    depth,
    ends_sentence,
    may_introduce,
    without_markup,
)
from distill.context.traced import Line, Traced, joined

# A line of at most this many words needs its heading to be understood.
MAX_DEPENDENT_WORDS = 6
# Headings that add nothing to the lines below them.
EMPTY_HEADINGS = frozenset(
    tomllib.loads(Path(__file__).with_name("markup.toml").read_text())["empty_headings"]
)
# A line that contains this many letters of its heading names its subject itself.
HEADING_PREFIX_CHARS = 4


def with_headings(lines: Sequence[Line]) -> Iterator[Line]:
    """The lines that state something, each with the lines above that it depends on."""
    title = _title(lines)
    heading, in_list = Traced.added(""), False
    parents: list[tuple[int, Traced]] = []
    for line, next_line in zip_longest(lines, lines[1:]):
        text, next_text = line.text.text, next_line.text.text if next_line else ""
        content = without_markup(line.text)
        if HEADING.match(text):
            parents, in_list = [], False
            heading = content[:0] if text == title else content.rstrip(":")
            if content and not next_text:
                yield replace(line, text=content)
            continue
        is_sentence = ends_sentence(content.text)
        if in_list and is_sentence and not ITEM.match(text):
            heading = content[:0]  # a sentence after a list does not belong to it
        in_list = bool(ITEM.match(text))
        parents = [(level, parent) for level, parent in parents if level < depth(text)]
        above = [parent.rstrip(":") + ":" for _, parent in parents]
        if not parents and _needs_heading(content.text, heading.text):
            above = [heading + ":"]
        is_parent = next_text and not HEADING.match(next_text) and depth(next_text) > depth(text)
        introduces = may_introduce(content.text)
        if is_parent and not is_sentence and (introduces or ITEM.match(text)):
            parents.append((depth(text), content))
        is_name = content.text.endswith(":") and len(content.text.split()) <= MAX_NAME_WORDS
        if is_sentence or not (introduces if is_parent else is_name):
            yield replace(line, text=joined(" ", [*above, content]))


def _needs_heading(content: str, heading: str) -> bool:
    """Whether a line is too short to be understood without its heading."""
    names_subject = heading[:HEADING_PREFIX_CHARS].lower() in content.lower()
    is_short = len(content.split()) <= MAX_DEPENDENT_WORDS
    return is_short and not names_subject and heading.lower() not in EMPTY_HEADINGS


def _title(lines: Sequence[Line]) -> str | None:
    """The first line, if it is the heading of the whole text and not of a list."""
    headings = [match["level"] for line in lines if (match := HEADING.match(line.text.text))]
    first = HEADING.match(lines[0].text.text) if lines else None
    is_only = first and headings.count(first["level"]) == 1
    is_title = is_only and not without_markup(lines[0].text).text.endswith(":")
    return lines[0].text.text if is_title else None
