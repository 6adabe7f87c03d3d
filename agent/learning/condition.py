"""What of a question may stand in a lesson: the condition under which the lesson holds.

A lesson stands in everybody's prompt with the authority of whoever corrected the answer, but the
question is only a user's, who may have written instructions into it. So it is quoted as one short
line, or else named by its words alone.
"""

import re
import unicodedata

from store.text.words import meaningful, sentences

MAX_CHARS = 120
_QUOTES = re.compile('["\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02]')
_ASKS = re.compile(r"[?\uff1f\u061f]['\u2019)\]]*$")


def condition(question: str) -> str | None:
    """When a lesson holds that answers the question; None where the question has no words.

    `asked "What does it cost?"`: its last sentence that asks, or the only one there is, as far as
    it has at most `MAX_CHARS` characters; else `asked about lamp, broken`.
    """
    said = sentences(_clean(question))
    if not said:
        return None
    asks = [sentence for sentence in said if _ASKS.search(sentence)]
    last = asks[-1] if asks else said[-1]
    if (asks or len(said) == 1) and len(last) <= MAX_CHARS:
        return f'asked "{last}"'
    words = _words(last)
    return f"asked about {words}" if words else None


def _clean(text: str) -> str:
    """Without quotes that would end a quotation, and without control and format characters."""
    lines = _QUOTES.sub("'", text).splitlines()
    return "\n".join("".join(map(_visible, line)) for line in lines)


def _visible(character: str) -> str:
    return " " if unicodedata.category(character).startswith("C") else character


def _words(sentence: str) -> str:
    """The words that carry meaning, each once, as many as there is room for."""
    kept: list[str] = []
    for word in dict.fromkeys(meaningful(sentence)):
        if len(", ".join([*kept, word])) > MAX_CHARS:
            break
        kept.append(word)
    return ", ".join(kept)
