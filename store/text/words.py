"""Words, numbers and sentences: the only place where text is divided.

What a word or a sentence is comes from Unicode's properties, so it holds for any script. Knowledge
of English (function words, endings, abbreviations) is in `english.toml` and in `singular` and
`stem`; in other languages these leave nearly all words as they are.

Text is compared in three degrees, from the strictest: `fold` (case and form of the characters),
`singular` (also a plural s), `stem` (also other endings).
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import regex  # type: ignore[import-untyped]

ENGLISH: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_name("english.toml").read_text()
)
"""The word lists of english.toml, by section and kind."""
_SPELLING = ENGLISH["spelling"]
_REFERENCES = frozenset(ENGLISH["sentences"]["references"].split())
FUNCTION_WORDS: dict[str, frozenset[str]] = {
    kind: frozenset(words.split()) for kind, words in ENGLISH["function_words"].items()
}
"""Function words by kind, lower case; see `english.toml`."""

# Scripts without spaces between words: Thai, Lao, Khmer, Burmese (complex context), Han, kana.
_UNSPACED = r"\p{Line_Break=Complex_Context}\p{Han}\p{Hiragana}\p{Katakana}\u30fc"
UNSPACED = regex.compile(rf"[{_UNSPACED}]+")
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{Nl}}\p{{No}}]--[{_UNSPACED}]]"
_IN_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}\u200c\u200d]--[{_UNSPACED}]]"
_TOKEN = regex.compile(
    rf"""(?V1)
    \p{{Nd}}+(?:[.,:/]\p{{Nd}}+)*                # 1,500 and 7:30, but a range (7-11) is two numbers
    | (?<=\w)['\u2019](?i:{"|".join(_SPELLING["clitics"].split())})\b
    | \p{{L}}+(?i:n['\u2019]t)\b
    | {_LETTER}{_IN_WORD}*
    | [{_UNSPACED}]+
    | [\p{{Sc}}%\u2030\u00b0]                    # signs of currencies and units: £9 is not 9 euros
    """,
    regex.VERBOSE,
)
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_DIGITS = re.compile(r"\d+")

_PLURAL_LETTERS = 4
"""Shorter words keep their s: "gas" and "bus" are no plurals."""
_SUFFIXES = ("ings", "ing", "edly", "ed", "ies", "es", "s", "ly", "e", "y")
_STEM_LETTERS = 3

_FULL_WIDTH_END = "\u3002\uff01\uff1f\uff61"
_SENTENCE_END = regex.compile(
    # Full-width marks end a sentence without a space, but a closing quote belongs to it.
    rf"(?<=[{_FULL_WIDTH_END}])(?![\p{{Pe}}\p{{Pf}}])|(?<=[{_FULL_WIDTH_END}][\p{{Pe}}\p{{Pf}}])"
    r"|(?<=[\p{Sentence_Terminal}\u2026])\s+"
)
_ABBREVIATION = re.compile(
    rf"\b(?:{'|'.join(map(re.escape, _SPELLING['abbreviations'].split()))})\.$", re.IGNORECASE
)
_TIME, _ZONE = re.compile(r"\b[ap]\.m\.$"), re.compile(r"[A-Z]{2,4}\b")


def function_words(*kinds: str) -> frozenset[str]:
    """The function words of the kinds."""
    return frozenset[str]().union(*(FUNCTION_WORDS[kind] for kind in kinds))


def tokens(text: str) -> list[str]:
    """Words, numbers and signs of currencies and units, as written.

    A run of a script without spaces is one token. What an apostrophe attaches to a word is a token
    with its apostrophe ("What", "'s"), except for "n't" ("don't").
    """
    return _TOKEN.findall(text)  # type: ignore[no-any-return]


def words(text: str) -> list[str]:
    """The tokens that are words or numbers: no signs, nothing that an apostrophe attaches."""
    return [token for token in tokens(text) if token[0].isalnum()]


_NEGATIONS = function_words("negations", "negative_words", "exclusions")
# "long" and "many" ask for a measure only in a question.
_EMPTY = function_words(*(FUNCTION_WORDS.keys() - {"measures"}))


def meaningful(text: str, ignored: frozenset[str] = _EMPTY) -> list[str]:
    """The tokens, as written, that carry meaning.

    Args:
        text: Any text.
        ignored: The function words that carry no meaning for the purpose.
    """
    return [token for token in tokens(text) if not _is_ignored(token, ignored)]


def _is_ignored(token: str, ignored: frozenset[str]) -> bool:
    return token[0] in "'\u2019" or fold(token) in ignored


def content_words(text: str) -> set[str]:
    """The stems of the words that carry meaning, and the numbers and signs.

    A run of a script without spaces counts as its pairs of characters.
    """
    return {part for token in meaningful(text) for part in _parts(stem(fold(token)))}


def _parts(word: str) -> list[str]:
    return character_pairs(word) if UNSPACED.match(word) else [word]


def character_pairs(run: str) -> list[str]:
    """Each two adjacent characters of a run, which are as specific as a word; or the only one."""
    return [left + right for left, right in pairwise(run)] or [run]


def fold(token: str) -> str:
    """The token without differences of case and of character forms; "don't" becomes "not"."""
    folded = unicodedata.normalize("NFKC", token).casefold()
    return "not" if folded.endswith(("n't", "n\u2019t")) else folded


def singular(word: str) -> str:
    """A lower-case word without its plural s."""
    return word[:-1] if len(word) > _PLURAL_LETTERS and word.endswith("s") else word


def stem(word: str) -> str:
    """A lower-case word without its English ending: `returns`, `returned` -> `return`.

    It also joins some words that differ in meaning (`plan`, `plane`), so it only tells whether a
    text mentions something.
    """
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _STEM_LETTERS:
            return word.removesuffix(suffix)
    return word


def numbers(text: str) -> list[str]:
    """The numbers in a text, as written, each once, in order of first occurrence."""
    return list(dict.fromkeys(_NUMBER.findall(text)))


def digit_runs(text: str) -> set[str]:
    """The runs of digits in a text: 7:30 has two."""
    return set(_DIGITS.findall(text))


def negations(text: str) -> int:
    """How often a text says no."""
    return sum(fold(token) in _NEGATIONS for token in tokens(text))


def sentences(text: str) -> list[str]:
    """The sentences and lines that have words, each on one line.

    Where it is not clear whether a sentence ends, it does: no sentence may hide in another.
    """
    return [
        sentence
        for line in text.splitlines()
        for sentence in _sentences_of(" ".join(line.split()))
        if tokens(sentence)
    ]


def refers_back(sentence: str) -> bool:
    """Whether a sentence ("They cost 9 euros.") needs the one before it to be understood.

    Sentences in other languages than English are taken not to.
    """
    return fold(next(iter(words(sentence)), "")) in _REFERENCES


def _sentences_of(line: str) -> Iterator[str]:
    parts = list(filter(None, _SENTENCE_END.split(line)))
    sentence, *rest = parts or [""]
    for part in rest:
        if _continues(sentence, part):
            sentence = f"{sentence} {part}"
        else:
            yield sentence
            sentence = part
    yield sentence


def _continues(sentence: str, part: str) -> bool:
    """Whether a sentence goes on with a part that looks like the next one."""
    in_time = _TIME.search(sentence) and (part[0].islower() or _ZONE.match(part))
    # A bracket that nothing closes would join everything that follows.
    in_brackets = sentence.count("(") > sentence.count(")") and ")" in part
    return bool(_ABBREVIATION.search(sentence) or in_time or in_brackets)
