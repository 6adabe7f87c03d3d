"""Splits a context into statements, and says what a statement contains. Pure text.

A statement is one lesson, or one sentence or line of a system prompt; a run needs questions about
each. Words are compared by their first letters, which joins most forms of a word in most languages
without a grammar.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from distill.context import markup
from distill.context.traced import ADDED, Traced, prompt_lines
from store.contexts import Context
from store.text.words import (
    UNSPACED,
    character_pairs,
    digit_runs,
    fold,
    function_words,
    meaningful,
    sentences,
    words,
)

MIN_STATEMENT_CHARS = 24
SPEAKER = re.compile(r"^\W*\w+(?: \w+){0,2}:")
QUESTION_MARKS = ("?", "？", "؟")  # noqa: RUF001 - not only Latin script
# A title or an initial does not end a sentence: "Dr. Brandt", "J. Brandt".
ABBREVIATED = re.compile(r"\b[A-Z][a-z]{0,2}\.$")
# A number, or a word that is not at the start of a sentence: a name if it is capitalised.
NUMBER_OR_NAME = re.compile(r"\d+|(?<![.!?:\n] )(?<!^)(?<![^\W_])[^\W\d_][^\W_]{2,}", re.MULTILINE)
# How a system prompt says who the model is, and how the model says it. Other sentences that start
# with "You" mostly address the user: "You can return a lamp within 30 days."
INTRODUCTIONS = {
    r"^You are (?=(?:an?|the|our) |[A-Z])": "I am ",
    r"^You work (?=for |at )": "I work ",
    r"^Your name is ": "My name is ",
}
SECOND_PERSON = re.compile(r"\byou(?:r|rs)?\b", re.IGNORECASE)
INSTRUCTION = re.compile(
    r"\W*(?:please )?(?:be|stay|answer|reply|respond|speak|talk|write|address|act|pretend"
    r"|(?:begin|start|end|finish|sign|keep) (?:every|each|all|your))\b",
    re.IGNORECASE,
)
# Words that may precede the subject of a statement: "In room 12 ..."
LEADING_WORDS = frozenset({"the", "a", "an", "our", "in", "on", "at", "for", "from"})
PREFIX_LETTERS = 5
# Words that say nothing of what a question or a statement is about.
IGNORED = function_words(
    *("articles", "pronouns", "first_person", "demonstratives", "conjunctions", "auxiliaries"),
    *("prepositions", "particles", "relatives", "question_words", "measures", "indefinites"),
    *("scope", "negations"),
)


def split_statements(context: Context) -> list[str]:
    """The statements of a context: each lesson, and each statement of its system prompt."""
    lines = markup.read(prompt_lines(context.system_prompt or "")).stated
    parts = [part.text for line in lines for part in sentences_of(line.text)]
    return [part for part in parts if is_askable(part)] + [
        lesson for lesson in context.lessons if topic_words(lesson)
    ]


def is_askable(text: str) -> bool:
    """Whether a sentence of a system prompt states something that can be asked about.

    A question in a dialogue ("Visitor: Who owns this?") does not.
    """
    is_asked = text.endswith(QUESTION_MARKS) and SPEAKER.match(text)
    return not is_asked and bool(topic_words(text))


def in_first_person(statement: str) -> str:
    """A statement of who the model is, in the first person; any other statement unchanged."""
    for second_person, first_person in INTRODUCTIONS.items():
        rest = re.sub(second_person, "", statement, count=1)
        if rest != statement and not SECOND_PERSON.search(rest):
            return first_person + rest
    return statement


def is_instruction(statement: str) -> bool:
    """Whether a statement only says how to answer, so that it cannot be an answer itself.

    One with a number or a name also states a fact.
    """
    return bool(INSTRUCTION.match(statement)) and not facts(statement)


def introduction(answers: Sequence[str]) -> str | None:
    """The first answer that says who the model is; None if none does."""
    starts = tuple(INTRODUCTIONS.values())
    return next((answer for answer in answers if answer.startswith(starts)), None)


def sentences_of(line: Traced) -> list[Traced]:
    """The sentences of a line; parts that may not be whole sentences stay together."""
    letters = "".join(line.text.split())
    pairs = zip(line.text, line.places, strict=True)
    places = [place for character, place in pairs if not character.isspace()]
    found, end = [], 0
    for sentence in _sentences(line.text):
        squeezed = "".join(sentence.split())
        start = letters.index(squeezed, end)  # text without words is in no sentence
        end = start + len(squeezed)
        own = iter(places[start:end])
        found.append(Traced(sentence, tuple(ADDED if c.isspace() else next(own) for c in sentence)))
    return found


def _sentences(line: str) -> list[str]:
    """The sentences of a line; parts that may not be whole sentences stay together."""
    joined: list[str] = []
    for part in sentences(line):
        starts_sentence = part[0].isalpha() and not part[0].islower()
        # A split after an abbreviation ("approx.") leaves a short piece that belongs to the next.
        is_short = joined and len(joined[-1]) < MIN_STATEMENT_CHARS and part[0].isascii()
        if joined and (is_short or not starts_sentence or ABBREVIATED.search(joined[-1])):
            joined[-1] += f" {part}"
        else:
            joined.append(part)
    return joined


def topic_words(text: str) -> set[str]:
    """The first letters of each word that carries meaning; pairs of characters without spaces."""
    found: set[str] = set()
    for word in map(fold, meaningful(text, IGNORED)):
        found |= set(character_pairs(word)) if UNSPACED.match(word) else {word[:PREFIX_LETTERS]}
    return {part for part in found if len(part) > 1}


def facts(text: str) -> set[str]:
    """The numbers and names in a text of one or more lines of sentences."""
    matches = NUMBER_OR_NAME.findall(text)
    return {match for match in matches if match.isdigit() or match[0].isupper()}


def distinguishing_keys(statements: Sequence[str]) -> dict[str, str]:
    """The start of each statement that differs from similar ones there: "Error 41", "Error 42".

    A question may name this key, since it is what the answer is about, not the answer.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for statement in statements:
        for kind, name in _named_starts(statement):
            names[kind.lower()].add(name)
    return {
        statement: f"{kind} {name}".removeprefix(f"{_leading_word(statement)} ")
        for statement in statements
        for kind, name in _named_starts(statement)
        if len(names[kind.lower()]) > 1
    }


def _named_starts(statement: str) -> Iterator[tuple[str, str]]:
    """The first one or two words with the number or name after them, if more words follow."""
    statement_words, known = words(statement), facts(statement)
    for index in (2, 1) if _leading_word(statement) else (1,):
        if len(statement_words) > index + 2:
            name = statement_words[index]
            if known & {name, *digit_runs(name)}:
                yield " ".join(statement_words[:index]), name


def _leading_word(statement: str) -> str:
    """The first word, if it precedes the subject of a statement; else an empty text."""
    first = next(iter(words(statement)), "")
    return first if first.lower() in LEADING_WORDS else ""


def matching_statement(question: str, statements: Sequence[str]) -> str | None:
    """The statement that shares most words with a question; None if none shares any."""
    question_words = topic_words(question)
    best = max(statements, key=lambda each: len(question_words & topic_words(each)), default=None)
    return best if best is not None and question_words & topic_words(best) else None
