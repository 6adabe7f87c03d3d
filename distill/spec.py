"""What one run is given: everything that its result follows from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from config.sections import Distill
from distill.model.adapter_files import canonical
from distill.model.encoder import Messages
from distill.model.engine_sampler import EngineAddress
from store.anchors import Anchor
from store.contexts import Context

# Settings that say when a run starts, what it is given, or how it computes: up to rounding, they do
# not change the adapter.
IMMATERIAL = frozenset(
    {
        "auto",
        "min_new_lessons",
        "settle_s",
        "max_lesson_tokens",
        "checkpoint_every",
        "processes",
        "shards",
        "gradient_checkpointing",
    }
)
# Kinds of lessons that the student may never say by itself; the rest is learned on-policy alone.
TEACHER_SAMPLED_KINDS = frozenset({"fact", "procedure", "preference", "pitfall"})
# Of a short context too: a way of speaking or a set of labels is one statement and much to learn.
MIN_STEPS = 120

# What 0 means. OPCD samples afresh at every step (arXiv 2602.12275), and most of what an answer has
# to teach is in its beginning (arXiv 2602.15260); a CPU decodes too slowly for more than a part.
SUITED = {
    "cuda": {"max_completion_tokens": 256, "max_answer_tokens": 512, "refresh_every": 1},
    "cpu": {"max_completion_tokens": 64, "max_answer_tokens": 96, "refresh_every": 8},
}


@dataclass(frozen=True)
class Parent:
    """The adapter that a run starts from."""

    folder: Path
    context: Context
    """What it has learned; what the run's context lacks of it is unlearned."""


@dataclass(frozen=True)
class RunSpec:
    """One distillation, from data to candidate adapter."""

    model: Path
    """Folder of the base model."""
    context: Context
    """What is internalised."""
    prompts: tuple[Messages, ...]
    """Conversations that people had, each ending with a user's message; may be empty."""
    settings: Distill
    out: Path
    """Folder of all adapters."""
    work: Path
    """Folder for the resume points of this run."""
    held_out: tuple[Messages, ...] = ()
    """Conversations never trained on; empty means that some prompts are held back."""
    anchors: tuple[Anchor, ...] = ()
    lesson_kinds: tuple[str, ...] = ()
    """Kind of each of the context's lessons; empty where they are not known."""
    drop_long: bool = False
    """Leave prompts out that do not fit beside the context, instead of failing: one that a client
    sent must not end every run of its namespace."""
    engine: EngineAddress | None = None
    """Where the student's trajectories are sampled; None: in this process."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, as serving gives them."""
    run: str | None = None
    """Identifier of the run's row; None where there is no database."""
    parent: Parent | None = None
    """None: a fresh adapter. Either way the teacher is the base with the whole context, so nothing
    that an adapter got wrong is taught to the next one."""

    def with_device_defaults(self, device: str) -> "RunSpec":
        """The run with what suits a device, "cuda" or "cpu", where its settings leave it open."""
        settings = self.settings
        fitting = SUITED[device].items()
        left_open = {name: value for name, value in fitting if not getattr(settings, name)}
        return replace(self, settings=settings.model_copy(update=left_open))

    def fingerprint_settings(self) -> dict[str, Any]:
        """The settings that the result follows from."""
        return self.settings.model_dump(mode="json", exclude=set(IMMATERIAL))

    def effective_settings(self) -> Distill:
        """The settings, with the guided share lowered by the lessons that need no guidance.

        A system prompt counts as one lesson that does: what kind its sentences are is not known.
        """
        kinds = [*self.lesson_kinds] or ["fact"] * len(self.context.lessons)
        kinds += ["fact"] if self.context.system_prompt else []
        needing = sum(kind in TEACHER_SAMPLED_KINDS for kind in kinds)
        share = self.settings.teacher_share * needing / max(len(kinds), 1)
        return self.settings.model_copy(update={"teacher_share": share})

    def resolved_settings(self, statements: int) -> Distill:
        """The effective settings; where no steps are set, those that so many statements need."""
        settings = self.effective_settings()
        needed = max(MIN_STEPS, settings.steps_per_lesson * statements)
        return settings.model_copy(update={"steps": settings.steps or needed})

    def data_sha256(self) -> str:
        """Hash of the prompts, held-out prompts and anchors."""
        anchors = [[anchor.messages, anchor.expect] for anchor in self.anchors]
        value = [self.prompts, self.held_out, anchors, self.lesson_kinds]
        return hashlib.sha256(canonical(value)).hexdigest()

    def fingerprint(self, base_sha256: str) -> str:
        """Hash of everything that the run's result follows from."""
        value = [base_sha256, self.context.hash, self.data_sha256(), self.fingerprint_settings()]
        value += [self.template] if self.template else []
        parent = [self.parent.folder.name, self.parent.context.hash] if self.parent else None
        return hashlib.sha256(canonical([*value, parent])).hexdigest()
