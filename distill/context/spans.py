"""Cuts the lines of a system prompt into the characters of their sentences.

A line is shared out: each sentence gets its words with the markup attached to them. What is around
the whole line, its bullet or a pair of tags, belongs to all of its sentences.
"""

import re
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from distill.context.syntax import EMPHASIS, MARKUP
from distill.context.traced import ADDED, Line, Span, Traced, indent

TAGS = re.compile(
    r"(?P<open>\s*<(?P<name>[^\W\d][\w-]*)(?:\s[^<>]*)?>)\s*\S.*(?P<close></(?P=name)>)\s*$"
)


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the line that it is from."""

    text: Traced
    line: Line


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that meet as one."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def without(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """What is left of the spans."""
    rest = merged(spans)
    for start, end in taken:
        rest = [
            part
            for each in rest
            for part in ((each[0], min(each[1], start)), (max(each[0], end), each[1]))
            if part[0] < part[1]
        ]
    return rest


class Cuts:
    """The characters of a prompt that its lines and sentences are."""

    def __init__(self, text: str, sentences: Iterable[Sentence]) -> None:
        """Share out the lines of a prompt.

        Args:
            text: The prompt.
            sentences: All of its sentences.
        """
        self._text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text) + 1]
        self._firsts: dict[int, list[int]] = defaultdict(list)
        self._lasts: dict[int, list[int]] = defaultdict(list)
        self._bodies: dict[int, Span] = {}
        for sentence in sentences:
            for number, (first, last) in self._places(sentence).items():
                insort(self._firsts[number], first)
                insort(self._lasts[number], last)

    def trimmed(self, spans: Iterable[Span]) -> tuple[Span, ...]:
        """The spans without white space around them, and without empty ones."""
        parts = ((start, end, self._text[start:end]) for start, end in spans)
        return tuple(
            (start + indent(part), end - len(part) + len(part.rstrip()))
            for start, end, part in parts
            if part.strip()
        )

    def line(self, number: int) -> Span:
        """A whole line."""
        return self._starts[number], self._starts[number + 1] - 1

    def block(self, numbers: Iterable[int]) -> list[Span]:
        """Whole lines, those that follow each other as one span."""
        ranges = merged((number, number + 1) for number in numbers)
        return [(self._starts[first], self._starts[end] - 1) for first, end in ranges]

    def own(self, sentence: Sentence) -> list[Span]:
        """The words of a sentence, one span for each line that it stands on."""
        if sentence.line.is_whole:
            return self.block(sentence.line.numbers)
        places = self._places(sentence)
        return [self._share(number, first, last) for number, (first, last) in places.items()]

    def around(self, sentence: Sentence) -> list[Span]:
        """The bullets and tags around the lines of a sentence."""
        if sentence.line.is_whole:
            return []
        lines = [(self.line(number), self._body(number)) for number in self._places(sentence)]
        return [span for line, body in lines for span in ((line[0], body[0]), (body[1], line[1]))]

    def continues_item(self, sentence: Sentence) -> bool:
        """Whether a sentence stands in an item of a list, but not on the line with its bullet."""
        first = sentence.line.numbers[0]
        bullet = self._text[self.line(first)[0] : self._body(first)[0]]
        return bool(bullet.strip()) and first < self.number(sentence)

    def number(self, sentence: Sentence) -> int:
        """The number of the first line that a sentence stands on."""
        return sentence.line.numbers[0] if sentence.line.is_whole else min(self._places(sentence))

    def _places(self, sentence: Sentence) -> dict[int, tuple[int, int]]:
        """The places of a sentence's first and last character on each line that it stands on.

        A sentence may be no more than the words of introductions; then it stands on their lines.
        """
        places: dict[int, list[int]] = defaultdict(list)
        for place in sentence.text.places:
            if place != ADDED:
                places[bisect_right(self._starts, place) - 1].append(place)
        own = places.keys() & set(sentence.line.numbers) or places.keys()
        return {number: (min(places[number]), max(places[number])) for number in own}

    def _body(self, number: int) -> Span:
        """A line without its bullet, its indentation and the tags around it."""
        if number not in self._bodies:
            self._bodies[number] = self._find_body(*self.line(number))
        return self._bodies[number]

    def _find_body(self, start: int, end: int) -> Span:
        line = self._text[start:end]
        if tags := TAGS.match(line):
            return start + tags.end("open"), start + tags.start("close")
        mark = MARKUP.match(line)
        return start + (mark.end() if mark else indent(line)), end

    def _share(self, number: int, first: int, last: int) -> Span:
        """A sentence's share of a line, from the places of its first and last character."""
        start, end = self._body(number)
        before = bisect_left(self._lasts[number], first)
        if before:
            _, start = self._between(self._lasts[number][before - 1] + 1, first)
        after = bisect_right(self._firsts[number], last)
        if after < len(self._firsts[number]):
            end, _ = self._between(last + 1, self._firsts[number][after])
        return start, end

    def _between(self, end: int, start: int) -> Span:
        """Where one sentence ends and the next begins, with the markup attached to each."""
        gap = self._text[end:start]
        *closing, opening = re.split(r"\s+", gap)
        if closing:
            return end + len(gap.removesuffix(opening).rstrip()), start - len(opening)
        line = self._text[self._text.rfind("\n", 0, end) + 1 : end]
        is_bold = len(EMPHASIS.findall(line)) % 2  # then the gap ends it
        return (start, start) if is_bold else (end, end)
