"""Takes off the indentation that all lines of a prompt share."""

from collections.abc import Sequence
from dataclasses import replace

from distill.context.syntax import ITEM
from distill.context.traced import Line, Traced, indent

TAB = 8


def without_margin(lines: Sequence[Line]) -> list[Line]:
    """The lines without the indentation that they share, and with spaces for tabs.

    As in a docstring, the first line may have lost its indentation and does not count, unless the
    others are nested in it.
    """
    if not lines:
        return []
    first, *rest = (_expanded(line.text) for line in lines)
    is_parent = first.text.rstrip().endswith(":") or ITEM.match(first.text)
    sharing = [text for text in ((first, *rest) if is_parent else rest) if text.text.strip()]
    margin = min((indent(text.text) for text in sharing), default=0)
    top = first[margin if is_parent else indent(first.text) :]
    texts = [top, *(text[margin:] for text in rest)]
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
