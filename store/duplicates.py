"""When two statements say the same: alike as a whole, and in every word that carries meaning.

Pure text, for the curation of lessons. It errs towards "different": a lesson kept twice costs a few
tokens, a lesson taken for another is lost. So numbers and negations must be equal, and each word
that only one side has must be a filler or an inflection of a word on the other side.
"""

import re
from collections import Counter

from rapidfuzz import fuzz, utils

_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_NEGATION = re.compile(
    r"\b(?:no|not|nor|neither|never|none|nobody|nothing|without|cannot)\b|n['\u2019]t\b"
)
_FILLER_WORDS = (
    "a an and are as at be been by can do does for from has have if in is it its of on or our "
    "please shall should so that the their them then there these they this to was we were when "
    "which who will with you your"
)
_FILLERS = frozenset(_FILLER_WORDS.split())
INFLECTION_RATIO = 75.0
"""Of 100: "refund" and "refunds" have 92, "Monday" and "Tuesday" 62, "open" and "close" 44."""


def similarity(one: str, other: str) -> float:
    """How alike two statements are, 0 to 1; 0 where they cannot mean the same."""
    if _facts(one) != _facts(other) or not _same_words(one, other):
        return 0.0
    return fuzz.token_sort_ratio(one, other, processor=utils.default_process) / 100


def negations(text: str) -> int:
    """How often a statement says no."""
    return len(_NEGATION.findall(text.lower()))


def _facts(text: str) -> tuple[Counter[str], int]:
    """Its numbers, and how often it negates."""
    return Counter(_NUMBER.findall(text)), negations(text)


def _same_words(one: str, other: str) -> bool:
    left, right = _words(one), _words(other)
    return _covers(left, right - left) and _covers(right, left - right)


def _covers(words: set[str], extra: set[str]) -> bool:
    return all(
        any(fuzz.ratio(word, known) >= INFLECTION_RATIO for known in words) for word in extra
    )


def _words(text: str) -> set[str]:
    return set(utils.default_process(text).split()) - _FILLERS
