"""What is left of a system prompt when the statements that an adapter has learned are cut out.

Pure. A segment is `[start, end, tokens]`: a range of the prompt's characters, without the one at
`end`, and its length in tokens. What is left is the union of the segments that are kept, in the
prompt's own words, order and lines.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

Segment = Sequence[int]


def residual_text(text: str, kept: Iterable[Segment]) -> str:
    """Return the kept part of a prompt: all of it as it is, or the lines that have kept words.

    A line keeps its indentation. Words between which others were cut out are separated by a space,
    lines between which there was a blank line by one.

    Args:
        text: The prompt.
        kept: The segments to keep, in any order; they may overlap. What lies outside the text is
            ignored.
    """
    is_kept = bytearray(len(text))
    for start, end, _ in _within(text, kept):
        is_kept[start:end] = b"\1" * (end - start)
    if not any(is_kept):
        return ""
    if all(flag or char.isspace() for flag, char in zip(is_kept, text, strict=True)):
        return text
    lines: list[str] = []
    position, after_blank = 0, False
    for line in text.splitlines(keepends=True):
        words = _kept_words(line, is_kept[position : position + len(line)])
        position += len(line)
        if words:
            lines += [""] if after_blank and lines else []
            lines.append(line[: len(line) - len(line.lstrip())] + words)
        after_blank = not words and (after_blank or line.isspace())
    return "\n".join(lines)


def residual_tokens(text: str, kept: Iterable[Segment]) -> int:
    """Return how many tokens the kept part of a prompt has; arguments as for `residual_text`.

    A segment that lies in another one is not counted again.
    """
    total = reached = 0
    for _, end, tokens in sorted(_within(text, kept), key=lambda each: (each[0], -each[1])):
        if end > reached:
            total, reached = total + tokens, end
    return total


def _within(text: str, segments: Iterable[Segment]) -> list[tuple[int, int, int]]:
    """Return the segments, cut off at the ends of the text, without empty ones."""
    cut = ((max(start, 0), min(end, len(text)), tokens) for start, end, tokens in segments)
    return [(start, end, tokens) for start, end, tokens in cut if start < end]


def _kept_words(line: str, is_kept: Sequence[int]) -> str:
    """Return the kept part of a line, without white space around it."""
    marked = zip(line, is_kept, strict=True)
    runs = groupby(marked, key=lambda each: bool(each[1]) or each[0].isspace())
    parts = ("".join(char for char, _ in run).strip() for stays, run in runs if stays)
    return " ".join(filter(None, parts))
