"""Terms: the numbers, names or words that tell one statement from another like it.

A text states its numbers if it has any, otherwise its names, otherwise its words; and a clause with
them says yes or no. Names are words with a capital inside a sentence, and words with capitals or
digits inside, and the words of addresses. Not covered: names of scripts without capitals, which
count as words, and negations of languages other than English (english.toml), so that a text in
these always says yes.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from store.text.quantities import CACHED, possible_quantities, quantities
from store.text.similarity import is_same_word
from store.text.words import (
    FUNCTION_WORDS,
    UNSPACED,
    content_words,
    fold,
    function_words,
    meaningful,
    sentences,
    singular,
    tokens,
)

_NEGATIONS = function_words("negations", "negative_words")
_NO = "no"
_CLAUSE_END = re.compile(
    r"[,.;:!?\u2026]\s+|\s[-\u2013\u2014]+\s|[\u3001\uff0c\uff1a\uff1b]"
    rf"|\s(?=(?:{'|'.join(FUNCTION_WORDS['contrasts'])})\s)",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+\w|\w+(?:\.[a-z]\w+)+(?:/\S*\w)?")
Terms = frozenset[str]


@dataclass(frozen=True)
class Kind:
    """A kind of terms."""

    stated: Callable[[str], Terms]
    """The terms that a text asserts."""
    held: Callable[[str], Terms]
    """Those that can be found in it."""

    def has(self, text: str, wanted: Terms) -> bool:
        """Return whether a text has all the terms; half of them, if words cannot be divided.

        In scripts without spaces, words are pairs of characters, and some pairs join two words.
        """
        missing = wanted - self.held(text)
        divided = not any(map(UNSPACED.match, wanted))
        return not missing if divided else 2 * len(missing) <= len(wanted)


@lru_cache(maxsize=CACHED)
def clauses(text: str) -> tuple[str, ...]:
    """Return the clauses of a text that have words, without the marks between them."""
    return tuple(clause for clause in _CLAUSE_END.split(text) if tokens(clause))


def says_no(text: str, terms: Terms, kind: Kind, *, opens: bool = False) -> set[bool]:
    """Return whether the clauses with any of the terms are negated; two values if it is unclear.

    Args:
        text: One sentence or more. If no clause has any of the terms, all of it counts.
        terms: What the clauses are about.
        kind: The kind of the terms.
        opens: Whether the text goes on from another one: a "no" at its beginning may answer that
            one, as in "No it is 45", and a mere "45 days" has nothing to deny.
    """
    about = [clause for clause in clauses(text) if kind.held(clause) & terms] or [text]
    if opens and kind is not WORDS and any(_is_mere(clause, terms) for clause in about):
        return {False, True}
    denials = [_denials(clause, terms) for clause in about]
    is_reply = opens and any(
        denied == [0] and fold(tokens(clause)[0]) == _NO
        for clause, denied in zip(about, denials, strict=True)
    )
    return {False, True} if is_reply else {bool(denied) for denied in denials}


def _is_mere(clause: str, terms: Terms) -> bool:
    """Return whether a clause has nothing besides the terms that it could deny."""
    return not _denials(clause, terms) and not (
        plain_words(clause) - terms - measured_words(clause)
    )


def _denials(clause: str, terms: Terms) -> list[int]:
    """Return where a clause says no, without rejecting another number, as in "45, not 30"."""
    words = list(map(fold, tokens(clause)))
    return [
        index
        for index, word in enumerate(words)
        if word in _NEGATIONS and not _is_other_number(words[index + 1 : index + 2], terms)
    ]


def _is_other_number(following: list[str], terms: Terms) -> bool:
    numbers = frozenset[str]().union(*map(quantities, following))
    return bool(numbers) and not numbers & terms


@lru_cache(maxsize=CACHED)
def _asserted_numbers(text: str) -> Terms:
    """Return the numbers of a text, without those that follow "not"."""
    words = list(map(fold, tokens(text)))
    return quantities(text).difference(
        *(quantities(word) for before, word in pairwise(words) if before in _NEGATIONS - {_NO})
    )


@lru_cache(maxsize=CACHED)
def names(text: str) -> Terms:
    """Return the names in a text, in lower case and singular."""
    found = set[str]()
    for sentence in sentences(text):
        words = meaningful(sentence)
        first = next(iter(tokens(sentence)), "")
        found |= {
            _form(word)
            for word in words
            if _has_inner_mark(word) or (word[0].isupper() and word != first)
        }
    addresses = " ".join(_ADDRESS.findall(text))
    return frozenset(found) | word_forms(addresses)


def _has_inner_mark(word: str) -> bool:
    """Return whether a word has a capital or a digit after its first letter, as PDF and E41 do."""
    return word[0].isalpha() and any(char.isupper() or char.isdigit() for char in word[1:])


def _form(word: str) -> str:
    return singular(fold(word))


@lru_cache(maxsize=CACHED)
def word_forms(text: str) -> Terms:
    """Return the words of a text that carry meaning, in lower case and singular."""
    return frozenset(map(_form, meaningful(text)))


@lru_cache(maxsize=CACHED)
def plain_words(text: str) -> Terms:
    """Return the content words of a text, without digits."""
    return frozenset(word for word in content_words(text) if word[0].isalpha())


@lru_cache(maxsize=CACHED)
def measured_words(text: str) -> Terms:
    """Return the content words of a text that follow a number, as its unit does."""
    after = (right for left, right in pairwise(tokens(text)) if possible_quantities(left))
    return frozenset[str]().union(*map(plain_words, after))


def shared(words: Iterable[str], others: Terms) -> Terms:
    """Return the words that others have too, perhaps in another form or spelling."""
    return frozenset(
        word
        for word in words
        if word in others or any(is_same_word(word, other) for other in others)
    )


def names_known_to(texts: Iterable[str]) -> Kind:
    """Return the kind of names; those of the texts also count in lower case, as users type them."""
    known = frozenset[str]().union(*map(names, texts))
    return Kind(lambda text: names(text) | (word_forms(text) & known), word_forms)


NUMBERS = Kind(_asserted_numbers, possible_quantities)
WORDS = Kind(plain_words, plain_words)
