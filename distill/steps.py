"""The optimiser steps of a run: sample, score, back-propagate, update, and decide when to stop.

    for each step
        1. sample     on-policy completions of the student, `refresh_every` steps ahead
        2. draw       the step's teacher-sampled trajectories from the prepared data
        3. backward   forward KL on teacher-sampled ones, `divergence` on on-policy ones
        4. update     clip the gradient, AdamW
        5. validate   every few steps, on prompts that are not trained on
        6. guard      stop on a non-finite loss, degenerate answers, or no improvement
    restore the best weights since teacher-sampled trajectories ended

Every choice follows from (seed, step) and from the curves so far, so a resumed run repeats it.

Shapes: N completion tokens of a microbatch, D hidden size.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from distill import draws, guards, loss
from distill.data.prepare import RunData
from distill.evaluate import measure
from distill.guards import Style
from distill.mixture import batch_mix
from distill.model import packing
from distill.model.distributed import SINGLE_PROCESS, ParallelState
from distill.model.packing import TokenIds
from distill.model.student import Student
from distill.model.trajectories import Trajectory, stack_teacher_states
from distill.progress import RESUME, Meter, Report
from distill.roles import Roles
from distill.run.checkpoint import Checkpoints, ResumeState
from distill.settings import TrainerSettings

MAX_GRAD_NORM = 1.0
ADAM_BETAS = (0.9, 0.99)
MIN_LR_FACTOR = 0.1
SPARSE_VALIDATION = 4
"""Validation is this many times rarer while trajectories are teacher-sampled."""


def train(
    settings: TrainerSettings, roles: Roles, data: RunData, checkpoints: Checkpoints, report: Report
) -> list[dict[str, Any]]:
    """Take the remaining steps, saving checkpoints, and restore the best weights.

    Returns:
        The curves, one entry per step.

    Raises:
        Diverged: The loss is not finite, or the student's answers have degenerated.
    """
    parameters = roles.student.parameters()
    optimiser = torch.optim.AdamW(parameters, lr=settings.lr, betas=ADAM_BETAS, weight_decay=0.0)
    start, ahead, best, curves = checkpoints.resume(parameters, optimiser)
    if start:
        report(RESUME, start, settings.steps, {})
    pure_from = first_purely_on_policy_step(settings)
    validate = partial(measure.student_kl, roles.teacher, data.validation)
    references = reference_styles(roles, data.validation) if data.validation else ()
    meter = Meter(time.monotonic)
    for step in range(start, settings.steps):
        if guards.should_stop_early(curves, pure_from, settings.patience):
            break
        if step not in ahead:
            ahead = draws.sample_on_policy_ahead(settings, roles, data, step)
        teacher_sampled, on_policy = (
            draws.teacher_sampled_of_step(settings, roles, data, step),
            ahead[step],
        )
        metrics = optimiser_step(settings, roles, optimiser, step, teacher_sampled, on_policy)
        line = {"step": step, **metrics}
        if data.validation and validation_is_due(step, settings, pure_from):
            line["validation"] = roles.parallel.run_on_first_replica(validate)
            guards.check_finite(step, {"validation": line["validation"]})
        curves.append(line)
        checkpoints.append_metrics(line)
        if references:
            guards.check_answers(curves, references)
        if guards.best_step(curves, pure_from) == step:
            best = [parameter.detach().clone() for parameter in parameters]
        tokens = count_tokens([*teacher_sampled, *on_policy])
        report("train", step + 1, settings.steps, {**line, **meter.count(tokens)})
        if (step + 1) % settings.checkpoint_every == 0:
            state = ResumeState(step + 1, ahead, best, curves)
            checkpoints.save_progress(parameters, optimiser, state)
    restore_weights(parameters, best)
    return curves


def first_purely_on_policy_step(settings: TrainerSettings) -> int:
    """Return the first step from which no trajectory is teacher-sampled.

    Only weights from this step on may be kept, and only from it on may a run stop early.
    """
    steps = range(settings.steps)
    teacher_sampled = [step for step in steps if batch_mix(step, settings).teacher_sampled]
    return teacher_sampled[-1] + 1 if teacher_sampled else 0


def reference_styles(roles: Roles, validation: Sequence[Trajectory]) -> tuple[Style, Style]:
    """Return the style of the base's answers and of the teacher's, on the validation prompts."""
    prompts = [trajectory.prompt.student_ids for trajectory in validation]
    with roles.student.adapter_disabled():
        base = roles.sampler.sample(prompts, temperature=0)
    return style(roles, base), style(roles, [trajectory.completion for trajectory in validation])


def style(roles: Roles, completions: Sequence[TokenIds]) -> Style:
    """Return the style of completions, decoded to text."""
    lengths = [len(completion) for completion in completions]
    return Style.of(roles.encoder.decode(completions), lengths)


def optimiser_step(
    settings: TrainerSettings,
    roles: Roles,
    optimiser: torch.optim.Optimizer,
    step: int,
    teacher_sampled: list[Trajectory],
    on_policy: list[Trajectory],
) -> dict[str, float]:
    """Take one optimiser step and return its metrics.

    Raises:
        Diverged: A metric is not finite; the weights are unchanged.
    """
    lr = settings.lr * lr_factor(step, settings.warmup_steps, settings.steps)
    for group in optimiser.param_groups:
        group["lr"] = lr
    metrics = backward(roles.student, teacher_sampled, on_policy, settings, roles.parallel)
    metrics["grad_norm"] = float(clip_grad_norm_(roles.student.parameters(), MAX_GRAD_NORM))
    guards.check_finite(step, metrics)
    optimiser.step()
    optimiser.zero_grad()
    return {"lr": lr, **metrics, **answer_metrics(roles, on_policy)}


def lr_factor(step: int, warmup: int, steps: int) -> float:
    """Return the factor on the learning rate: linear warm-up, then cosine decay to a tenth."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    return MIN_LR_FACTOR + (1 - MIN_LR_FACTOR) * 0.5 * (1 + math.cos(math.pi * progress))


