"""What a text says line by line: its lists, tables, keys and headings, each line as if said alone.

System prompts are written as Markdown, as YAML, JSON or XML, or as plain lines. An item is said
with what announces it ("Never share: prices"), a row of a table with the names of its columns, a
key with those above it, a short line with its heading. What only announces states nothing, nor does
code; lines that were broken to fit a width are one again.
"""

import json
import re
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from itertools import zip_longest
from typing import Any

# Bullets, numbers and letters of lists; a number or an initial that a sentence begins with stays.
BULLET = r"[-*+•]|\d+[.)]|[a-z][.)]|[ivx]+[.)]|[A-Z]\)|\((?:\d+|[a-zA-Z])\)"
ITEM = re.compile(rf"^\s*(?:{BULLET})\s")
MARKUP = re.compile(rf"^\s*(?:#+|>|{BULLET})\s+")
# How a text looks, and not what it says.
HTML = re.compile(
    r"</?(?:a|b|br|div|em|font|h[1-6]|i|li|ol|p|small|span|strong|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
HEADING = re.compile(r"^\s*(?P<level>#+)\s|^\s*\*\*(?=\w)[^\s*.!?]+(?: [^\s*.!?]+){0,3}\*\*:?\s*$")
FENCE = re.compile(r"^\s*(?:```|~~~)\s*(?P<kind>\w*)")
# What stands in fences of these kinds, and does not begin as code does, states something.
TEXT_KINDS = frozenset({"", "text", "txt", "md", "markdown", "yaml", "yml"})
CODE = ("{", "[", "<", "$")
ROW = re.compile(r"^\s*\|(.+)\|\s*$")
RULE = re.compile(r"^[\s|:-]*-[\s|:-]*$")
KEY = re.compile(
    r"^\s*[\"'*]{0,2}(?P<name>[^\W\d][\w.-]*(?: [\w&/-]+){0,3})[\"'*]{0,2}\s*:(?=\s|\*|$)"
)
TAG = re.compile(r"^\s*<(?P<close>/?)(?P<name>[^\W\d][\w-]*)(?:\s[^<>]*)?>\s*$")
TAGGED = re.compile(r"^(\s*)<([^\W\d][\w-]*)>\s*(\S.*?)\s*</\2>\s*$")
QUOTED = re.compile(r"^(\s*)\"([^\"]+)\"\s*:\s*\"?(.*?)\"?,?\s*[{\[]?$")
FOLDED = re.compile(r"(?<=:)\s*[|>][-+]?\s*$")
ENDS = (".", "!", "?", "。", "！", "？", "।", "؟")  # noqa: RUF001 - not only Latin script
# Lines that are broken to fit a width are longer than most that end by themselves.
WRAPPED = 50
# Shorter names of tags are mostly HTML's: they say how a text looks.
TAG_NAME = 5
# A line of so few words leans on its heading; one of so few, in front of others, is only a name.
LEANING, NAME = 6, 4
# Headings that say nothing of what stands below them.
EMPTY = frozenset(
    (
        *("about", "about us", "background", "details", "facts", "general", "information"),
        *("introduction", "notes", "other", "overview", "summary"),
    )
)
# Where a line has so many letters of its heading, it says itself what it is about.
STEM = 4


def told(text: str) -> list[str]:
    """The lines that state something, without markup."""
    try:
        value = json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        value = None
    if value is not None:
        return list(_leaves(value, ""))
    lines = [_keyed(HTML.sub("", line)) for line in _without_code(cleandoc(text).splitlines())]
    unwrapped = [line for paragraph in _paragraphs(lines) for line in _unwrapped(paragraph)]
    return list(_outlined(list(_rows_told(unwrapped))))


def _leaves(value: Any, above: str) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """What a JSON value states: each value with its keys, flat objects in lists as rows."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, f"{above} {key}".replace("_", " ").strip())
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, dict) and not any(
                isinstance(v, dict | list) for v in each.values()
            ):
                cells = {key: _value(below) for key, below in each.items()}
                for said in _row(list(cells), list(cells.values())):
                    yield f"{above}: {said}" if above else said
            else:
                yield from _leaves(each, above)
    else:
        yield f"{above}: {_value(value)}" if above else _value(value)


def _value(value: Any) -> str:  # noqa: ANN401 - any JSON
    return value if isinstance(value, str) else json.dumps(value)


def _without_code(lines: Sequence[str]) -> list[str]:
    """The lines without the code in fences; a fence that nothing closes is none."""
    fences = [place for place, line in enumerate(lines) if FENCE.match(line)]
    kept = ["" if FENCE.match(line) else line for line in lines]
    for first, last in zip(fences[::2], fences[1::2], strict=False):
        fence = FENCE.match(lines[first])
        begins = "".join(lines[first + 1 : last]).lstrip()
        text = fence and fence["kind"].lower() in TEXT_KINDS and not begins.startswith(CODE)
        inside = lines[first + 1 : last] if text else [""] * (last - first - 1)
        kept[first : last + 1] = ["", *inside, ""]
    return kept


def _keyed(line: str) -> str:
    """A line of XML, JSON or YAML as a key or a heading; any other as it is."""
    tag = TAG.match(line)
    if not line.strip(" {}[],") or (tag and len(tag["name"]) < TAG_NAME):
        return ""
    if tag:  # what closes it ends its part of the text
        return "###### " + ("" if tag["close"] else tag["name"])
    return FOLDED.sub("", QUOTED.sub(r"\1\2: \3", TAGGED.sub(r"\1\2: \3", line)))


def _is_key(line: str) -> bool:
    """Whether a line begins with a name and a colon, and not with words of a sentence."""
    key = KEY.match(line)
    return key is not None and (" " not in key["name"] or not key["name"][0].islower())


def _paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Lines that may be one text: each heading, item, row and key begins anew."""
    paragraph: list[str] = []
    for line in lines:
        alone = HEADING.match(line) or ROW.match(line)
        if paragraph and (not line.strip() or alone or MARKUP.match(line) or _is_key(line)):
            yield paragraph
            paragraph = []
        if alone:
            yield [line]
        elif line.strip():
            paragraph.append(line)
    if paragraph:
        yield paragraph


def _unwrapped(paragraph: Sequence[str]) -> list[str]:
    """The lines of a paragraph, with those in one that go on in the next."""
    first, *rest = paragraph
    if ITEM.match(first) and rest and all(_indent(line) > _indent(first) for line in rest):
        return [" ".join([first.rstrip(), *(line.strip() for line in rest)])]
    prose = _ended(paragraph[-1])
    whole = [first]
    for line, following in zip(paragraph, rest, strict=False):
        if _goes_on(line.rstrip(), following.strip(), prose):
            whole[-1] = f"{whole[-1].rstrip()} {following.strip()}"
        else:
            whole.append(following)
    return whole


def _goes_on(line: str, following: str, prose: bool) -> bool:
    """Whether a line is broken off where the next one goes on.

    Then it is long, or the next one begins small; where the text does not end as prose does, both.
    """
    if _ended(line) or line.endswith((":", ";")):
        return False
    long, small = len(line) >= WRAPPED, not following[0].isupper()
    if prose or line.endswith(","):
        return long or small
    return long and small and following[0].isalpha()


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
            yield from _row(columns, cells)
        else:
            yield line


def _row(columns: Sequence[str], cells: Sequence[str]) -> list[str]:
    """What a row states: of what its first cell names, each other cell."""
    named = [
        f"{column}: {cell}" if column else cell
        for column, cell in zip_longest(columns[: len(cells)], cells, fillvalue="")
        if cell
    ]
    return [f"{named[0]}; {each}" for each in named[1:]] or named


def _outlined(lines: Sequence[str]) -> Iterator[str]:
    """Each line with what stands above it, where it does not state anything without."""
    title = _title(lines)
    heading, listed = "", False
    above: list[tuple[int, str]] = []
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        said = _as_said(line)
        if HEADING.match(line):
            above, listed = [], False
            heading = "" if line == title else said.rstrip(":")
            if said and not following:
                yield said
            continue
        if listed and _ended(said) and not ITEM.match(line):
            heading = ""  # a sentence after a list is no part of it
        listed = bool(ITEM.match(line))
        above = [(depth, text) for depth, text in above if depth < _depth(line)]
        carried = [f"{text.rstrip(':')}:" for _, text in above]
        named = heading[:STEM].lower() in said.lower()
        leans = not (named or above or heading.lower() in EMPTY) and len(said.split()) <= LEANING
        parent = following and not HEADING.match(following) and _depth(following) > _depth(line)
        announces = said.endswith(":") or len(said.split()) <= NAME
        if parent and not _ended(said) and (announces or ITEM.match(line)):
            above.append((_depth(line), said))
        only_named = said.endswith(":") and len(said.split()) <= NAME
        if _ended(said) or not (announces if parent else only_named):
            yield " ".join([f"{heading}:", said] if leans else [*carried, said])


def _as_said(line: str) -> str:
    """A line without markup, its key in words."""
    said = MARKUP.sub("", line).replace("**", "").strip()
    key, colon, rest = said.partition(":")
    return f"{key.replace('_', ' ')}{colon}{rest}" if colon and _is_key(said) else said


def _ended(text: str) -> bool:
    """Whether a text is at the end of a sentence, in quotes or not."""
    return text.rstrip(" \"'”’»)*_").endswith(ENDS)


def _title(lines: Sequence[str]) -> str | None:
    """The first line, if it is the heading of the whole text, and not of a list."""
    headings = [match["level"] for match in map(HEADING.match, lines) if match]
    first = HEADING.match(lines[0]) if lines else None
    alone = first and headings.count(first["level"]) == 1
    return lines[0] if alone and not _as_said(lines[0]).endswith(":") else None


def _depth(line: str) -> int:
    """How deep a line stands: an item deeper than a plain line at its place."""
    return 2 * _indent(line) + bool(ITEM.match(line))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
