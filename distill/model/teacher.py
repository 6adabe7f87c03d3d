"""The teacher: the frozen base with the context in front, scoring other people's completions.

It shares the student's weights with the adapter switched off, so one copy is in memory. A context
is constant in a run and stands first, so its keys and values are computed once and reused for every
trajectory of every step; sequences are bucketed by identical prefix. Reference implementations of
context distillation have had their adapter leak into the "frozen" teacher, which makes the loss
vanish; `check_frozen` proves at the start of a run that this one does not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from distill.model import packing
from distill.model.answer_end import AnswerTruncator
from distill.model.base import is_close
from distill.model.encoder import Prompt
from distill.model.packing import TokenIds
from distill.model.student import Student

PROBE_IDS = (11, 7, 23, 5, 17, 3)


class ContaminatedTeacher(Exception):
    """With the adapter off, the model does not answer like the pristine base."""


class Teacher:
    """Scores completions with the base and a context; keeps one cached prefix per context."""

    def __init__(self, student: Student, truncator: AnswerTruncator | None = None) -> None:
        self.student = student
        self.truncator = truncator
        self.caches: dict[TokenIds, DynamicCache | None] = {}

    def states(self, sequences: Sequence[tuple[Prompt, TokenIds]]) -> list[Tensor]:
        """Float[C, D] for each sequence: the states that predict its completion of C tokens.

        The completion's token ids are the student's own: only what stands before them differs.
        """
        scored: dict[int, Tensor] = {}
        for prefix, members in buckets([prompt for prompt, _ in sequences]).items():
            pairs = [(sequences[i][0].teacher_ids, sequences[i][1]) for i in members]
            for run in packing.microbatches(pairs, len(prefix), self.student.model.device):
                with self.student.adapter_disabled() as model:
                    states = packing.completion_states(
                        model, pairs[run], prefix, self.cache(prefix)
                    )
                lengths = [len(completion) for _, completion in pairs[run]]
                scored |= zip(members[run], states.split(lengths), strict=True)
        return [scored[index] for index in range(len(sequences))]

    def cache(self, prefix: TokenIds) -> DynamicCache | None:
        """Keys and values of a prefix, computed on first use."""
        if prefix not in self.caches:
            with self.student.adapter_disabled() as model:
                self.caches[prefix] = packing.prefix_cache(model, prefix)
        return self.caches[prefix]


def buckets(prompts: Sequence[Prompt]) -> dict[TokenIds, list[int]]:
    """Numbers of the prompts by what the teacher reads before each."""
    found: dict[TokenIds, list[int]] = {}
    for index, prompt in enumerate(prompts):
        found.setdefault(prompt.prefix, []).append(index)
    return found


def probe_logits(student_model: torch.nn.Module) -> Tensor:
    """Float[T, V]: the model's own logits on a few fixed tokens, by the ordinary forward pass."""
    device = next(student_model.parameters()).device
    with torch.no_grad():
        logits: Tensor = student_model(input_ids=torch.tensor([PROBE_IDS], device=device)).logits[0]
    return logits.float()


def check_frozen(student: Student, pristine: Tensor) -> None:
    """Prove that the adapter is off when it should be, and on when it should be.

    A fresh adapter changes nothing even when it is on, so for the check its B matrices are set to
    something that does.

    Args:
        student: The base with its adapter.
        pristine: Float[T, V] from `probe_logits`, taken before the adapter was attached.

    Raises:
        ContaminatedTeacher: Off is not the base, or on is not different from it.
    """
    saved = [parameter.detach().clone() for parameter in student.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05)
    try:
        with student.adapter_disabled() as model:
            off = probe_logits(model)
        enabled = probe_logits(student.model)
    finally:
        with torch.no_grad():
            for parameter, value in zip(student.parameters(), saved, strict=True):
                parameter.copy_(value)
    if not is_close(off, pristine):
        raise ContaminatedTeacher("With the adapter off, logits differ from the pristine base's.")
    if is_close(enabled, pristine):
        raise ContaminatedTeacher("With the adapter on, logits are still the base's.")
