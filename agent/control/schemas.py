"""Response schemas of the control API, as in its OpenAPI description.

Most mirror a row of the store, without internals such as key hashes, daemon ids and file paths.
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
    """Base of all response schemas."""

    model_config = ConfigDict(from_attributes=True)


Row = TypeVar("Row", bound=Answer)


class Page(Answer, Generic[Row]):
    """A page of a list. Pass `next` as `after` to get the next page; null on the last page."""

    object: Literal["list"] = "list"
    data: list[Row]
    next: str | int | None


class Problem(Answer):
    """What is wrong, and how to fix it."""

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
    """Whether it is an auxiliary request of the client, such as one for a title."""


class InteractionTexts(Interaction):
    """An interaction with its texts, which are null once retention has deleted them."""

    messages: list[Any] | None
    params: dict[str, Any] | None
    response: str | None


class Conversation(Answer):
    """A conversation; `unread` counts the turns and feedback that extraction has not read yet."""

    id: str
    held_out: bool
    last_at: datetime
    unread: int


class CountedConversation(Conversation):
    """A conversation and its number of interactions."""

    interactions: int


class Turn(Interaction):
    """A turn of a conversation: messages since the previous answer, the answer, feedback ids."""

    messages: list[Any]
    response: str
    feedback: list[str]


class ConversationTurns(Conversation):
    """A conversation and a page of its turns, oldest first; pass `next` as `after`."""

    turns: list[Turn]
    next: str | None


class Lesson(Answer):
    """A statement that the model learns: a fact or a rule."""

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


class AddedLesson(Lesson):
    """The lesson that says what was added; `message` says why it is no new one."""

    message: str | None


class Support(Answer):
    """An origin of a lesson: the principal, the interaction or feedback, and the original words."""

    interaction: str | None
    feedback: str | None
    span: str
    principal: str
    trust: Trust


class ContextLesson(Answer):
    """A lesson in use, and whether the live adapter has internalised it."""

    id: str
    text: str
    internalised: bool


class Context(Answer):
    """The context of a namespace: what is in its prompts or in the live adapter."""

    system_prompt: str | None
    system_prompt_internalised: bool
    """Whether prompts contain nothing of it."""
    residual_system_prompt: str | None
    """The part of it that the live adapter has not internalised, so that prompts contain it."""
    lessons: list[ContextLesson]
    snapshot: str | None


class Prompt(Answer):
    """A registered system prompt."""

    id: str
    tokens: int


class Run(Answer):
    """A training run: its trigger, progress, measurements and result."""

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


class Rollout(Answer):
    """A change of an adapter's status."""

    at: datetime
    adapter: str
    before: AdapterStatus
    after: AdapterStatus
    reason: str


class Rollback(Answer):
    """The adapter that was rolled back, and the version that is live."""

    rolled_back: str
    live: str


class Key(Answer):
    """An API key without its secret."""

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


class CreatedKey(Answer):
    """A new API key, which cannot be shown again."""

    key: str


class RevokedKey(Answer):
    """A revoked API key."""

    id: str
    state: Literal["revoked"] = "revoked"


class AuditEntry(Answer):
    """Who changed what. `hash` covers this entry and the hash of the previous one."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    hash: str


class Saving(Answer):
    """Prompt tokens of a version: sent, and saved because lessons are in the weights."""

    version: str
    requests: int
    prompt_tokens: int
    tokens_saved: int
