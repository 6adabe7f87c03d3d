"""When two statements say the same: the same words that carry meaning, in the same order.

Pure text, for the curation of lessons. It errs towards "different": a lesson kept twice costs a few
tokens, a lesson taken for another is lost. Words are the same but for a plural's s; numbers, and
the signs of currencies and units, are words; and of the order only clauses that a comma parts may
change: "Within 14 days, refunds are possible."
"""

import re
from collections.abc import Iterator
from itertools import accumulate, chain

_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W\d_]+|[$%\u00b0\u00a2-\u00a5\u20a0-\u20c0]")
_COMMA = re.compile(r"[,;:]\s")
_NEGATION = re.compile(
    r"\b(?:no|not|nor|neither|never|none|nobody|nothing|without|cannot)\b|n['\u2019]t\b"
)
_FILLER_WORDS = (
    "a an and are as at be been by can do does for from has have if in is it its of on or our "
    "please shall should so that the their them then there these they this to was we were when "
    "which who will with you your"
)
_FILLERS = frozenset(_FILLER_WORDS.split())
_PLURAL_LETTERS = 4
"""Shorter words keep their s: "gas" and "bus" are no plurals."""


def similarity(one: str, other: str) -> float:
    """How alike two statements are, 0 to 1; 0 where they cannot mean the same."""
    if negations(one) != negations(other) or not _same_words(one, other):
        return 0.0
    from rapidfuzz import fuzz, utils  # large, and few reach this

    return fuzz.token_sort_ratio(one, other, processor=utils.default_process) / 100


def negations(text: str) -> int:
    """How often a statement says no."""
    return len(_NEGATION.findall(text.lower()))


def _same_words(one: str, other: str) -> bool:
    mine, theirs = ([_words(clause) for clause in _COMMA.split(text)] for text in (one, other))
    ours, others = list(chain(*mine)), list(chain(*theirs))
    if sorted(ours) != sorted(others):
        return False
    return others in _turned(mine, ours) or ours in _turned(theirs, others)


def _turned(clauses: list[list[str]], words: list[str]) -> Iterator[list[str]]:
    """The words of a statement, and with what stands before a comma moved to their end."""
    return (words[place:] + words[:place] for place in accumulate(map(len, clauses)))


def _words(text: str) -> list[str]:
    words = (word.lower() for word in _WORD.findall(text))
    return [_singular(word) for word in words if word not in _FILLERS]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > _PLURAL_LETTERS and word.endswith("s") else word
