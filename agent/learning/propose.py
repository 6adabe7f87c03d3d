"""Asking the served model for the lessons of one correction, and keeping only what is grounded.

Two forms (setting `learning.extractor`): a few-shot completion for models too small to follow
instructions, and JSON under a schema, enforced by the engine, for capable ones. Either way the
answer is text only: the model has no tools, and trust is computed from rows elsewhere. What is
asked is cut to a length that the default context window holds.
"""

import re
from dataclasses import dataclass

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field

from agent.engine.client import VllmEngine
from agent.engine.errors import EngineStatusError
from agent.learning import prompts
from agent.learning.condition import MAX_CHARS, condition
from agent.learning.contradiction import strip_verdict
from agent.learning.corrections import Correction
from agent.learning.grounding import (
    drops_subject,
    flips_meaning,
    preserves,
    ungrounded,
    unsupported,
)
from store.schema import LessonKind
from store.text.words import content_words, numbers, sentences

log = structlog.get_logger(__name__)

MAX_LESSON_CHARS = 400
"""Of a lesson that the model states."""
MAX_DEMONSTRATION_CHARS = 1000
"""Of a demonstration that becomes a lesson as it stands: about half of `learning.token_budget`."""
FEW_SHOT_BYTES = 600
STRUCTURED_BYTES = 1600
"""Of each text that is shown; a byte is at most a token."""
MIN_INFORMATIVE_WORDS = 3
UNUSABLE = (EngineStatusError, ValueError, LookupError, TypeError)
"""What comes of a prompt that the engine will not take, or of an answer of another form."""
_IMPERATIVE = re.compile(
    r"^\W*(please )?(always|never|do not|don['’]t|avoid|begin|start|end|use|answer|reply|say|write"
    r"|greet|keep|ask|refuse|make sure|be|call|offer|tell|mention|respond|sign|include|address)\b",
    re.IGNORECASE,
)
_LEANING = re.compile(
    r"^\W*(no|nope|yes|yeah|wrong|it|its|that|this|those|these|he|she|they|there|only|just|because"
    r"|actually|sorry)\b",
    re.IGNORECASE,
)
_OF_THE_TALK = re.compile(
    r"\?|\b(i|me|my|mine|answer|answers|answered|reply|response|you (said|wrote|told|meant))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ProposedLesson:
    """A lesson as it was stated: text only, never authority."""

    kind: LessonKind
    do: str
    when: str | None = None
    why: str | None = None


class Entry(BaseModel):
    """A lesson in the structured extractor's answer."""

    model_config = ConfigDict(extra="forbid")

    kind: LessonKind
    when: str | None = Field(None, max_length=MAX_CHARS)
    do: str = Field(min_length=1, max_length=MAX_LESSON_CHARS)
    why: str | None = Field(None, max_length=MAX_LESSON_CHARS)


class Answer(BaseModel):
    """The structured extractor's whole answer."""

    model_config = ConfigDict(extra="forbid")

    lessons: list[Entry] = Field(max_length=8)


async def propose(
    engine: VllmEngine, model: str, correction: Correction, extractor: str
) -> list[ProposedLesson]:
    """Grounded lessons for one correction; what it says itself where the model fails.

    Raises:
        EngineUnavailable: The engine is away, which says nothing about the correction.
    """
    ask = _ask_structured if extractor == "structured" else _ask_few_shot
    try:
        stated = [
            one for one in await ask(engine, model, correction) if is_acceptable(one, correction)
        ]
    except UNUSABLE as error:
        # Not the error's text: it may quote what a customer said.
        log.warning("no lesson stated", error=type(error).__name__, **origin(correction))
        stated = []
    if stated:
        return stated
    return verbatim(correction) if correction.is_demonstration else fact_from_comment(correction)


def is_acceptable(lesson: ProposedLesson, correction: Correction) -> bool:
    """Whether what the model stated is what was said, and can be understood without it."""
    when = lesson.when or ""
    said = f"{when} {lesson.do}"
    return (
        not ungrounded(said, [correction.question, correction.text])
        and preserves(said, correction.text)
        and not unsupported(lesson.do, correction.text)
        and not flips_meaning(lesson.do, correction.text)
        and len(sentences(when)) <= 1
        and (bool(when) or _is_whole(lesson.do, correction))
        and (correction.is_demonstration or _is_lasting(lesson, correction.question))
    )


def _is_lasting(lesson: ProposedLesson, question: str) -> bool:
    """Whether it may hold beyond this conversation."""
    return lesson.kind is not LessonKind.FACT or is_informative(lesson.do, question)


def verbatim(correction: Correction) -> list[ProposedLesson]:
    """The demonstration as a lesson: the statement, or what to say when asked that question.

    Empty, with a warning, where it can be neither: cut, it might say something else.
    """
    statement, when = correction.text, condition(correction.question)
    if len(statement) > MAX_DEMONSTRATION_CHARS:
        return _refused(correction, f"it has more than {MAX_DEMONSTRATION_CHARS} characters")
    names_subject = bool(content_words(correction.question) & content_words(statement))
    if is_self_contained(statement) and (names_subject or when is None):
        return [ProposedLesson(lesson_kind(statement), statement)]
    if when is None:
        return _refused(correction, "it leans on a question that has no words")
    return [ProposedLesson(LessonKind.FACT, statement, when)]


def fact_from_comment(correction: Correction) -> list[ProposedLesson]:
    """What a comment or a turn says after its verdict ("No, that's wrong."), if that is a fact.

    That is: one statement that tells something, and neither speaks of the conversation nor says
    what to do, which may be meant for this once.
    """
    statement, when = strip_verdict(correction.text), condition(correction.question)
    names_subject = bool(content_words(correction.question) & content_words(statement))
    usable = (
        statement != correction.text
        and is_informative(statement, correction.question)
        and len(statement) <= MAX_LESSON_CHARS
        and len(sentences(statement)) == 1
        and lesson_kind(statement) is LessonKind.FACT
        and not _OF_THE_TALK.search(statement)
        and not flips_meaning(statement, correction.text)
    )
    if usable and is_self_contained(statement) and names_subject:
        return [ProposedLesson(LessonKind.FACT, statement)]
    if usable and when is not None:
        return [ProposedLesson(LessonKind.FACT, statement, when)]
    log.info("correction taught nothing", **origin(correction))
    return []


def _refused(correction: Correction, reason: str) -> list[ProposedLesson]:
    remedy = "say it in a lesson: byheart lessons add"
    log.warning("demonstration not learned", reason=reason, remedy=remedy, **origin(correction))
    return []


def _is_whole(statement: str, correction: Correction) -> bool:
    lost = drops_subject(statement, correction.text, correction.question)
    return is_self_contained(statement) and not lost


def origin(correction: Correction) -> dict[str, str | None]:
    """What a log line names of a correction: never its text."""
    return {"interaction": correction.support.interaction, "feedback": correction.support.feedback}


def is_self_contained(statement: str) -> bool:
    """Whether a statement does not lean on the question before it ("No, it is ...")."""
    return _LEANING.match(statement) is None


def is_informative(statement: str, question: str) -> bool:
    """Whether a statement names a number, a name, or what was asked about; not "try again".

    One of several words that carry meaning may do without: "Gift cards never expire."
    """
    said = content_words(statement)
    named = any(word[0].isupper() for word in statement.split()[1:])
    return (
        bool(content_words(question) & said or numbers(statement) or named)
        or len(said) >= MIN_INFORMATIVE_WORDS
    )


def lesson_kind(statement: str) -> LessonKind:
    """Rule for what tells the assistant to do something, fact for what tells it something."""
    return LessonKind.RULE if _IMPERATIVE.match(statement) else LessonKind.FACT


async def _ask_few_shot(
    engine: VllmEngine, model: str, correction: Correction
) -> list[ProposedLesson]:
    """One sentence, completed after examples (for models too small to follow instructions)."""
    prompt = prompts.CORRECTION_EXAMPLES + prompts.CORRECTION.format(
        question=_shown(" ".join(correction.question.split()), FEW_SHOT_BYTES),
        correction=_shown(" ".join(strip_verdict(correction.text).split()), FEW_SHOT_BYTES),
    )
    reply = await engine.complete(prompt, model, max_tokens=80, temperature=0, stop=["\n"])
    sentence = str(reply["choices"][0]["text"]).strip()
    if not 3 <= len(sentence) <= MAX_LESSON_CHARS:
        return []
    return [ProposedLesson(lesson_kind(sentence), sentence)]


async def _ask_structured(
    engine: VllmEngine, model: str, correction: Correction
) -> list[ProposedLesson]:
    """Typed lessons as JSON under a schema that the engine enforces."""
    texts = {
        "question": correction.question,
        "answer": correction.answer,
        "correction": correction.text,
    }
    shown = {name: _shown(text, STRUCTURED_BYTES) for name, text in texts.items()}
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": prompts.STRUCTURED_SYSTEM},
            # As JSON, because a text can close a tag but not a JSON string.
            {"role": "user", "content": orjson.dumps(shown).decode()},
        ],
        "temperature": 0,
        "max_tokens": 600,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "lessons", "schema": Answer.model_json_schema()},
        },
    }
    reply = await engine.chat(body)
    content = reply.json()["choices"][0]["message"]["content"]
    entries = Answer.model_validate_json(content).lessons
    return [ProposedLesson(one.kind, one.do, one.when, one.why) for one in entries]


def _shown(text: str, most_bytes: int) -> str:
    return text.encode(errors="replace")[:most_bytes].decode(errors="ignore")
