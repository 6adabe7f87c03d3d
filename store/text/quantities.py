"""Numbers by value: "1,500" is 1500, "09:00" is 9, and "forty-five" is 45.

Digits are read in any script. Number words are English (english.toml), without fractions, ordinals
and "one", which is mostly no number. Not covered: the words of other languages, two ways of saying
a time ("19:00" and "7 pm"), and words for numbers such as 2,500, which have two scales.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from store.text.words import ENGLISH, fold, numbers, tokens

_NUMERALS: dict[str, list[str]] = {
    kind: words.split() for kind, words in ENGLISH["numerals"].items()
}
_UNITS = {word: value for value, word in enumerate(_NUMERALS["units"], start=2)}
_TENS = {word: 10 * value for value, word in enumerate(_NUMERALS["tens"], start=2)}
_SCALES = dict(zip(_NUMERALS["scales"], (100, 1000), strict=True))
_SEPARATOR = re.compile(r"[.,:/]")
_GROUP_DIGITS = 3
CACHED = 2048
"""Texts whose numbers are kept: each statement is compared several times."""


@lru_cache(maxsize=CACHED)
def quantities(text: str) -> frozenset[str]:
    """Return the numbers that a text states, in a form in which equal values are equal."""
    return frozenset([*map(canonical, numbers(text)), *map(str, _spelled(text))])


@lru_cache(maxsize=CACHED)
def possible_quantities(text: str) -> frozenset[str]:
    """Return `quantities`, and those of words that may be none, such as "one" and "三"."""
    doubtful = [unicodedata.numeric(char, None) for char in text if not char.isdecimal()]
    ones = ["1"] if "one" in map(fold, tokens(text)) else []
    values = [str(int(value)) for value in doubtful if value is not None and value.is_integer()]
    return quantities(text).union(ones, values)


def canonical(number: str) -> str:
    """Return a number without separators of thousands, leading zeros and groups of zeros."""
    first, *rest = map(_digits, _SEPARATOR.split(number))
    if rest and first.strip("0") and all(len(group) == _GROUP_DIGITS for group in rest):
        return "".join([first, *rest]).lstrip("0")
    while rest and not rest[-1].strip("0"):
        rest.pop()
    return ".".join([first.lstrip("0") or "0", *rest])


def _digits(number: str) -> str:
    """Return the digits of any script as 0 to 9; `int` refuses very long numbers."""
    return "".join(str(unicodedata.decimal(digit)) for digit in number)


def _spelled(text: str) -> Iterator[int]:
    """Yield the numbers that a text spells out."""
    value = None
    for word in [*map(fold, tokens(text)), ""]:
        joined = _joined(value, word)
        if value is not None and joined is None:
            yield value
        value = joined if joined is not None else _begun(word)


def _begun(word: str) -> int | None:
    return _UNITS.get(word) or _TENS.get(word) or _SCALES.get(word)


def _joined(value: int | None, word: str) -> int | None:
    """Return the number that a word makes with the number before it; None if it begins another."""
    if value is None:
        return None
    if word in _SCALES:
        return value * _SCALES[word] if value < _SCALES[word] else None
    added, room = _UNITS.get(word) or _TENS.get(word), _room(value)
    return value + added if added and added < room else None


def _room(value: int) -> int:
    """Return below which value a number can follow: 10 after forty, 100 after two hundred."""
    if value % 100 == 0:
        return 100
    return 10 if value % 100 >= 20 and value % 10 == 0 else 0
