"""Takes off the indentation that all lines of a prompt share."""

from collections.abc import Sequence
from dataclasses import replace

from distill.context.traced import Line, Traced, indent

TAB = 8


def without_margin(lines: Sequence[Line]) -> list[Line]:
    """The lines without the indentation that all of them share, and with spaces for tabs.

    The first line counts only for itself, as in a docstring.
    """
    if not lines:
        return []
    first, *rest = (_expanded(line.text) for line in lines)
    margin = min((indent(text.text) for text in rest if text.text.strip()), default=0)
    texts = [first[indent(first.text) :], *(text[margin:] for text in rest)]
    return [replace(line, text=text) for line, text in zip(lines, texts, strict=True)]


def _expanded(line: Traced) -> Traced:
    """The line with spaces instead of tabs; each space has the place of its tab."""
    if "\t" not in line.text:
        return line
    text, places = "", []
    for character, place in zip(line.text, line.places, strict=True):
        width = TAB - len(text) % TAB if character == "\t" else 1
        text += " " * width if character == "\t" else character
        places += [place] * width
    return Traced(text, tuple(places))
