"""Markdown as it would be said line by line: what lists and tables state.

An item is said with the line that announces its list ("Never share: prices"), a row of a table with
the names of its columns. A heading of something states nothing, nor does code.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

# Headings, quotes, bullets and numbers of lists; a number that a sentence begins with stays.
MARKUP = re.compile(r"^\s*(?:#+|>|[-*+•]|\d+[.)])\s+")
HEADING = re.compile(r"^\s*#+\s")
ITEM = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s")
FENCE = re.compile(r"^\s*(?:```|~~~)")
ROW = re.compile(r"^\s*\|(.+)\|\s*$")
# Lines that are broken to fit a width are longer than most that end by themselves.
WRAPPED = 50
RULE = re.compile(r"^[\s|:-]*-[\s|:-]*$")


def told(text: str) -> list[str]:
    """The lines that state something, without markup."""
    unwrapped = _unwrapped([*_without_code(text.splitlines())])
    lines = [line for line in unwrapped if line.strip()]
    return list(_items_told(list(_rows_told(lines))))


def _without_code(lines: Sequence[str]) -> Iterator[str]:
    code = False
    for line in lines:
        if FENCE.match(line):
            code = not code
        elif not code:
            yield line


def _unwrapped(lines: Sequence[str]) -> list[str]:
    """Sentences that go on in the next line, in one."""
    whole: list[str] = []
    for line in lines:
        if whole and _goes_on(whole[-1], line):
            whole[-1] = f"{whole[-1].rstrip()} {line.strip()}"
        else:
            whole.append(line)
    return whole


def _goes_on(line: str, following: str) -> bool:
    """Whether a line is broken off where the next one goes on: it is long, or that begins small."""
    begins, ended = following.strip()[:1], line.rstrip().endswith((".", "!", "?", ":", ";"))
    apart = any(each.match(following) for each in (MARKUP, ROW)) or HEADING.match(line)
    if not line.strip() or not begins or ended or apart or ROW.match(line):
        return False
    return begins.islower() or len(line) >= WRAPPED


def _rows_told(lines: Sequence[str]) -> Iterator[str]:
    """Rows of tables with the names of their columns, and all other lines."""
    columns: list[str] = []
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        row = ROW.match(line)
        cells = [cell.strip() for cell in row[1].split("|")] if row else []
        if RULE.match(line):
            continue
        if row and RULE.match(following):
            columns = cells
        elif row:
            yield "; ".join(_named(columns, cells))
        else:
            yield line


def _named(columns: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    for column, cell in zip_longest(columns[: len(cells)], cells, fillvalue=""):
        if cell:
            yield f"{column}: {cell}" if column else cell


def _items_told(lines: Sequence[str]) -> Iterator[str]:
    """Items with what announces them, and all other lines but headings of something."""
    announced = ""
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        said = MARKUP.sub("", line).strip()
        if ITEM.match(line):
            yield f"{announced} {said}" if announced else said
        elif said.endswith(":") and ITEM.match(following):
            announced = said
        else:
            announced = ""
            if not HEADING.match(line) or not following:
                yield said
