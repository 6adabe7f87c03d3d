"""Checks in code, never by a model, that a lesson says what its correction says.

A model asked for a lesson may echo an example or invent a detail, and what has been distilled into
weights cannot be removed sentence by sentence. So a lesson must pass these checks:

- Each of its content words and numbers stands in the conversation's own text (`ungrounded`).
- It keeps every number and most content words of the correction (`preserves`), the subject that the
  correction names (`drops_subject`), the order of numbers, and what is denied (`flips_meaning`).
- Each sentence says something of the correction: the question alone teaches nothing
  (`unsupported`).
"""

import re

from agent.learning.word_lists import any_of, load
from store.text.words import content_words, negations, numbers, sentences

_LISTS = {name: any_of(words) for name, words in load("grounding").items()}
_CLAUSE_END = re.compile(rf"[.,;:!?]\s+|\n+|\b{_LISTS['contrasts']}\b", re.IGNORECASE)
_PART_END = re.compile(rf"{_CLAUSE_END.pattern}|\b{_LISTS['connectives']}\b", re.IGNORECASE)
_CONFIRMATION = re.compile(rf"\W*{_LISTS['confirmations']}\b", re.IGNORECASE)
MIN_CLAUSE_WORDS = 2
"""Content words of a clause that must be supported by itself."""


def ungrounded(lesson: str, sources: list[str]) -> set[str]:
    """Return the content words and numbers of the lesson that no source contains."""
    known = set[str]().union(*map(content_words, sources))
    return {word for word in content_words(lesson) if word not in known}


def drops_subject(lesson: str, correction: str, question: str) -> bool:
    """Return whether the lesson lacks all that the correction repeats of its question.

    As "In PDF and XML." does, where the correction is "Invoices are exported as PDF and XML."
    """
    subject = content_words(question) & content_words(correction)
    return bool(subject) and not subject & content_words(lesson)


def unsupported(lesson: str, correction: str) -> list[str]:
    """Return the sentences and clauses of the lesson that share nothing with the correction.

    A clause counts from two content words on. After a "yes" it may repeat the question instead.
    """
    words = content_words(correction)
    parts = [] if _CONFIRMATION.match(correction) else _PART_END.split(lesson)
    clauses = [part for part in parts if len(content_words(part)) >= MIN_CLAUSE_WORDS]
    return [part for part in [*sentences(lesson), *clauses] if not content_words(part) & words]


def flips_meaning(lesson: str, correction: str) -> bool:
    """Return whether the lesson may say the opposite: a "not" or the order of numbers changed.

    Each clause is compared with the clauses of the correction that share most words with it.
    """
    expected = numbers(correction)
    actual = [number for number in numbers(lesson) if number in expected]
    return actual != [number for number in expected if number in actual] or any(
        _denies(clause) not in map(_denies, _nearest(clause, correction))
        for clause in _clauses(lesson)
    )


def _denies(clause: str) -> bool:
    return negations(clause) > 0


def _nearest(clause: str, text: str) -> list[str]:
    """Return the clauses of the text that share most content words with the clause."""
    words = content_words(clause)
    shared = [(len(words & content_words(other)), other) for other in _clauses(text)]
    max_shared = max((count for count, _ in shared), default=0)
    return [other for count, other in shared if count == max_shared]


def _clauses(text: str) -> list[str]:
    return [part for part in _CLAUSE_END.split(text) if content_words(part)]


def preserves(lesson: str, correction: str, share: float = 0.5) -> bool:
    """Return whether the lesson keeps what the correction says.

    It must keep every number, and at least `share` of the content words.
    """
    words = content_words(correction)
    return set(numbers(correction)) <= set(numbers(lesson)) and (
        not words or len(words & content_words(lesson)) >= share * len(words)
    )
