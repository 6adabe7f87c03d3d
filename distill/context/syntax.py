"""What a line of a prompt is by its form: a heading, an item of a list, a key, a sentence."""

import re

from distill.context.traced import Traced, indent

# Bullets, numbers and letters of lists, but not a number or an initial that starts a sentence.
BULLET = r"[-*+•]|\d+[.)]|[a-z][.)]|[ivx]+[.)]|[A-Z]\)|\((?:\d+|[a-zA-Z])\)"
ITEM = re.compile(rf"^\s*(?:{BULLET})\s")
MARKUP = re.compile(rf"^\s*(?:#+|>|{BULLET})\s+")
HEADING = re.compile(r"^\s*(?P<level>#+)\s|^\s*\*\*(?=\w)[^\s*.!?]+(?: [^\s*.!?]+){0,3}\*\*:?\s*$")
KEY = re.compile(
    r"^\s*[\"'*]{0,2}(?P<name>[^\W\d][\w.-]*(?: [\w&/-]+){0,3})[\"'*]{0,2}\s*:(?=\s|\*|$)"
)
TAG = re.compile(r"^\s*<(?P<close>/?)(?P<name>[^\W\d][\w-]*)(?:\s[^<>]*)?>\s*$")
EMPHASIS = re.compile(r"\*\*")
ENDS = (".", "!", "?", "。", "！", "？", "।", "؟")  # noqa: RUF001 - not only Latin script
# A line of at most this many words that introduces others is only a name.
MAX_NAME_WORDS = 4


def is_key(line: str) -> bool:
    """Whether a line starts with a name and a colon, not with the words of a sentence."""
    key = KEY.match(line)
    return key is not None and (" " not in key["name"] or not key["name"][0].islower())


def ends_sentence(text: str) -> bool:
    """Whether a text ends with a sentence, which may be in quotes or emphasis."""
    return text.rstrip(" \"'”’»)*_").endswith(ENDS)


def may_introduce(content: str) -> bool:
    """Whether a line without its markup can introduce deeper lines, by its colon or as a name."""
    return content.endswith(":") or len(content.split()) <= MAX_NAME_WORDS


def depth(line: str) -> int:
    """The nesting depth of a line; an item is deeper than a plain line with the same indent."""
    return 2 * indent(line) + bool(ITEM.match(line))


def without_markup(line: Traced) -> Traced:
    """A line without markup, with spaces instead of underscores in its key."""
    mark = MARKUP.match(line.text)
    content = line[mark.end() if mark else 0 :].without(EMPHASIS).strip()
    key, colon, rest = content.text.partition(":")
    if not colon or not is_key(content.text):
        return content
    return Traced(f"{key.replace('_', ' ')}{colon}{rest}", content.places)
