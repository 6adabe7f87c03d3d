"""The ways of taking a step that `step_cost` compares: ours, the published recipe, TRL's."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from distill import steps
from distill.model import trajectories
from distill.model.encoder import Prompt
from distill.model.packing import TokenIds
from distill.model.student import Student
from distill.model.teacher import Teacher
from distill.settings import TrainerSettings

TOP_K = 256


@dataclass(frozen=True)
class Batch:
    """The trajectories of a step."""

    prompts: list[Prompt]
    completions: list[TokenIds]


Step = Callable[[Batch], None]


def ours(student: Student) -> Step:
    """A step as runs take it."""
    teacher, settings = Teacher(student), TrainerSettings()

    def step(batch: Batch) -> None:
        scored = trajectories.score(teacher, batch.prompts, batch.completions)
        steps.backward(student, [], scored, settings)

    return step


def published(student: Student) -> Step:
    """Three passes over padded sequences; log-probabilities of the student's likeliest tokens."""

    def step(batch: Batch) -> None:
        asked, taught, mask = padded(batch, student.model.device)
        with torch.no_grad():
            top = log_probs(student, asked, mask).topk(TOP_K).indices
        with student.adapter_disabled():
            judged = log_probs(student, taught, mask).gather(-1, top)
        said = log_probs(student, asked, mask).gather(-1, top)
        divergence = (said.exp() * (said - judged)).sum(-1)  # (B, C)
        mean_over_sequences(divergence, mask).backward()

    return step


def trl(student: Student) -> Step:
    """The loss of TRL's SDFTTrainer over the whole vocabulary, with the base as its teacher."""
    from trl.experimental.sdft import SDFTTrainer

    trainer = SimpleNamespace(
        args=SimpleNamespace(
            distillation_mode="full_logits",
            distillation_alpha=1.0,
            distillation_is_clip=None,
            teacher_model_kind="base",
        ),
        model=student.peft,
        teacher_model=student.peft,
        temperature=1.0,
        num_loss_tokens_to_skip=0,
        model_kwarg_keys={"logits_to_keep"},
        accelerator=SimpleNamespace(unwrap_model=lambda model: model, gather=lambda value: value),
        _log_self_distillation_metric=lambda *_: None,
    )
    for name in ("_forward_logits", "_get_teacher_context_for_self_distillation"):
        setattr(trainer, name, getattr(SDFTTrainer, name).__get__(trainer))

    def step(batch: Batch) -> None:
        asked, taught, mask = padded(batch, student.model.device)
        inputs = {
            "prompt_ids": asked.prompts,
            "prompt_mask": asked.prompt_mask,
            "completion_ids": asked.completions,
            "completion_mask": mask,
            "teacher_input_ids": taught.ids,
            "teacher_attention_mask": taught.attention(mask),
        }
        logits = SDFTTrainer._compute_teacher_student_logits(
            trainer, student.peft, student.peft, inputs
        )
        SDFTTrainer._compute_self_distillation_loss(
            trainer, student.peft, inputs, logits
        ).backward()

    return step


@dataclass(frozen=True)
class Padded:
    """Prompts padded on the left, completions on the right."""

    prompts: Tensor
    prompt_mask: Tensor
    completions: Tensor

    @property
    def ids(self) -> Tensor:
        """Int[B, T]."""
        return torch.cat([self.prompts, self.completions], 1)

    def attention(self, mask: Tensor) -> Tensor:
        """Int[B, T]; `mask` is of the completions."""
        return torch.cat([self.prompt_mask, mask], 1)


def padded(batch: Batch, device: torch.device) -> tuple[Padded, Padded, Tensor]:
    """What the student sees, what the teacher sees, and which completion tokens count."""
    completions, mask = pad(batch.completions, device, left=False)
    sides = [
        Padded(*pad(prompts, device, left=True), completions)
        for prompts in (
            [prompt.student_ids for prompt in batch.prompts],
            [prompt.teacher_ids for prompt in batch.prompts],
        )
    ]
    return sides[0], sides[1], mask


def pad(sequences: list[TokenIds], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    """Int[B, T] and its mask."""
    tensors = [torch.tensor(ids, device=device) for ids in sequences]
    side = "left" if left else "right"
    ids, mask = (
        torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_side=side)
        for each in (tensors, [torch.ones_like(ids) for ids in tensors])
    )
    return ids, mask


def log_probs(student: Student, side: Padded, mask: Tensor) -> Tensor:
    """Float[B, C, V]: of the completion tokens, the adapter on or off as it is."""
    kept = side.completions.shape[1]
    output: Any = student.model(
        input_ids=side.ids,
        attention_mask=side.attention(mask),
        use_cache=False,
        logits_to_keep=kept + 1,
    )
    result: Tensor = output.logits[:, :-1].float().log_softmax(-1)
    return result


def mean_over_sequences(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over sequences of the mean over their tokens."""
    return ((values * mask).sum(-1) / mask.sum(-1)).mean()


WAYS: dict[str, Callable[[Student], Step]] = {"ours": ours, "published": published, "TRL": trl}
