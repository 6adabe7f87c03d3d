"""The model of a run in its roles: student, teacher and sampler share one copy of the weights."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from config.sections import Distill
from distill.context import examples
from distill.model.adapter_files import MANIFEST, WEIGHTS
from distill.model.answer_end import AnswerTruncator, reference_eos_state
from distill.model.base import base_sha256, load_base, max_positions, stop_ids
from distill.model.distributed import SINGLE_PROCESS, ParallelState
from distill.model.encoder import Encoder
from distill.model.engine_sampler import STUDENT, EngineSampler
from distill.model.sampler import LocalSampler, Sampler
from distill.model.student import Student
from distill.model.teacher import Teacher, check_frozen, probe_logits
from distill.spec import RunSpec
from store.durable_files import sha256
from store.manifests import verify_files

LORA_SHAPE = ("rank", "alpha")
"""Settings in which a run and the adapter that it starts from must agree."""


@dataclass(frozen=True)
class Roles:
    """Who does what in a run."""

    student: Student
    teacher: Teacher
    sampler: LocalSampler
    """Of whichever adapter state the model is in."""
    on_policy: Sampler
    """Of the student."""
    parallel: ParallelState
    """Who trains with this one."""
    encoder: Encoder
    base_sha256: str


class ParentMismatch(Exception):
    """The adapter to start from is not one of this base with these settings."""


def training_device() -> torch.device:
    """Where a run computes."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_roles(spec: RunSpec, parallel: ParallelState = SINGLE_PROCESS) -> Roles:
    """Load the base, attach its adapter, and prove that the teacher is the pristine base.

    Args:
        spec: The run, suited to the device (`RunSpec.suited`).
        parallel: Who trains with this one.

    Raises:
        ModelError: The model cannot be trained.
        AdapterCorrupt, ParentMismatch: The parent is not one to start from.
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
    longest = min(
        max_positions(student.model), spec.engine.max_model_len() if spec.engine else math.inf
    )
    limit = int(longest) - max_answer_tokens
    encoder = Encoder(tokenizer, spec.context, limit, max_answer_tokens, spec.template)
    on_policy = _engine_sampler(spec, student, sampler, parallel) if spec.engine else sampler
    asker = examples.find_prompt_label(spec.context.system_prompt or "")
    turns = (
        AnswerTruncator(tokenizer, asker, reference_eos_state(student, encoder)) if asker else None
    )
    return Roles(student, Teacher(student, turns), sampler, on_policy, parallel, encoder, digest)


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


def load_parent(student: Student, folder: Path, base_sha256: str, settings: Distill) -> None:
    """Give the student the weights of a published adapter.

    Raises:
        AdapterCorrupt: The folder is not what was published.
        ParentMismatch: It holds no adapter, or one of another base, rank or alpha.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        told = {"base": manifest["base"]["sha256"]}
        told |= {name: manifest["settings"][name] for name in LORA_SHAPE}
        verify_files(folder, sha256(folder / MANIFEST))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ParentMismatch(f"{folder} is not an adapter folder to start from.") from error
    needed = {"base": base_sha256} | {name: getattr(settings, name) for name in LORA_SHAPE}
    differing = [name for name, value in needed.items() if told[name] != value]
    if differing:
        raise ParentMismatch(
            f"{folder.name} was trained with another {' and '.join(differing)}: give the run the "
            "parent's, or start from the base."
        )
    set_peft_model_state_dict(student.peft, load_file(folder / WEIGHTS))
