"""Text that knows where in the system prompt it stands, character by character.

Reading a prompt joins lines, drops markup and adds the words of headings. Texts that carry the
places of their characters through all of this still say what they were made of.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

Span = tuple[int, int]
"""Characters [start, end) of a system prompt."""
ADDED = -1
"""The place of a character that is not in the prompt, such as a colon after a heading."""


@dataclass(frozen=True)
class Traced:
    """A text and the place of each of its characters."""

    text: str
    places: tuple[int, ...]
    """One offset into the prompt for each character."""

    @classmethod
    def added(cls, text: str) -> "Traced":
        """A text that is not in the prompt."""
        return cls(text, (ADDED,) * len(text))

    def __bool__(self) -> bool:
        return bool(self.text)

    def __getitem__(self, part: slice) -> "Traced":
        return Traced(self.text[part], self.places[part])

    def __add__(self, other: "Traced | str") -> "Traced":
        right = Traced.added(other) if isinstance(other, str) else other
        return Traced(self.text + right.text, self.places + right.places)

    def strip(self) -> "Traced":
        """The text without white space around it."""
        return self.rstrip()[len(self.text) - len(self.text.lstrip()) :]

    def rstrip(self, characters: str | None = None) -> "Traced":
        """The text without white space, or without the characters, at its end."""
        return self[: len(self.text.rstrip(characters))]

    def group(self, match: re.Match[str], group: int | str) -> "Traced":
        """A group of a match in the text."""
        return self[slice(*match.span(group))]

    def without(self, pattern: re.Pattern[str]) -> "Traced":
        """The text without the matches of a pattern."""
        parts, end = [], 0
        for match in pattern.finditer(self.text):
            parts.append(self[end : match.start()])
            end = match.end()
        return joined("", [*parts, self[end:]]) if parts else self


def joined(separator: str, texts: Iterable[Traced]) -> Traced:
    """The texts, with a separator between them that is not in the prompt."""
    parts = list(texts)
    places: list[int] = []
    for index, part in enumerate(parts):
        places += [ADDED] * len(separator) if index else []
        places += part.places
    return Traced(separator.join(part.text for part in parts), tuple(places))


@dataclass(frozen=True)
class Line:
    """One line of a prompt, or what it is read as."""

    text: Traced
    numbers: tuple[int, ...]
    """The numbers of the prompt's lines that it is, from 0; several if it was wrapped."""
    columns: tuple[int, ...] = ()
    """The numbers of the lines that name the columns of its table."""
    is_whole: bool = False
    """Whether the lines that it is can only be kept whole, like a row of a table."""


def prompt_lines(text: str) -> list[Line]:
    """The lines of a prompt, which end with line feeds."""
    lines, start = [], 0
    for number, line in enumerate(text.split("\n")):
        end = start + len(line)
        lines.append(Line(Traced(line, tuple(range(start, end))), (number,)))
        start = end + 1
    return lines


def divided(line: Line) -> list[Line]:
    """The line, divided where Unicode ends lines but line feeds do not."""
    parts, start = [], 0
    for text in line.text.text.splitlines(keepends=True):
        end = start + len(text.splitlines()[0])
        parts.append(replace(line, text=line.text[start:end]))
        start += len(text)
    return parts or [line]


def indent(text: str) -> int:
    """The number of white space characters that a text starts with."""
    return len(text) - len(text.lstrip())
