"""Checks in code, never by a model, that a lesson says what its correction says.

A model that writes a lesson may echo an example or invent a detail, and what is distilled into
weights cannot be removed sentence by sentence. So a lesson must pass these checks:

- Each of its content words and numbers occurs in the question or the correction (`ungrounded`).
- It keeps every number and most content words of the correction (`preserves`), the subject that the
  correction names (`drops_subject`), the order of numbers, and negations (`flips_meaning`).
- Each of its sentences shares a content word with the correction: one that only repeats the
  question teaches nothing (`unsupported`).
"""

import re

from agent.learning.word_lists import any_of, load
from store.text.words import content_words, negations, numbers, sentences

_LISTS = {name: any_of(words) for name, words in load("grounding").items()}
_CLAUSE_END = re.compile(rf"[.,;:!?]\s+|\n+|\b{_LISTS['contrasts']}\b", re.IGNORECASE)
_PART_END = re.compile(rf"{_CLAUSE_END.pattern}|\b{_LISTS['connectives']}\b", re.IGNORECASE)
_CONFIRMATION = re.compile(rf"\W*{_LISTS['confirmations']}\b", re.IGNORECASE)
MIN_CLAUSE_WORDS = 2
"""Shorter clauses, in content words, are checked only as part of their sentence."""


def ungrounded(lesson: str, sources: list[str]) -> set[str]:
    """Return the content words and numbers of the lesson that no source contains."""
    known = set[str]().union(*map(content_words, sources))
    return {word for word in content_words(lesson) if word not in known}


def drops_subject(lesson: str, correction: str, question: str) -> bool:
    """Return whether the lesson has none of the words that correction and question share.

    For example "In PDF and XML.", if the correction is "Invoices are exported as PDF and XML."
    """
    subject = content_words(question) & content_words(correction)
    return bool(subject) and not subject & content_words(lesson)


def unsupported(lesson: str, correction: str) -> list[str]:
    """Return the sentences and clauses of the lesson that share nothing with the correction.

    Clauses are not checked if the correction begins with a confirmation ("Yes"), because they may
    then repeat the question.
    """
    words = content_words(correction)
    parts = [] if _CONFIRMATION.match(correction) else _PART_END.split(lesson)
    clauses = [part for part in parts if len(content_words(part)) >= MIN_CLAUSE_WORDS]
    return [part for part in [*sentences(lesson), *clauses] if not content_words(part) & words]


def flips_meaning(lesson: str, correction: str) -> bool:
    """Return whether the lesson may say the opposite: a negation or the order of numbers differs.

    Each clause is compared with the clauses of the correction that share the most words with it.
    """
    expected = numbers(correction)
    actual = [number for number in numbers(lesson) if number in expected]
    return actual != [number for number in expected if number in actual] or any(
        _is_negated(clause) not in map(_is_negated, _most_similar(clause, correction))
        for clause in _clauses(lesson)
    )


def _is_negated(clause: str) -> bool:
    return negations(clause) > 0


def _most_similar(clause: str, text: str) -> list[str]:
    """Return the clauses of the text that share the most content words with the clause."""
    words = content_words(clause)
    shared = [(len(words & content_words(candidate)), candidate) for candidate in _clauses(text)]
    max_shared = max((count for count, _ in shared), default=0)
    return [candidate for count, candidate in shared if count == max_shared]


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
