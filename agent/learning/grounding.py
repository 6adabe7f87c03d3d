"""Is a lesson said by the conversation it is taken from? Decided by code, never by a model.

A model asked for a lesson may echo an example or invent a detail, and what is distilled into
weights cannot be taken out of a sentence again. So each content word and each number of a lesson
must stand in the conversation's own text, each number of the correction must be kept, in its order,
what is denied must stay denied, and each sentence must say something of the correction: a question
alone teaches nothing, whatever it says.
"""

import re

from store.text.similarity import negations

_SIGN = r"$%\u00b0\u00a2-\u00a5\u20a0-\u20c0"
_WORD = re.compile(rf"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,:/]\d+)*|[{_SIGN}]")
"""A word, a number, or the sign of a currency or unit: £9 is not 9 euros."""
_SENTENCE_END = re.compile(
    r"(?<=[.!?\u2026])(?<!\b(?:Mr|Ms|Dr|St|vs)\.)\s+|(?<=[\u3002\uff01\uff1f\u061f])|\n+"
)
_CLAUSE_END = re.compile(r"[.,;:!?]\s+|\n+|\bbut\b", re.IGNORECASE)
_PART_END = re.compile(_CLAUSE_END.pattern + r"|\b(?:and|or|while|whereas)\b", re.IGNORECASE)
_YES = re.compile(r"\W*(yes|yeah|yep|right|correct|exactly)\b", re.IGNORECASE)
MIN_CLAUSE_WORDS = 2
_SUFFIXES = ("ings", "ing", "edly", "ed", "ies", "es", "s", "ly", "e", "y")
_FUNCTION_WORDS = frozenset(  # one text, because a list would fill a page
    """a about after again all also always am an and any are as at be been before being both but by
    can could did do does doing done each either every for from had has have having he her here him
    his how i if in into is it its itself just may me might more most must my never no nor not of
    off on once one only or other our out over own per shall she should so some such than that the
    their them then there these they this those through to too under until up upon us very was we
    were what when where which while who whom whose why will with within without would yes you your
    """.split()  # noqa: SIM905
)


def stem(word: str) -> str:
    """A word without its English ending, lower case: `Returns`, `returned` -> `return`.

    Only good enough to compare a word with itself in another form.
    """
    word = word.lower().replace("’", "'").removesuffix("'s")
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix)
    return word


def sentences(text: str) -> list[str]:
    """The sentences and lines that have words, each on one line."""
    parts = (" ".join(part.split()) for part in _SENTENCE_END.split(text))
    return [part for part in parts if re.search(rf"[\w{_SIGN}]", part)]


def meaningful(text: str) -> list[str]:
    """The words that carry meaning, and the numbers, as they stand."""
    return [word for word in _WORD.findall(text) if word.lower() not in _FUNCTION_WORDS]


def content_words(text: str) -> set[str]:
    """The stems of the words that carry meaning, and the numbers."""
    return set(map(stem, meaningful(text)))


def numbers(text: str) -> set[str]:
    """The numbers in a text, as they are written."""
    return set(ordered_numbers(text))


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
    said = ordered_numbers(correction)
    kept = [number for number in ordered_numbers(lesson) if number in said]
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


def ordered_numbers(text: str) -> list[str]:
    """The numbers in a text, each where it stands first."""
    return list(dict.fromkeys(word for word in _WORD.findall(text) if word[0].isdigit()))


def preserves(lesson: str, correction: str, share: float = 0.5) -> bool:
    """Whether the lesson still says what the correction said.

    Every number must be kept, and at least `share` of the content words.
    """
    words = content_words(correction)
    return numbers(correction) <= numbers(lesson) and (
        not words or len(words & content_words(lesson)) >= share * len(words)
    )