def backward(
    student: Student,
    teacher_sampled: list[Trajectory],
    on_policy: list[Trajectory],
    settings: TrainerSettings,
    parallel: ParallelState = SINGLE_PROCESS,
) -> dict[str, float]:
    """Accumulate the gradient of one step over its microbatches and all replicas.

    All microbatches share one global denominator, so the gradient is that of a single batch.

    Returns:
        For each kind of trajectory in the step, the mean divergence and the mean entropy of the
        student, in nats per token.
    """
    batch = [*teacher_sampled, *on_policy]
    weigh = partial(
        loss.token_weights,
        sequences=len(batch),
        tokens=count_tokens(batch),
        normalise=settings.normalise,
    )
    on_policy_loss = loss.Objective(settings.divergence, settings.top_k, settings.teacher_weight)
    metrics: dict[str, float] = {}
    for kind, objective, trajectories in (
        ("teacher_sampled", loss.FORWARD, teacher_sampled),
        ("on_policy", on_policy_loss, on_policy),
    ):
        local = parallel.local_items(trajectories)
        sums = accumulate_gradients(student, local, objective, weigh)
        parallel.all_reduce([sums])
        if trajectories:
            divergence, entropy, tokens = sums.tolist()
            metrics[f"{kind}_divergence"] = divergence / tokens
            metrics[f"{kind}_entropy"] = entropy / tokens
    for parameter in student.parameters():
        if parameter.grad is None:  # this replica had no trajectory of the step
            parameter.grad = torch.zeros_like(parameter)
    parallel.all_reduce(parameter.grad for parameter in student.parameters())
    return metrics


def accumulate_gradients(
    student: Student,
    trajectories: list[Trajectory],
    objective: loss.Objective,
    weigh: Callable[[Sequence[int]], Tensor],
) -> Tensor:
    """Add the gradient of the trajectories to the adapter's, microbatch by microbatch.

    Args:
        student: Receives the gradient.
        trajectories: Completions with the teacher's hidden states.
        objective: The divergence to minimise.
        weigh: Maps completion lengths to Float[N] loss weights.

    Returns:
        Double[3]: the sum of divergences, the sum of entropies, and the number of tokens.
    """
    device = student.model.device
    sums = torch.zeros(3, dtype=torch.double, device=device)
    pairs = [(item.prompt.student_ids, item.completion) for item in trajectories]
    for microbatch in packing.microbatches(pairs, 0, device):
        states = student.states(pairs[microbatch])  # (N, D)
        # After a resume, the teacher's states are on the CPU.
        teacher = stack_teacher_states(trajectories[microbatch]).to(states.device)  # (N, D)
        weights = weigh([len(ids) for _, ids in pairs[microbatch]]).to(states.device)  # (N,)
        value, per_token, entropy = loss.divergence(
            states, teacher, student.head, weights, objective
        )
        value.backward()
        sums[0] += per_token.sum()
        sums[1] += entropy.sum()
        sums[2] += len(states)
    return sums


def answer_metrics(roles: Roles, on_policy: Sequence[Trajectory]) -> dict[str, float]:
    """Return the style of the student's answers to prompts of this context; empty without any."""
    completions = [item.completion for item in on_policy if not item.prompt.replay]
    if not completions:
        return {}
    return {f"answer_{name}": value for name, value in asdict(style(roles, completions)).items()}


def count_tokens(trajectories: Sequence[Trajectory]) -> int:
    """Return the number of completion tokens."""
    return sum(len(trajectory.completion) for trajectory in trajectories)


def validation_is_due(step: int, settings: TrainerSettings, pure_from: int) -> bool:
    """Whether the student is measured on the validation split after this step.

    Before `pure_from` it is measured rarely: those values are reported, and never select a step.
    """
    every = settings.validate_every * (1 if step >= pure_from else SPARSE_VALIDATION)
    return (step + 1) % every == 0 or step + 1 == settings.steps


def restore_weights(
    parameters: Sequence[torch.nn.Parameter], best: Sequence[Tensor] | None
) -> None:
    """Copy the best weights back; None leaves the last ones."""
    with torch.no_grad():
        for parameter, value in zip(parameters, best or (), strict=bool(best)):
            parameter.copy_(value)
