"""Passages: the single statements that a context is made of, each to be asked about.

Everything here works on text alone. Words are compared by their beginnings, which joins most forms
of a word in most languages without a grammar of any.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from distill.context import markup
from store.contexts import Context
from store.text.words import (
    FUNCTION_WORDS,
    UNSPACED,
    character_pairs,
    digit_runs,
    fold,
    function_words,
    meaningful,
    sentences,
    words,
)

SHORT_PASSAGE_CHARS = 24
SPEAKER = re.compile(r"^\W*\w+(?: \w+){0,2}:")
ASKING = ("?", "？", "؟")  # noqa: RUF001 - not only Latin script
# A title or an initial ends no sentence: "Dr. Brandt", "J. Brandt".
ABBREVIATED = re.compile(r"\b[A-Z][a-z]{0,2}\.$")
# A number, or a word that no beginning of a sentence explains, if it has a capital.
TELLING = re.compile(r"\d+|(?<![.!?:\n] )(?<!^)(?<![^\W_])[^\W\d_][^\W_]{2,}", re.MULTILINE)
# How a system prompt says who the model is, and how the model does. What else begins with "You" is
# mostly said to whom it talks to: "You can return a lamp within 30 days."
INTRODUCED = {
    r"^You are (?=(?:an?|the|our) |[A-Z])": "I am ",
    r"^You work (?=for |at )": "I work ",
    r"^Your name is ": "My name is ",
}
SECOND_PERSON = re.compile(r"\byou(?:r|rs)?\b", re.IGNORECASE)
TOLD_TO_DO = re.compile(
    r"\W*(?:please )?(?:be|stay|answer|reply|respond|speak|talk|write|address|act|pretend"
    r"|(?:begin|start|end|finish|sign|keep) (?:every|each|all|your))\b",
    re.IGNORECASE,
)
# Words that may stand before what a statement is about: "In room 12 ..."
LEADING = frozenset({"the", "a", "an", "our", "in", "on", "at", "for", "from"})
PREFIX_LETTERS = 5
IGNORED = function_words(*FUNCTION_WORDS)


def split_statements(context: Context) -> list[str]:
    """What questions are asked about: each lesson, each statement of a system prompt.

    A statement is a sentence, or what a line says by itself (`layout.py`).
    """
    lines = markup.told(context.system_prompt or "")
    pieces = [piece for line in lines for piece in _sentences(line)]
    said = [piece for piece in pieces if not _asks(piece)]
    return [piece for piece in [*said, *context.lessons] if topic_words(piece)]


def in_first_person(passage: str) -> str:
    """What says who the model is, as it says it itself; anything else as it stands."""
    for told, said in INTRODUCED.items():
        rest = re.sub(told, "", passage, count=1)
        if rest != passage and not SECOND_PERSON.search(rest):
            return said + rest
    return passage


def is_told_to_do(passage: str) -> bool:
    """Whether a passage only tells the model how to answer: nobody is answered in such words.

    One with a number or a name says something beside it.
    """
    return bool(TOLD_TO_DO.match(passage)) and not facts(passage)


def introduction(answers: Sequence[str]) -> str | None:
    """The first of some answers that says who the model is, if any does."""
    begun = tuple(INTRODUCED.values())
    return next((answer for answer in answers if answer.startswith(begun)), None)


def _asks(piece: str) -> bool:
    """Whether a piece is what somebody asks ("Visitor: Who owns this?"): that states nothing."""
    return piece.endswith(ASKING) and bool(SPEAKER.match(piece))


def _sentences(line: str) -> list[str]:
    """The sentences of a line; what may be no sentence by itself stays with the one before it."""
    joined: list[str] = []
    for part in sentences(line):
        starts = part[0].isalpha() and not part[0].islower()
        # A split after an abbreviation ("approx.") leaves a stump that belongs to what follows.
        stump = joined and len(joined[-1]) < SHORT_PASSAGE_CHARS and part[0].isascii()
        if joined and (stump or not starts or ABBREVIATED.search(joined[-1])):
            joined[-1] += f" {part}"
        else:
            joined.append(part)
    return joined


def topic_words(text: str) -> set[str]:
    """The first letters of the words that carry meaning, which join most forms in most languages.

    In scripts without spaces, pairs of characters.
    """
    found: set[str] = set()
    for word in map(fold, meaningful(text, IGNORED)):
        found |= set(character_pairs(word)) if UNSPACED.match(word) else {word[:PREFIX_LETTERS]}
    return {part for part in found if len(part) > 1}


def facts(text: str) -> set[str]:
    """The numbers and names in a text of sentences, one a line or several."""
    return {each for each in TELLING.findall(text) if each.isdigit() or each[0].isupper()}


def keys(about: Sequence[str]) -> dict[str, str]:
    """Beginnings that tell passages of one kind apart: "Error 41" beside "Error 42".

    What stands there is what is asked for, and not what is answered.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    for passage in about:
        for kind, name in _beginnings(passage):
            kinds[kind.lower()].add(name)
    return {
        passage: f"{kind} {name}".removeprefix(f"{_leading(passage)} ")
        for passage in about
        for kind, name in _beginnings(passage)
        if len(kinds[kind.lower()]) > 1
    }


def _beginnings(passage: str) -> Iterator[tuple[str, str]]:
    """The first word, or two, and the number or name behind it, if something is said of it."""
    said, told = words(passage), facts(passage)
    for place in (2, 1) if _leading(passage) else (1,):
        if len(said) > place + 2 and told & {said[place], *digit_runs(said[place])}:
            yield " ".join(said[:place]), said[place]


def _leading(passage: str) -> str:
    """The first word, if it is one that leads to what a statement is about."""
    first = next(iter(words(passage)), "")
    return first if first.lower() in LEADING else ""


def matching_statement(question: str, about: Sequence[str]) -> str | None:
    """The passage that shares most content words with a question; None if none shares any."""
    asked = topic_words(question)
    best = max(about, key=lambda passage: len(asked & topic_words(passage)), default=None)
    return best if best is not None and asked & topic_words(best) else None
