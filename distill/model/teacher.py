"""The teacher: the frozen base with the context in its prompt, scoring any completions.

Teacher and student share one copy of the weights; the teacher runs with the adapter disabled. The
context is constant in a run and comes first, so its KV cache is computed once and reused for every
trajectory; sequences are grouped by identical prefix. In some implementations of context
distillation the adapter leaks into the "frozen" teacher, which makes the loss vanish;
`check_frozen` proves at the start of each run that it does not.
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
    """With the adapter disabled, the model's logits are not those of the base."""


class Teacher:
    """Scores completions with the base and a context; caches one prefix per context."""

    def __init__(self, student: Student, truncator: AnswerTruncator | None = None) -> None:
        self.student = student
        self.truncator = truncator
        self.caches: dict[TokenIds, DynamicCache | None] = {}

    def states(self, sequences: Sequence[tuple[Prompt, TokenIds]]) -> list[Tensor]:
        """Return, for each sequence, Float[C, D]: the states that predict its C completion tokens.

        The completion has the same token ids as for the student; only the prompt differs.
        """
        states_of: dict[int, Tensor] = {}
        for prefix, indices in group_by_prefix([prompt for prompt, _ in sequences]).items():
            pairs = [(sequences[i][0].teacher_ids, sequences[i][1]) for i in indices]
            device = self.student.model.device
            for microbatch in packing.microbatches(pairs, len(prefix), device):
                batch = pairs[microbatch]
                with self.student.adapter_disabled() as model:
                    states = packing.completion_states(model, batch, prefix, self.cache(prefix))
                lengths = [len(completion) for _, completion in batch]
                states_of |= zip(indices[microbatch], states.split(lengths), strict=True)
        return [states_of[index] for index in range(len(sequences))]

    def cache(self, prefix: TokenIds) -> DynamicCache | None:
        """Return the KV cache of a prefix, computed on first use."""
        if prefix not in self.caches:
            with self.student.adapter_disabled() as model:
                self.caches[prefix] = packing.prefix_cache(model, prefix)
        return self.caches[prefix]


def group_by_prefix(prompts: Sequence[Prompt]) -> dict[TokenIds, list[int]]:
    """Group prompt indices by the teacher's prefix."""
    groups: dict[TokenIds, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt.prefix, []).append(index)
    return groups


def probe_logits(model: torch.nn.Module) -> Tensor:
    """Return Float[T, V], the logits on a few fixed tokens, by the ordinary forward pass."""
    device = next(model.parameters()).device
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([PROBE_IDS], device=device)).logits[0]
    return logits.float()


def check_frozen(student: Student, pristine: Tensor) -> None:
    """Prove that disabling the adapter gives the base, and that enabling it does not.

    A fresh adapter has zero B matrices and changes nothing, so the check temporarily adds a
    constant to all its weights.

    Args:
        student: The base with its adapter.
        pristine: Float[T, V] from `probe_logits`, computed before the adapter was attached.

    Raises:
        ContaminatedTeacher: The disabled adapter changes the logits, or the enabled one does not.
    """
    saved = [parameter.detach().clone() for parameter in student.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05)
    try:
        with student.adapter_disabled() as model:
            disabled = probe_logits(model)
        enabled = probe_logits(student.model)
    finally:
        with torch.no_grad():
            for parameter, value in zip(student.parameters(), saved, strict=True):
                parameter.copy_(value)
    if not is_close(disabled, pristine):
        raise ContaminatedTeacher("With the adapter disabled, the logits differ from the base's.")
    if is_close(enabled, pristine):
        raise ContaminatedTeacher("With the adapter enabled, the logits are still the base's.")
