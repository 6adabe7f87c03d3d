"""Properties of one statement, by its wording: its kind, and whether it can be a lesson.

English only (word lists: statement.toml). In other languages every statement counts as a fact that
can be understood without its question.
"""

import re

from agent.learning.word_lists import any_of, load
from store.schema import LessonKind
from store.text.words import content_words, numbers

MIN_INFORMATIVE_WORDS = 3

_LISTS = {name: any_of(words) for name, words in load("statement").items()}
_INSTRUCTION = re.compile(rf"^\W*(?:please )?{_LISTS['instructions']}\b", re.IGNORECASE)
_DEPENDENT_OPENING = re.compile(rf"^\W*{_LISTS['dependent_openings']}\b", re.IGNORECASE)
_ABOUT_CONVERSATION = re.compile(rf"\?|\b{_LISTS['conversation']}\b", re.IGNORECASE)


def lesson_kind(statement: str) -> LessonKind:
    """Return `RULE` if the statement tells the assistant what to do, `FACT` otherwise."""
    return LessonKind.RULE if _INSTRUCTION.match(statement) else LessonKind.FACT


def is_self_contained(statement: str) -> bool:
    """Return whether it is clear without its question; "No, it is ..." is not."""
    return _DEPENDENT_OPENING.match(statement) is None


def is_informative(statement: str, question: str) -> bool:
    """Return whether it has a number, a name or a word of the question; "try again" has none.

    A statement with at least `MIN_INFORMATIVE_WORDS` content words also counts, such as "Gift cards
    never expire."
    """
    words = content_words(statement)
    has_name = any(word[0].isupper() for word in statement.split()[1:])
    return (
        bool(content_words(question) & words or numbers(statement) or has_name)
        or len(words) >= MIN_INFORMATIVE_WORDS
    )


def is_about_conversation(statement: str) -> bool:
    """Return whether it is a question, or mentions the user or the answer."""
    return _ABOUT_CONVERSATION.search(statement) is not None
