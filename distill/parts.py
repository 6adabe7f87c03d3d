"""The model of a run in its roles: student, teacher and sampler share one copy of the weights."""

from dataclasses import dataclass

import torch

from distill import publish
from distill.base import load_base, max_positions, stop_ids
from distill.data import Encoder
from distill.sampler import LocalSampler
from distill.spec import RunSpec
from distill.student import Student
from distill.teacher import Teacher, check_frozen, probe_logits


@dataclass(frozen=True)
class Parts:
    """Who does what in a run."""

    student: Student
    teacher: Teacher
    sampler: LocalSampler
    encoder: Encoder
    base_sha256: str


def load_parts(spec: RunSpec) -> Parts:
    """Load the base, attach a fresh adapter, and prove that the teacher is the pristine base."""
    settings = spec.settings
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base, tokenizer = load_base(spec.model, device)
    pristine = probe_logits(base)
    student = Student(base, settings.rank, settings.alpha, settings.seed)
    check_frozen(student, pristine)
    sampler = LocalSampler(
        student.model,
        stop_ids(student.model, tokenizer),
        settings.max_completion_tokens,
        torch.Generator(device).manual_seed(settings.seed),
    )
    longest_answer = max(settings.max_completion_tokens, settings.max_answer_tokens)
    limit = max_positions(student.model) - longest_answer
    encoder = Encoder(tokenizer, spec.context, limit)
    return Parts(student, Teacher(student), sampler, encoder, publish.base_sha256(spec.model))
