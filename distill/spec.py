"""The specification of a run: every input that determines its result."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.model.adapter_files import canonical
from distill.model.encoder import Messages
from distill.model.engine_sampler import EngineAddress
from distill.settings import TrainerSettings
from store.anchors import Anchor
from store.contexts import Context

# Settings that decide when a run starts, which inputs it gets, or how it computes. Up to rounding,
# they do not change the adapter.
NOT_FINGERPRINTED = frozenset(
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
# Kinds of lessons that the student may never sample by itself; others are learned on-policy only.
TEACHER_SAMPLED_KINDS = frozenset({"fact", "procedure", "preference", "pitfall"})
# A short context needs as many: a way of speaking or a set of labels is one statement, but much to
# learn.
MIN_STEPS = 120

# Values of settings left at 0. OPCD samples at every step (arXiv 2602.12275). The first tokens of a
# completion carry most of its signal (arXiv 2602.15260), and a CPU decodes too slowly for more.
DEVICE_DEFAULTS = {
    "cuda": {"max_completion_tokens": 256, "max_answer_tokens": 512, "refresh_every": 1},
    "cpu": {"max_completion_tokens": 64, "max_answer_tokens": 96, "refresh_every": 8},
}


@dataclass(frozen=True)
class Parent:
    """The adapter that a run starts from."""

    folder: Path
    context: Context
    """The context it learned; statements that the run's context lacks are unlearned."""


@dataclass(frozen=True)
class RunSpec:
    """The inputs of one distillation."""

    model: Path
    """Folder of the base model."""
    context: Context
    """The context to distil."""
    prompts: tuple[Messages, ...]
    """Real conversations, each ending with a user message; may be empty."""
    settings: TrainerSettings
    out: Path
    """Folder that receives the adapter folder."""
    work: Path
    """Folder of this run's checkpoints."""
    held_out: tuple[Messages, ...] = ()
    """Conversations never trained on; if empty, some of the prompts are held out."""
    anchors: tuple[Anchor, ...] = ()
    lesson_kinds: tuple[str, ...] = ()
    """Kinds of the context's lessons, in order; empty if unknown."""
    relapsed: tuple[str, ...] = ()
    """Statements of the context, or lessons of several statements, that an adapter answered wrongly
    although it had learned them: they get more questions."""
    drop_long: bool = False
    """Skip prompts that do not fit next to the context instead of failing: one client's prompt must
    not fail every run of its namespace."""
    engine: EngineAddress | None = None
    """The engine that samples on-policy completions; None samples in this process."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, the same as in serving."""
    run: str | None = None
    """Identifier of the run's row; None without a database."""
    parent: Parent | None = None
    """None starts from a new adapter. In both cases the teacher is the base with the whole context,
    so errors of an adapter are not passed on to the next one."""

    def with_device_defaults(self, device: str) -> "RunSpec":
        """Return the run with settings left at 0 set for the device, "cuda" or "cpu"."""
        settings = self.settings
        defaults = DEVICE_DEFAULTS[device].items()
        unset = {name: value for name, value in defaults if not getattr(settings, name)}
        return replace(self, settings=settings.model_copy(update=unset))

    def fingerprint_settings(self) -> dict[str, Any]:
        """Return the settings that determine the result."""
        return self.settings.model_dump(mode="json", exclude=set(NOT_FINGERPRINTED))

    def effective_settings(self) -> TrainerSettings:
        """Return the settings with `teacher_share` scaled by the share of lessons that need it.

        A system prompt counts as one such lesson, because the kinds of its sentences are unknown.
        """
        kinds = [*self.lesson_kinds] or ["fact"] * len(self.context.lessons)
        kinds += ["fact"] if self.context.system_prompt else []
        needing = sum(kind in TEACHER_SAMPLED_KINDS for kind in kinds)
        share = self.settings.teacher_share * needing / max(len(kinds), 1)
        return self.settings.model_copy(update={"teacher_share": share})

    def resolved_settings(self, statements: int) -> TrainerSettings:
        """Return the effective settings, with `steps` derived from the statements if it is 0."""
        settings = self.effective_settings()
        needed = max(MIN_STEPS, settings.steps_per_lesson * statements)
        return settings.model_copy(update={"steps": settings.steps or needed})

    def data_sha256(self) -> str:
        """Return the hash of the prompts, held-out prompts, anchors, kinds and relapses."""
        anchors = [[anchor.messages, anchor.expect] for anchor in self.anchors]
        value = [self.prompts, self.held_out, anchors, self.lesson_kinds]
        value += [self.relapsed] if self.relapsed else []
        return hashlib.sha256(canonical(value)).hexdigest()

    def fingerprint(self, base_sha256: str) -> str:
        """Return the hash of everything that determines the run's result."""
        value = [base_sha256, self.context.hash, self.data_sha256(), self.fingerprint_settings()]
        value += [self.template] if self.template else []
        parent = [self.parent.folder.name, self.parent.context.hash] if self.parent else None
        return hashlib.sha256(canonical([*value, parent])).hexdigest()
