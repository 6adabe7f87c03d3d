"""Response schemas about what adapters know, and what answers show of it."""

from datetime import datetime
from typing import Any

from agent.control.schemas import Adapter, Answer, Lesson, Support
from store.schema import LessonStatus


class Knowledge(Answer):
    """What an adapter knows of a statement, and why it is in the prompt if it is."""

    adapter: str
    text: str
    lesson: bool
    learned: bool
    internalised: bool
    reason: str
    relapsed_at: datetime | None
    relapse_cause: str | None
    relapse_interaction: str | None


class Relapse(Answer):
    """A statement that returned to the prompt, because an answer showed that it was not known."""

    adapter: str
    text: str
    relapsed_at: datetime
    relapse_cause: str


class Learned(Answer):
    """A lesson that an interaction supports."""

    id: str
    status: LessonStatus
    text: str


class Explanation(Answer):
    """The version and context that an answer was based on, and what was learned from it."""

    interaction: str
    version: str
    arm: str
    context: str
    system_prompt: str | None
    lessons_in_prompt: list[str] | None
    internalised: list[str]
    """What the version had internalised when it answered, so that its prompt left it out."""
    tokens_saved: int
    relapses: list[Relapse]
    """What this answer has shown not to be known."""
    learned: list[Learned]


class SupportedLesson(Lesson):
    """A lesson, its origins, and what each adapter that was trained on it knows of it."""

    support: list[Support]
    adapters: list[Knowledge]
    learnable: bool
    """False if it has relapsed so often that it stays in the prompt and starts no more runs."""


class EvaluatedAdapter(Adapter):
    """An adapter with its gate results and what it knows; `passed` is null until evaluated."""

    statements: list[Knowledge]
    passed: bool | None
    gate: list[str]
    measured: dict[str, Any]
