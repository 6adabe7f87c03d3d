"""Is a lesson said by the conversation it is taken from? Decided by code, never by a model.

A model asked for a lesson may echo an example or invent a detail, and what is distilled into
weights cannot be taken out of a sentence again. So each content word and each number of a lesson
must stand in the conversation's own text, each number of the correction must be kept, in its order,
what is denied must stay denied, and each sentence must say something of the correction: a question
alone teaches nothing, whatever it says.
"""

import re

from store.text.words import content_words, negations, numbers, sentences

_CLAUSE_END = re.compile(r"[.,;:!?]\s+|\n+|\bbut\b", re.IGNORECASE)
_PART_END = re.compile(_CLAUSE_END.pattern + r"|\b(?:and|or|while|whereas)\b", re.IGNORECASE)
_YES = re.compile(r"\W*(yes|yeah|yep|right|correct|exactly)\b", re.IGNORECASE)
MIN_CLAUSE_WORDS = 2


def ungrounded(lesson: str, sources: list[str]) -> set[str]:
    """Content words and numbers of the lesson that no source contains; empty when grounded."""
    known = set[str]().union(*map(content_words, sources))
    return {word for word in content_words(lesson) if word not in known}


def drops_subject(lesson: str, correction: str, question: str) -> bool:
    """Whether what the correction named of its question is gone ("In PDF and XML.")."""
    subject = content_words(question) & content_words(correction)
    return bool(subject) and not subject & content_words(lesson)


def unsupported(lesson: str, correction: str) -> list[str]:
    """Sentences of the lesson without a word or number of the correction, and such clauses.

    A clause is one with two words that carry meaning; after a "yes" it may be what was asked.
    """
    said = content_words(correction)
    clauses = [] if _YES.match(correction) else _PART_END.split(lesson)
    told = [part for part in clauses if len(content_words(part)) >= MIN_CLAUSE_WORDS]
    return [part for part in [*sentences(lesson), *told] if not content_words(part) & said]


def flips_meaning(lesson: str, correction: str) -> bool:
    """Whether the lesson may say the opposite: a "not" lost or added, or numbers changed round.

    Each clause is held against those of the correction that have most words in common with it.
    """
    said = numbers(correction)
    kept = [number for number in numbers(lesson) if number in said]
    return kept != [number for number in said if number in kept] or any(
        _denies(clause) not in map(_denies, _nearest(clause, correction))
        for clause in _clauses(lesson)
    )


def _clauses(text: str) -> list[str]:
    return [part for part in _CLAUSE_END.split(text) if content_words(part)]


def _denies(clause: str) -> bool:
    return negations(clause) > 0


def _nearest(clause: str, text: str) -> list[str]:
    words = content_words(clause)
    shared = [(len(words & content_words(other)), other) for other in _clauses(text)]
    most = max((count for count, _ in shared), default=0)
    return [other for count, other in shared if count == most]


def preserves(lesson: str, correction: str, share: float = 0.5) -> bool:
    """Whether the lesson still says what the correction said.

    Every number must be kept, and at least `share` of the content words.
    """
    words = content_words(correction)
    return set(numbers(correction)) <= set(numbers(lesson)) and (
        not words or len(words & content_words(lesson)) >= share * len(words)
    )
