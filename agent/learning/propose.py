"""Asking the served model for the lessons of one correction, and keeping only what is grounded.

Two forms (setting `learning.extractor`): a few-shot completion for models too small to follow
instructions, and JSON under a schema, enforced by the engine, for capable ones. Either way the
answer is text only: the model has no tools, and trust is computed from rows elsewhere.
"""

import re

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.engine.client import VllmEngine
from agent.learning import prompts
from agent.learning.corrections import Correction
from agent.learning.grounding import content_words, keeps, ungrounded
from store.schema import LessonKind

MAX_LESSON_CHARS = 400
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


class Proposed(BaseModel):
    """A lesson as the model states it: text only, never authority."""

    model_config = ConfigDict(extra="forbid")

    kind: LessonKind
    when: str | None = Field(None, max_length=MAX_LESSON_CHARS)
    do: str = Field(min_length=3, max_length=MAX_LESSON_CHARS)
    why: str | None = Field(None, max_length=MAX_LESSON_CHARS)


class Answer(BaseModel):
    """The structured extractor's whole answer."""

    model_config = ConfigDict(extra="forbid")

    lessons: list[Proposed] = Field(max_length=8)


async def propose(
    engine: VllmEngine, model: str, correction: Correction, extractor: str
) -> list[Proposed]:
    """Grounded lessons for one correction; the demonstration itself where the model fails."""
    ask = _ask_structured if extractor == "structured" else _ask_few_shot
    proposed = [
        lesson for lesson in await ask(engine, model, correction) if _acceptable(lesson, correction)
    ]
    if proposed or not correction.explicit:
        return proposed
    return [as_it_stands(correction)]


def _acceptable(lesson: Proposed, correction: Correction) -> bool:
    said = f"{lesson.when or ''} {lesson.do}"
    sources = [correction.question, correction.text]
    return (
        not ungrounded(said, sources)
        and keeps(said, correction.text)
        and (lesson.when is not None or stands_alone(lesson.do))
    )


def as_it_stands(correction: Correction) -> Proposed:
    """The demonstration as a lesson: the statement, or what to say when asked that question."""
    statement = correction.text[:MAX_LESSON_CHARS]
    subject = content_words(correction.question) & content_words(statement)
    if not correction.question or (subject and stands_alone(statement)):
        return Proposed(kind=kind_of(statement), do=statement)
    question = correction.question[: MAX_LESSON_CHARS - len('asked ""')]
    return Proposed(kind=LessonKind.FACT, when=f'asked "{question}"', do=statement)


def stands_alone(statement: str) -> bool:
    """Whether a statement does not lean on the question before it ("No, it is ...")."""
    return _LEANING.match(statement) is None


def kind_of(statement: str) -> LessonKind:
    """Rule for what tells the assistant to do something, fact for what tells it something."""
    return LessonKind.RULE if _IMPERATIVE.match(statement) else LessonKind.FACT


async def _ask_few_shot(engine: VllmEngine, model: str, correction: Correction) -> list[Proposed]:
    """One sentence, completed after examples (for models too small to follow instructions)."""
    prompt = prompts.CORRECTION_EXAMPLES + prompts.CORRECTION.format(
        question=_one_line(correction.question), correction=_one_line(correction.text)
    )
    reply = await engine.complete(prompt, model, max_tokens=80, temperature=0, stop=["\n"])
    sentence = reply["choices"][0]["text"].strip()
    if not 3 <= len(sentence) <= MAX_LESSON_CHARS:
        return []
    return [Proposed(kind=kind_of(sentence), do=sentence)]


async def _ask_structured(engine: VllmEngine, model: str, correction: Correction) -> list[Proposed]:
    """Typed lessons as JSON under a schema that the engine enforces."""
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": prompts.STRUCTURED_SYSTEM},
            {
                "role": "user",
                "content": prompts.STRUCTURED_USER.format(
                    question=correction.question,
                    answer=correction.answer,
                    correction=correction.text,
                ),
            },
        ],
        "temperature": 0,
        "max_tokens": 600,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "lessons", "schema": Answer.model_json_schema()},
        },
    }
    reply = await engine.chat(body)
    content = orjson.loads(reply.body)["choices"][0]["message"]["content"]
    try:
        return Answer.model_validate_json(content).lessons
    except ValidationError:
        return []  # an answer that is not valid teaches nothing; a demonstration still does


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600]
