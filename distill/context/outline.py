"""Finds what each line of a system prompt stands beneath.

A line stands beneath its headings, inside tags and brackets, and below lines that introduce it: the
item that it is nested in, the line in front of a list, a line that ends with a colon. Without them
it may mean something else.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from math import inf

from distill.context.markup import Reading
from distill.context.syntax import (
    HEADING,
    ITEM,
    TAG,
    depth,
    ends_sentence,
    may_introduce,
    without_markup,
)
from distill.context.traced import Line

COLONS = (":", "：")  # noqa: RUF001 - not only Latin script
CLOSING = re.compile(r"^[\s,}\]]*")
OPENING = re.compile(r"[\s{\[]*$")
BRACKETS = {"}": "{", "]": "["}
BOLD_LEVEL = 7
"""The level of a heading in bold, below those that start with number signs."""


@dataclass(frozen=True)
class Above:
    """What a line stands beneath."""

    numbers: tuple[int, ...]
    """The numbers of the headings, and of the lines with the tags and brackets around it."""
    introductions: tuple[Line, ...]
    """The lines that introduce it, by their last sentence."""


def outline(lines: Sequence[Line], reading: Reading, examples: Set[int]) -> list[Above]:
    """What each line of a prompt stands beneath.

    Args:
        lines: All lines of the prompt, without margin.
        reading: What those without examples are read as.
        examples: The numbers of the lines with examples.
    """
    code = {number for block in reading.code for number in block}
    outside = [line for line in lines if line.numbers[0] not in code]
    tags, brackets = _pairs(outside, _tags), _pairs(outside, _brackets)
    blocks = [*tags, *((block[0], block[-1]) for block in reading.fenced)]
    levels = {line.numbers[0]: _heading_level(line) for line in reading.lines}
    tagged = {number for pair in tags for number in pair}
    headings = {number: level for number, level in levels.items() if level and number not in tagged}
    sections = _sections(len(lines), headings, [*blocks, *brackets])
    introductions = _introductions(lines, reading, headings.keys(), dict(blocks), examples)
    return [Above(*above) for above in zip(sections, introductions, strict=True)]


def _heading_level(line: Line) -> int:
    """The level of a heading, from 1; 0 for other lines and for a tag that closes nothing."""
    heading = None if line.is_whole else HEADING.match(line.text.text)
    if not heading or not without_markup(line.text):
        return 0
    return len(heading["level"] or "#" * BOLD_LEVEL)


def _tags(line: str) -> tuple[list[str], list[str]]:
    """The names of the tag that a line closes and of the one that it opens."""
    tag = TAG.match(line)
    names = [tag["name"]] if tag else []
    return (names, []) if tag and tag["close"] else ([], names)


def _brackets(line: str) -> tuple[list[str], list[str]]:
    """The brackets, as opening ones, that a line closes at its start and opens at its end."""
    closing, opening = CLOSING.search(line), OPENING.search(line)
    closed = [BRACKETS[mark] for mark in closing[0] if mark in BRACKETS] if closing else []
    return closed, [mark for mark in opening[0] if mark.strip()] if opening else []


def _pairs(
    lines: Sequence[Line], marks: Callable[[str], tuple[list[str], list[str]]]
) -> list[tuple[int, int]]:
    """The numbers of the first and the last line of what some kind of marks enclose."""
    opened: list[tuple[str, int]] = []
    pairs: list[tuple[int, int]] = []
    for line in lines:
        closing, opening = marks(line.text.text)
        for name in closing:
            matching = [at for at, (open_name, _) in enumerate(opened) if open_name == name]
            if matching:
                pairs.append((opened[matching[-1]][1], line.numbers[0]))
                del opened[matching[-1] :]
        opened += [(name, line.numbers[0]) for name in opening]
    return pairs


def _sections(
    count: int, headings: Mapping[int, int], enclosed: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, ...]]:
    """For each line, the numbers of its headings, and of the lines that enclose it.

    Args:
        count: The number of lines.
        headings: The level of each heading, by the number of its line.
        enclosed: The numbers of the first and the last line of what is enclosed.
    """
    lasts: dict[int, list[int]] = defaultdict(list)
    for first, last in enclosed:
        lasts[first].append(last)
    opened: list[int] = []
    around: list[tuple[int, int]] = []
    for number in range(count):
        around += [(number, last) for last in lasts.get(number, ())]
        start = around[-1][0] if around else -1
        if level := headings.get(number):
            opened = [each for each in opened if each < start or headings[each] < level]
        yield (*opened, *(each for pair in around for each in pair if each != number))
        opened += [number] if level else []
        if ended := [first for first, last in around if last == number]:
            opened = [each for each in opened if each < ended[0]]
            around = [pair for pair in around if pair[1] != number]


def _introductions(
    lines: Sequence[Line],
    reading: Reading,
    headings: Set[int],
    blocks: Mapping[int, int],
    examples: Set[int],
) -> Iterator[tuple[Line, ...]]:
    """For each line, the lines that introduce it, or the block that it is in.

    Args:
        lines: All lines of the prompt.
        reading: What those without examples are read as.
        headings: The numbers of the headings, which no introduction reaches beyond.
        blocks: The number of the last line of each block in tags or fences, by that of its first.
        examples: The numbers of the lines with examples.
    """
    read_as = {number: line for line in reading.lines for number in line.numbers}
    code = {number for block in reading.code for number in block}
    ends = set(blocks.values())
    stack = [_Introductions()]
    for number, line in enumerate(lines):
        read = read_as.get(number)
        if number in blocks:
            stack[-1].find(depth(line.text.text), is_example=number in examples)
            yield stack[-1].found
            stack.append(_Introductions(stack[-1].found))
            continue
        if number in ends:
            stack.pop()
        elif not line.text.text.strip():
            stack[-1].after_blank = True
        elif number in headings:
            stack[-1] = _Introductions(stack[-1].outer)
        elif read and not read.is_whole:
            if number == read.numbers[0]:
                stack[-1].add(read)
        elif read or number in code or number in examples:
            stack[-1].find(depth(line.text.text), is_example=number in examples)
        yield stack[-1].found


@dataclass
class _Open:
    """A line that the next lines may stand beneath."""

    line: Line
    depth: int
    introduces_deeper: bool
    introduces_equal: bool
    """Whether lines may stand beneath it that are no deeper, because it ends with a colon."""
    rival_depth: float
    """The smallest depth of a line before it that would introduce its lines if it were gone."""
    is_followed: bool = False


class _Introductions:
    """The lines that introduce the current line of a prompt."""

    def __init__(self, outer: tuple[Line, ...] = ()) -> None:
        """Begin a section.

        Args:
            outer: What introduces the block that it is in.
        """
        self.outer = outer
        self.found = outer
        self.after_blank = False
        self._after_example = False
        self._opened: list[_Open] = []
        self._rival_depth = inf

    def add(self, line: Line) -> None:
        """Go on to a line that may introduce others."""
        text, content = line.text.text, without_markup(line.text).text
        has_colon, is_item = content.endswith(COLONS), bool(ITEM.match(text))
        is_parent = not ends_sentence(content) and (may_introduce(content) or is_item)
        self.find(depth(text), has_colon=has_colon)
        self._opened.append(
            _Open(line, depth(text), is_parent or is_item, has_colon, self._rival_depth)
        )
        if is_parent:
            self._rival_depth = min(self._rival_depth, depth(text))

    def find(self, depth: int, *, has_colon: bool = False, is_example: bool = False) -> None:
        """Find what introduces a line of a depth.

        A line with a colon introduces what follows it up to a blank line, to a line that is deeper
        or less deep, or to the next line with a colon; a blank line does not divide examples.
        """
        is_divided = self.after_blank and not (is_example and self._after_example)
        for each in self._opened:
            if each.is_followed and (is_divided or has_colon):
                each.introduces_equal = False
        self._opened = [
            each
            for each in self._opened
            if each.depth < depth or (each.depth == depth and each.introduces_equal)
        ]
        self.found = self.outer + tuple(
            each.line
            for each in self._opened
            if each.depth == depth or each.introduces_deeper or each.rival_depth < depth
        )
        for each in self._opened:
            each.is_followed = True
            each.introduces_equal &= each.depth == depth
        self.after_blank, self._after_example = False, is_example
