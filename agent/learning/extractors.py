"""Asks the served model to restate a correction as lessons (setting `learning.extractor`).

`few_shot` completes a prompt of examples, for models too small to follow instructions.
`structured` asks a capable model for JSON under a schema that the engine enforces. Both only return
text: the model has no tools. Texts are truncated so that the prompt fits the default context
window.
"""

from dataclasses import dataclass

import orjson
from pydantic import BaseModel, ConfigDict, Field

from agent.engine.client import VllmEngine
from agent.engine.errors import EngineStatusError
from agent.learning import prompts
from agent.learning.condition import MAX_CHARS
from agent.learning.contradiction import strip_verdict
from agent.learning.corrections import Correction
from agent.learning.statement import lesson_kind
from store.schema import LessonKind

MIN_SENTENCE_CHARS = 3
MAX_LESSON_CHARS = 400
MAX_FEW_SHOT_BYTES = 600
"""Of each text in the prompt. A text has at most as many tokens as bytes."""
MAX_STRUCTURED_BYTES = 1600
"""The same for the structured extractor."""
EXTRACTION_ERRORS = (EngineStatusError, ValueError, LookupError, TypeError)
"""The engine rejects the prompt, or the model's answer does not have the requested format."""


@dataclass(frozen=True)
class ProposedLesson:
    """The text of a possible lesson. It carries no authority: that comes from the correction."""

    kind: LessonKind
    do: str
    when: str | None = None
    why: str | None = None


async def few_shot(engine: VllmEngine, model: str, correction: Correction) -> list[ProposedLesson]:
    """Return, as a lesson, the sentence with which the model completes a prompt of examples."""
    question = " ".join(correction.question.split())
    statement = " ".join(strip_verdict(correction.text).split())
    prompt = prompts.CORRECTION_EXAMPLES + prompts.CORRECTION.format(
        question=_truncate(question, MAX_FEW_SHOT_BYTES),
        correction=_truncate(statement, MAX_FEW_SHOT_BYTES),
    )
    reply = await engine.complete(prompt, model, max_tokens=80, temperature=0, stop=["\n"])
    sentence = str(reply["choices"][0]["text"]).strip()
    if not MIN_SENTENCE_CHARS <= len(sentence) <= MAX_LESSON_CHARS:
        return []
    return [ProposedLesson(lesson_kind(sentence), sentence)]


class StructuredLesson(BaseModel):
    """One lesson in the answer of the structured extractor."""

    model_config = ConfigDict(extra="forbid")

    kind: LessonKind
    when: str | None = Field(None, max_length=MAX_CHARS)
    do: str = Field(min_length=1, max_length=MAX_LESSON_CHARS)
    why: str | None = Field(None, max_length=MAX_LESSON_CHARS)


class StructuredAnswer(BaseModel):
    """The whole answer of the structured extractor."""

    model_config = ConfigDict(extra="forbid")

    lessons: list[StructuredLesson] = Field(max_length=8)


async def structured(
    engine: VllmEngine, model: str, correction: Correction
) -> list[ProposedLesson]:
    """Return the lessons that the model writes as JSON under a schema."""
    texts = {
        "question": correction.question,
        "answer": correction.answer,
        "correction": correction.text,
    }
    truncated = {name: _truncate(text, MAX_STRUCTURED_BYTES) for name, text in texts.items()}
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": prompts.STRUCTURED_SYSTEM},
            # As JSON, because a text can close a tag but not a JSON string.
            {"role": "user", "content": orjson.dumps(truncated).decode()},
        ],
        "temperature": 0,
        "max_tokens": 600,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "lessons", "schema": StructuredAnswer.model_json_schema()},
        },
    }
    reply = await engine.chat(body)
    content = reply.json()["choices"][0]["message"]["content"]
    lessons = StructuredAnswer.model_validate_json(content).lessons
    return [ProposedLesson(item.kind, item.do, item.when, item.why) for item in lessons]


def _truncate(text: str, max_bytes: int) -> str:
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")
