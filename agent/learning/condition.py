"""Turns a question into the condition of a lesson: `asked "What does it cost?"`.

A lesson appears in every prompt with the authority of the person who corrected the answer, but the
question comes from a user, who may have written instructions into it. The condition therefore
quotes the question as one short line, or lists only its content words.
"""

import re
import unicodedata

from store.text.words import meaningful, sentences

MAX_CHARS = 120
_QUOTES = re.compile('["\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02]')
_QUESTION_END = re.compile(r"[?\uff1f\u061f]['\u2019)\]]*$")


def condition(question: str) -> str | None:
    """Return the condition of a lesson that answers the question; None if it has no words.

    Quotes the last sentence that ends with a question mark, or the only sentence. If there is no
    such sentence, or it has more than `MAX_CHARS` characters, lists words: `asked about lamp,
    broken`.
    """
    lines = sentences(_clean(question))
    if not lines:
        return None
    questions = [line for line in lines if _QUESTION_END.search(line)]
    last = questions[-1] if questions else lines[-1]
    if (questions or len(lines) == 1) and len(last) <= MAX_CHARS:
        return f'asked "{last}"'
    words = _words(last)
    return f"asked about {words}" if words else None


def _clean(text: str) -> str:
    """Return the text without quotes that would end a quotation, or invisible characters."""
    lines = _QUOTES.sub("'", text).splitlines()
    return "\n".join("".join(map(_visible, line)) for line in lines)


def _visible(character: str) -> str:
    """Return the character, or a space for a control or format character."""
    return " " if unicodedata.category(character).startswith("C") else character


def _words(sentence: str) -> str:
    """Return the distinct content words, as many as `MAX_CHARS` allows."""
    listed: list[str] = []
    for word in dict.fromkeys(meaningful(sentence)):
        if len(", ".join([*listed, word])) > MAX_CHARS:
            break
        listed.append(word)
    return ", ".join(listed)
