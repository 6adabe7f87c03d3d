"""When two texts say the same: two statements, or two questions. Pure text.

Statements (the curation of lessons) err towards "different": a lesson kept twice costs a few
tokens, a lesson taken for another is lost. Both need the same words in the same order, except that
clauses divided by a comma may change places: "Within 14 days, refunds are possible."

Questions (what a run trains and measures on) err towards "the same": nothing may be trained on that
is nearly a held-out prompt. So order and spelling may differ. But "What does plan A cost?" is not
"What does plan B cost?": facts next to each other in a context differ in a word, and each needs
questions.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain

from store.text.words import UNSPACED, fold, function_words, meaningful, negations, singular, tokens

_COMMA = re.compile(r"[,;:]\s")
_EMPTY_IN_BOTH = (
    *("articles", "pronouns", "demonstratives", "conjunctions", "auxiliaries", "prepositions"),
    "politeness",
)
_EMPTY_IN_STATEMENTS = function_words(*_EMPTY_IN_BOTH, "relatives")
# A question word makes another question, and so does a negation; who asks does not.
_EMPTY_IN_QUESTIONS = function_words(
    *_EMPTY_IN_BOTH, "permission", "first_person", "particles", "indefinites"
)

SAME_QUESTION = 90.0
"""Minimum similarity (0 to 100) of the meaningful words of two near-duplicates."""
SAME_WORD = 85.0
"""Minimum similarity of two forms or spellings of one word: "lamp" and "lamps"."""


def statement_similarity(left: str, right: str) -> float:
    """How alike two statements are, 0 to 1; 0 if they cannot mean the same."""
    if negations(left) != negations(right) or not _same_words(left, right):
        return 0.0
    from rapidfuzz import fuzz, utils  # large, and few statements get this far

    return fuzz.token_sort_ratio(left, right, processor=utils.default_process) / 100


def _same_words(left: str, right: str) -> bool:
    left_clauses, right_clauses = (
        [_statement_words(clause) for clause in _COMMA.split(text)] for text in (left, right)
    )
    left_words, right_words = list(chain(*left_clauses)), list(chain(*right_clauses))
    if sorted(left_words) != sorted(right_words):
        return False
    return right_words in _rotations(left_clauses, left_words) or left_words in _rotations(
        right_clauses, right_words
    )


def _rotations(clauses: list[list[str]], words: list[str]) -> Iterator[list[str]]:
    """The words of a statement, with the first clauses moved to the end."""
    return (words[start:] + words[:start] for start in accumulate(map(len, clauses)))


def _statement_words(text: str) -> list[str]:
    return [singular(fold(token)) for token in meaningful(text, _EMPTY_IN_STATEMENTS)]


def is_near_duplicate(question: str, others: Sequence[str]) -> bool:
    """Whether a question asks nearly the same as one of the others.

    One meaningful word makes another question: "When do you open?" is not "Why do you open?".
    """
    from rapidfuzz import fuzz, process  # large, and serving seldom compares questions

    words = _question_words(question)
    alike = process.extract_iter(
        words, map(_question_words, others), scorer=fuzz.ratio, score_cutoff=SAME_QUESTION
    )
    return any(_differ_only_in_form(words.split(), other.split()) for other, _, _ in alike)


def without_near_duplicates(questions: Sequence[str], avoid: Sequence[str] = ()) -> list[str]:
    """The questions in order, without those that nearly repeat an earlier one or one of `avoid`."""
    distinct: list[str] = []
    for question in questions:
        if not is_near_duplicate(question, [*distinct, *avoid]):
            distinct.append(question)
    return distinct


@lru_cache(maxsize=4096)
def _question_words(text: str) -> str:
    """The meaningful words, sorted; single characters in scripts without spaces."""
    words = meaningful(text, _EMPTY_IN_QUESTIONS) or tokens(text)
    return " ".join(sorted(part for word in map(fold, words) for part in _parts(word)))


def _parts(word: str) -> Sequence[str]:
    return word if UNSPACED.match(word) else word.split()


def _differ_only_in_form(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether no word replaces another, and no name or number is only on one side."""
    only_left = list((Counter(left) - Counter(right)).elements())
    only_right = list((Counter(right) - Counter(left)).elements())
    for word in tuple(only_left):
        twin = next((other for other in only_right if is_same_word(word, other)), None)
        if twin is not None:
            only_left.remove(word)
            only_right.remove(twin)
    replaced = only_left and only_right
    return not replaced and not any(map(_is_name, [*only_left, *only_right]))


def is_same_word(left: str, right: str) -> bool:
    """Whether two words are the same one in another form or spelling."""
    from rapidfuzz import fuzz

    if left[0] != right[0] or _is_name(left) or _is_name(right):
        return False
    return fuzz.ratio(left, right) >= SAME_WORD


def _is_name(word: str) -> bool:
    """Whether a word selects one of several, as a number or a single letter does."""
    single = len(word) == 1 and not UNSPACED.match(word)
    return single or any(character.isdigit() for character in word)
