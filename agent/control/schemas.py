"""What the control API answers: the schemas of its OpenAPI description.

Most are read off a row of the store; what is not in a schema stays inside, such as hashes, which
daemon answered, or where a file is.
"""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from store.schema import (
    AdapterStatus,
    InteractionStatus,
    LessonKind,
    LessonStatus,
    RunStatus,
    Trust,
)


class Answer(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(from_attributes=True)


Row = TypeVar("Row", bound=Answer)


class Page(Answer, Generic[Row]):
    """A page of a list; `next` is what to ask for as `after`, or null at the end."""

    object: Literal["list"] = "list"
    data: list[Row]
    next: str | int | None


class Problem(Answer):
    """What is wrong, and what to do."""

    message: str
    type: str
    code: str | None
    param: str | None


class Failure(Answer):
    """An error, in the shape of the OpenAI API."""

    error: Problem


class Interaction(Answer):
    """A request and its answer, without the texts."""

    id: str
    conversation: str
    principal: str
    trust: Trust
    status: InteractionStatus
    version: str
    arm: str
    context_hash: str
    learn: bool
    created_at: datetime
    prompt_tokens: int | None
    completion_tokens: int | None
    tokens_saved: int
    first_token_ms: float | None
    total_ms: float
    error: str | None
    endpoint: str
    side: bool = Field(validation_alias=AliasChoices("side", "auxiliary"))
    """Whether the client made the request for itself, as for a title."""


class InteractionTexts(Interaction):
    """An interaction with its texts; null where they are kept no longer."""

    messages: list[Any] | None
    params: dict[str, Any] | None
    response: str | None


class Learned(Answer):
    """A lesson that rests on an interaction."""

    id: str
    status: LessonStatus
    text: str


class Explanation(Answer):
    """What an answer rested on, and what was learned from it."""

    interaction: str
    version: str
    arm: str
    context: str
    system_prompt: str | None
    lessons_in_prompt: list[str] | None
    tokens_saved: int
    learned: list[Learned]


class Conversation(Answer):
    """A conversation; `unread` signals are still to be learned from."""

    id: str
    held_out: bool
    last_at: datetime
    unread: int


class CountedConversation(Conversation):
    """A conversation, and how many interactions it has."""

    interactions: int


class Turn(Interaction):
    """A turn of a conversation: the messages since the answer before, and the feedback on it."""

    messages: list[Any]
    response: str
    feedback: list[str]


class ConversationTurns(Conversation):
    """A conversation and a page of its turns, oldest first; `next` is the `after` of the next."""

    turns: list[Turn]
    next: str | None


class Lesson(Answer):
    """A statement that the model is told to keep to."""

    id: str
    status: LessonStatus
    kind: LessonKind
    trust: Trust
    tokens: int
    pinned: bool
    text: str
    supersedes: str | None
    created_at: datetime
    expires_at: datetime | None


class Support(Answer):
    """One origin of a lesson."""

    interaction: str | None
    feedback: str | None
    span: str
    principal: str
    trust: Trust


class SupportedLesson(Lesson):
    """A lesson and what it rests on."""

    support: list[Support]


class ContextLesson(Answer):
    """A lesson in use, and whether it is in the weights."""

    id: str
    text: str
    internalised: bool


class Context(Answer):
    """What is put in front of prompts, or was until it was internalised."""

    system_prompt: str | None
    system_prompt_internalised: bool
    lessons: list[ContextLesson]
    snapshot: str | None


class Prompt(Answer):
    """A registered system prompt."""

    id: str
    tokens: int


class Run(Answer):
    """A distillation: how far it is, what it measured, why it ended."""

    id: str
    status: RunStatus
    trigger: str
    reason: str | None
    progress: dict[str, Any]
    snapshot: str
    adapter: str | None
    created_at: datetime
    finished_at: datetime | None


class Adapter(Answer):
    """A trained adapter."""

    name: str
    status: AdapterStatus
    run: str
    parent: str | None
    snapshot: str
    manifest_sha256: str
    created_at: datetime


class JudgedAdapter(Adapter):
    """An adapter, what was measured of it, and what the gate said; `passed` is null before that."""

    passed: bool | None
    gate: list[str]
    measured: dict[str, Any]


class Rollout(Answer):
    """A change of an adapter's status."""

    at: datetime
    adapter: str
    before: AdapterStatus
    after: AdapterStatus
    reason: str


class Rollback(Answer):
    """What was taken out, and what serves now."""

    rolled_back: str
    live: str


class Key(Answer):
    """A key without its secret."""

    id: str
    name: str
    namespace: str | None
    state: Literal["valid", "revoked", "expired"]
    trust: Trust
    scopes: list[str]
    concurrent: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: datetime
    expires_at: datetime | None


class MadeKey(Answer):
    """A new key, which is shown this once."""

    key: str


class RevokedKey(Answer):
    """A key that is of no use any more."""

    id: str
    state: Literal["revoked"] = "revoked"


class AuditEntry(Answer):
    """Who changed what; `hash` is over this entry and the one before it."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    hash: str


class Saving(Answer):
    """Of a version: prompt tokens that were sent, and those that it kept out."""

    version: str
    requests: int
    prompt_tokens: int
    tokens_saved: int
