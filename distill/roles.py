"""The roles of a run: student, teacher and sampler, which share one copy of the base weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from distill.context import examples
from distill.context.parts import ContextParts
from distill.model.adapter_files import MANIFEST, WEIGHTS
from distill.model.answer_end import AnswerTruncator, reference_eos_state
from distill.model.base import base_sha256, load_base, max_positions, stop_ids
from distill.model.distributed import SINGLE_PROCESS, ParallelState
from distill.model.encoder import Encoder
from distill.model.engine_sampler import STUDENT, EngineSampler
from distill.model.sampler import LocalSampler, Sampler
from distill.model.student import Student
from distill.model.teacher import Teacher, check_frozen, probe_logits
from distill.settings import TrainerSettings
from distill.spec import RunSpec
from store.durable_files import sha256
from store.manifests import verify_files

LORA_SHAPE = ("rank", "alpha")
"""Settings that a run must share with the adapter that it starts from."""


@dataclass(frozen=True)
class Roles:
    """The roles of a run, and what they need."""

    student: Student
    teacher: Teacher
    sampler: LocalSampler
    """Samples in this process, with the adapter enabled or disabled by the caller."""
    on_policy_sampler: Sampler
    """Samples on-policy completions: `sampler`, or the engine."""
    parallel: ParallelState
    """The position of this process in data-parallel training."""
    encoder: Encoder
    parts: ContextParts
    """The run's context, of which the student sees a part in some trajectories."""
    base_sha256: str


class ParentMismatch(Exception):
    """The parent adapter has another base, rank or alpha, or is not an adapter."""


def training_device() -> torch.device:
    """Return the device that a run computes on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_roles(spec: RunSpec, parallel: ParallelState = SINGLE_PROCESS) -> Roles:
    """Load the base, attach the adapter, and prove that the teacher is the frozen base.

    Args:
        spec: The run, with device defaults (`RunSpec.with_device_defaults`).
        parallel: The position of this process in data-parallel training.

    Raises:
        ModelError: The model is not supported.
        AdapterCorrupt, ParentMismatch: The run cannot start from the parent.
    """
    settings = spec.settings
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    base, tokenizer = load_base(spec.model, training_device(), parallel.shard)
    pristine = probe_logits(base)
    student = Student(
        base, settings.rank, settings.alpha, settings.seed, settings.gradient_checkpointing
    )
    check_frozen(student, pristine)
    digest = base_sha256(spec.model)
    if spec.parent:
        load_parent(student, spec.parent.folder, digest, settings)
    sampler = LocalSampler(
        student.model,
        stop_ids(student.model, tokenizer),
        settings.max_completion_tokens,
        torch.Generator().manual_seed(settings.seed),
    )
    max_answer_tokens = max(settings.max_completion_tokens, settings.max_answer_tokens)
    max_tokens = max_positions(student.model)
    if spec.engine:
        max_tokens = min(max_tokens, spec.engine.max_model_len())
    max_prompt_tokens = max_tokens - max_answer_tokens
    encoder = Encoder(tokenizer, spec.context, max_prompt_tokens, max_answer_tokens, spec.template)
    on_policy_sampler = (
        _engine_sampler(spec, student, sampler, parallel) if spec.engine else sampler
    )
    teacher = Teacher(student, _answer_truncator(student, encoder))
    parts = ContextParts.of(spec.context, tokenizer)
    return Roles(student, teacher, sampler, on_policy_sampler, parallel, encoder, parts, digest)


def _answer_truncator(student: Student, encoder: Encoder) -> AnswerTruncator | None:
    """Return a truncator if the system prompt has examples of turns, otherwise None."""
    user_label = examples.find_prompt_label(encoder.context.system_prompt or "")
    if not user_label:
        return None
    return AnswerTruncator(encoder.tokenizer, user_label, reference_eos_state(student, encoder))


def _engine_sampler(
    spec: RunSpec, student: Student, local: LocalSampler, parallel: ParallelState
) -> EngineSampler:
    assert spec.engine
    name = f"student-{spec.run or 'alone'}-{uuid4().hex[:8]}"
    base = spec.model.resolve().name
    folder = spec.work / STUDENT
    return EngineSampler(
        spec.engine, student, base, folder, name, local.stop_ids, local.max_tokens, parallel
    )


def load_parent(
    student: Student, folder: Path, base_sha256: str, settings: TrainerSettings
) -> None:
    """Load the weights of a published adapter into the student.

    Raises:
        AdapterCorrupt: The folder's files do not match its manifest.
        ParentMismatch: It holds no adapter, or one of another base, rank or alpha.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        actual = {"base": manifest["base"]["sha256"]}
        actual |= {name: manifest["settings"][name] for name in LORA_SHAPE}
        verify_files(folder, sha256(folder / MANIFEST))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ParentMismatch(f"{folder} is not an adapter folder of byheart.") from error
    expected = {"base": base_sha256} | {name: getattr(settings, name) for name in LORA_SHAPE}
    differing = [name for name, value in expected.items() if actual[name] != value]
    if differing:
        raise ParentMismatch(
            f"{folder.name} was trained with another {' and '.join(differing)}: use the "
            "parent's, or start from the base."
        )
    set_peft_model_state_dict(student.peft, load_file(folder / WEIGHTS))
