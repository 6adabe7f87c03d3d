"""Near-duplicates: texts that ask the same in another order, spelling, or with other small words.

What is measured on may not be trained on, nor in nearly the same words, and no question needs to
be asked twice. But "What does plan A cost?" is not "What does plan B cost?", however alike they
look: facts that stand side by side in a context differ in a word, and each is to be asked about.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from rapidfuzz import fuzz, process

from distill.context.statements import UNSPACED, words

# Similarity (0 to 100) that the telling words of two near-duplicates have at least.
SAME = 90.0
# Similarity from which two words are one, in another form or misspelt: "lamp" and "lamps".
SAME_WORD = 85.0
# Words that make no other question of one: "How can I return a lamp?", "How do you return lamps?"
TELLING_NOTHING = frozenset(
    """
    a about am an and any are as at be been by can could did do does for from had has have i if in
    into is it its just may me my of on or our please shall should so some that the their them then
    there these they this to up us was we were will with would you your
    """.split()  # noqa: SIM905 - prose is easier to read and change
)
# What is left of small words: "What's", "I'd". A letter by itself is a name: "plan D".
SHORTENED = re.compile(r"(?<=\w)['\u2019](?:s|d|t|m|ll|re|ve)\b")


def is_near(text: str, others: Sequence[str]) -> bool:
    """Whether `text` asks nearly what one of `others` does.

    A telling word makes another question: "When do you open?" is not "Why do you open?".
    """
    telling = _telling(text)
    alike = process.extract_iter(
        telling, map(_telling, others), scorer=fuzz.ratio, score_cutoff=SAME
    )
    return any(_say_the_same(telling.split(), other.split()) for other, _, _ in alike)


def without_near_duplicates(texts: Sequence[str], avoid: Sequence[str] = ()) -> list[str]:
    """The texts in order, without those that nearly repeat an earlier one or one of `avoid`."""
    kept: list[str] = []
    for text in texts:
        if not is_near(text, [*kept, *avoid]):
            kept.append(text)
    return kept


@lru_cache(maxsize=4096)
def _telling(text: str) -> str:
    """The words that tell a question from another, sorted; characters where no spaces are."""
    apart = UNSPACED.sub(lambda run: " ".join(f" {run[0]} "), SHORTENED.sub("", text.lower()))
    said = words(apart)
    return " ".join(sorted(each for each in said if each not in TELLING_NOTHING) or said)


def _say_the_same(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether no word of either stands there in place of another, or names one of several."""
    left, right = Counter(one), Counter(other)
    only_one = list((left - right).elements())
    only_other = list((right - left).elements())
    for word in tuple(only_one):
        twin = next((each for each in only_other if _is_one_word(word, each)), None)
        if twin is not None:
            only_one.remove(word)
            only_other.remove(twin)
    return not (only_one and only_other) and not any(map(_is_name, [*only_one, *only_other]))


def _is_one_word(one: str, other: str) -> bool:
    """Whether two words are one, in another form or misspelt."""
    if one[0] != other[0] or _is_name(one) or _is_name(other):
        return False
    return fuzz.ratio(one, other) >= SAME_WORD


def _is_name(word: str) -> bool:
    """Whether a word names one of several, as a number or a single letter does."""
    single = len(word) == 1 and not UNSPACED.match(word)
    return single or any(character.isdigit() for character in word)
