"""Passages: the single statements that a context is made of, each to be asked about.

Everything here works on text alone. Words are compared by their beginnings, which joins most forms
of a word in most languages without a grammar of any.
"""

import re
from collections.abc import Sequence

from distill import markdown
from store.contexts import Context

SHORT_PASSAGE_CHARS = 24
ASKING = ("?", "？", "؟")  # noqa: RUF001 - not only Latin script
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")  # noqa: RUF001 - not only Latin script
# A title or an initial ends no sentence: "Dr. Brandt", "J. Brandt".
ABBREVIATED = re.compile(r"\b[A-Z][a-z]{0,2}\.$")
# A number, or a word with a capital that no beginning of a sentence explains.
TELLING = re.compile(r"\d+|(?<![.!?:\n] )(?<!^)(?<![^\W_])[A-Z][^\W_]{2,}", re.MULTILINE)
STOP_WORDS = frozenset(
    """
    the and for are with our you your that this from have has not only per can all any its was
    were will what when where who how does which much many long is it in on at to of a an be by
    or as do i my me we us if no so up
    """.split()  # noqa: SIM905 - prose is easier to read and change
)


def passages(context: Context) -> list[str]:
    """What questions are asked about: each lesson, each statement of a system prompt.

    A statement is a sentence, or what a line of Markdown says by itself (`markdown.py`).
    """
    lines = markdown.told(context.system_prompt or "")
    pieces = [piece for line in lines for piece in _sentences(line)]
    return [piece for piece in [*pieces, *context.lessons] if content_words(piece)]


def _sentences(line: str) -> list[str]:
    joined: list[str] = []
    for part in filter(None, SENTENCE_END.split(line)):
        begins = part[0].isalpha() and not part[0].islower()
        # A split after an abbreviation ("approx.") leaves a stump that belongs to what follows.
        stump = joined and len(joined[-1]) < SHORT_PASSAGE_CHARS and part[0].isascii()
        if joined and (stump or not begins or ABBREVIATED.search(joined[-1])):
            joined[-1] += f" {part}"
        else:
            joined.append(part)
    return joined


def content_words(text: str) -> set[str]:
    """Lower-case word stems (first five letters) that carry meaning."""
    words = re.findall(r"[^\W_]+", text.lower())
    return {word[:5] for word in words if len(word) > 1 and word not in STOP_WORDS}


def numbers(text: str) -> set[str]:
    """The numbers in a text, as they are written."""
    return set(re.findall(r"\d+", text))


def facts(text: str) -> set[str]:
    """The numbers and names in a text of sentences, one a line or several."""
    return set(TELLING.findall(text))


def passage_of(question: str, about: Sequence[str]) -> str | None:
    """The passage that shares most content words with a question; None if none shares any."""
    words = content_words(question)
    best = max(about, key=lambda passage: len(words & content_words(passage)), default=None)
    return best if best is not None and words & content_words(best) else None
