"""Proposes lessons for one correction: the model restates it, code checks the result.

Only statements that say what the correction says are accepted (grounding.py). If the model returns
none, the correction's own words become the lesson if they are suitable. Trust is assigned
later, from the author (curate.py).
"""

import structlog

from agent.engine.client import VllmEngine
from agent.learning.condition import condition
from agent.learning.contradiction import strip_verdict
from agent.learning.corrections import Correction
from agent.learning.extractors import (
    EXTRACTION_ERRORS,
    MAX_LESSON_CHARS,
    ProposedLesson,
    few_shot,
    structured,
)
from agent.learning.grounding import (
    drops_subject,
    flips_meaning,
    preserves,
    ungrounded,
    unsupported,
)
from agent.learning.statement import (
    is_about_conversation,
    is_informative,
    is_self_contained,
    lesson_kind,
)
from store.schema import LessonKind
from store.text.words import content_words, sentences

log = structlog.get_logger(__name__)

MAX_DEMONSTRATION_CHARS = 1000
"""Of a demonstration that becomes a lesson verbatim: about half of `learning.token_budget`."""


async def propose(
    engine: VllmEngine, model: str, correction: Correction, extractor: str
) -> list[ProposedLesson]:
    """Return the lessons that one correction teaches, usually one or none.

    Args:
        engine: The engine that serves `model`.
        model: The base model's name.
        correction: The correction of a wrong answer.
        extractor: The setting `learning.extractor`.

    Raises:
        EngineUnavailable: The engine cannot be reached. The correction can be tried again.
    """
    extract = structured if extractor == "structured" else few_shot
    try:
        candidates = await extract(engine, model, correction)
        lessons = [lesson for lesson in candidates if is_acceptable(lesson, correction)]
    except EXTRACTION_ERRORS as error:
        # Without the error's text, which may quote a customer.
        log.warning("extraction failed", error=type(error).__name__, **log_fields(correction))
        lessons = []
    if lessons:
        return lessons
    return verbatim(correction) if correction.is_demonstration else fact_from_comment(correction)


def is_acceptable(lesson: ProposedLesson, correction: Correction) -> bool:
    """Return whether a lesson from the model is grounded in the correction, and self-contained."""
    when = lesson.when or ""
    text = f"{when} {lesson.do}"
    return (
        not ungrounded(text, [correction.question, correction.text])
        and preserves(text, correction.text)
        and not unsupported(lesson.do, correction.text)
        and not flips_meaning(lesson.do, correction.text)
        and len(sentences(when)) <= 1
        and (bool(when) or _names_subject(lesson.do, correction))
        and (correction.is_demonstration or _is_lasting(lesson, correction.question))
    )


def _names_subject(statement: str, correction: Correction) -> bool:
    is_complete = not drops_subject(statement, correction.text, correction.question)
    return is_self_contained(statement) and is_complete


def _is_lasting(lesson: ProposedLesson, question: str) -> bool:
    """Return whether the lesson may hold beyond this conversation."""
    return lesson.kind is not LessonKind.FACT or is_informative(lesson.do, question)


def verbatim(correction: Correction) -> list[ProposedLesson]:
    """Return the demonstration as a lesson, word for word.

    A demonstration that is clear without its question has no condition; otherwise its condition is
    the question. If neither is possible, or the text is too long, this logs a warning and returns
    no lesson: shortening the text might change its meaning.
    """
    statement, when = correction.text, condition(correction.question)
    if len(statement) > MAX_DEMONSTRATION_CHARS:
        return _not_learned(correction, f"it has more than {MAX_DEMONSTRATION_CHARS} characters")
    if is_self_contained(statement) and (_shares_words(statement, correction) or when is None):
        return [ProposedLesson(lesson_kind(statement), statement)]
    if when is None:
        return _not_learned(correction, "it depends on a question that has no words")
    return [ProposedLesson(LessonKind.FACT, statement, when)]


def _not_learned(correction: Correction, reason: str) -> list[ProposedLesson]:
    remedy = "add it as a lesson: byheart lessons add"
    log.warning("demonstration not learned", reason=reason, remedy=remedy, **log_fields(correction))
    return []


def fact_from_comment(correction: Correction) -> list[ProposedLesson]:
    """Return the fact in a comment or next turn, without its verdict ("No, that's wrong.").

    Accepts only a single informative statement. Instructions are rejected, because they may be
    meant for this conversation alone, and so are statements about the conversation.
    """
    statement, when = strip_verdict(correction.text), condition(correction.question)
    is_fact = (
        statement != correction.text
        and is_informative(statement, correction.question)
        and len(statement) <= MAX_LESSON_CHARS
        and len(sentences(statement)) == 1
        and lesson_kind(statement) is LessonKind.FACT
        and not is_about_conversation(statement)
        and not flips_meaning(statement, correction.text)
    )
    if is_fact and is_self_contained(statement) and _shares_words(statement, correction):
        return [ProposedLesson(LessonKind.FACT, statement)]
    if is_fact and when is not None:
        return [ProposedLesson(LessonKind.FACT, statement, when)]
    log.info("correction taught nothing", **log_fields(correction))
    return []


def _shares_words(statement: str, correction: Correction) -> bool:
    return bool(content_words(correction.question) & content_words(statement))


def log_fields(correction: Correction) -> dict[str, str | None]:
    """Return what identifies a correction in the log: never its text."""
    return {"interaction": correction.support.interaction, "feedback": correction.support.feedback}
