"""The optimiser steps of a run: what each draws, its gradient, and when to stop.

A step draws guided trajectories out of the pool and on-policy ones that the student has sampled,
judges both by the teacher, and moves the adapter. Every few steps the student is measured on
prompts of a validation split; since the guidance ended, the best of these measurements is what a
run keeps. All choices follow from (seed, step) and from the curves so far, so a resumed run makes
the same ones.
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

from config.sections import Distill
from distill import guards, loss
from distill.data.prepare import RunData
from distill.evaluate import measure
from distill.guards import Style
from distill.mixture import batch_mix, draw_items
from distill.model import packing
from distill.model.distributed import SINGLE_PROCESS, ParallelState
from distill.model.packing import TokenIds
from distill.model.student import Student
from distill.model.trajectories import Trajectory, sample_on_policy, stack
from distill.progress import RESUME, Meter, Report
from distill.roles import Roles
from distill.run.checkpoint import Checkpoints, ResumeState

GRADIENT_CLIP = 1.0
BETAS = (0.9, 0.99)
FINAL_LR = 0.1
GUIDED_TIMES = 4


def train(
    settings: Distill, roles: Roles, prepared: RunData, checkpoints: Checkpoints, report: Report
) -> list[dict[str, Any]]:
    """Take all steps that are left, checkpointing as they go, and restore the best.

    Returns:
        The curves, one entry a step.

    Raises:
        Diverged: The loss is not finite, or the student's answers are no longer answers.
    """
    parameters = roles.student.parameters()
    optimiser = torch.optim.AdamW(parameters, lr=settings.lr, betas=BETAS, weight_decay=0.0)
    start, fresh, kept, curves = checkpoints.resume(parameters, optimiser)
    if start:
        report(RESUME, start, settings.steps, {})
    alone = first_purely_on_policy_step(settings)
    validate = partial(measure.student_kl, roles.teacher, prepared.validation)
    meter = Meter(time.monotonic)
    ends = reference_styles(roles, prepared.validation) if prepared.validation else ()
    for step in range(start, settings.steps):
        if guards.should_stop_early(curves, alone, settings.patience):
            break
        if step not in fresh:
            fresh = sample_on_policy_ahead(settings, roles, prepared, step)
        guided = teacher_sampled_of_step(settings, prepared, step)
        line = {
            "step": step,
            **optimiser_step(settings, roles, optimiser, step, guided, fresh[step]),
        }
        if prepared.validation and validation_is_due(step, settings, alone):
            line["validation"] = roles.parallel.run_on_first_replica(validate)
            guards.check_finite(step, {"validation": line["validation"]})
        curves.append(line)
        checkpoints.append_metrics(line)
        if ends:
            guards.check_answers(curves, ends)
        if guards.best_step(curves, alone) == step:
            kept = [parameter.detach().clone() for parameter in parameters]
        tokens = sum(len(item.completion) for item in [*guided, *fresh[step]])
        report("train", step + 1, settings.steps, {**line, **meter.count(tokens)})
        if (step + 1) % settings.checkpoint_every == 0:
            checkpoints.save_progress(
                parameters, optimiser, ResumeState(step + 1, fresh, kept, curves)
            )
    restore_weights(parameters, kept)
    return curves


def optimiser_step(
    settings: Distill,
    roles: Roles,
    optimiser: torch.optim.Optimizer,
    step: int,
    guided: list[Trajectory],
    on_policy: list[Trajectory],
) -> dict[str, float]:
    """Take one optimiser step; what was measured on the way.

    Raises:
        Diverged: Something in it is not finite; the weights are as they were.
    """
    rate = settings.lr * lr_factor(step, settings.warmup_steps, settings.steps)
    for group in optimiser.param_groups:
        group["lr"] = rate
    metrics = backward(roles.student, guided, on_policy, settings, roles.parallel)
    metrics["grad_norm"] = float(clip_grad_norm_(roles.student.parameters(), GRADIENT_CLIP))
    guards.check_finite(step, metrics)
    optimiser.step()
    optimiser.zero_grad()
    return {"lr": rate, **metrics, **answer_metrics(roles, on_policy)}


def answer_metrics(roles: Roles, on_policy: Sequence[Trajectory]) -> dict[str, float]:
    """What can be seen of the student's answers to prompts of this context; nothing without any."""
    own = [item for item in on_policy if not item.prompt.replay]
    if not own:
        return {}
    seen = style(roles, [item.completion for item in own])
    return {f"answer_{name}": value for name, value in asdict(seen).items()}


def reference_styles(roles: Roles, taught: Sequence[Trajectory]) -> tuple[Style, Style]:
    """How the base answers what the teacher answered, and how the teacher did."""
    with roles.student.adapter_disabled():
        plain = [item.prompt.student_ids for item in taught]
        said = roles.sampler.sample(plain, temperature=0)
    return style(roles, said), style(roles, [item.completion for item in taught])


def style(roles: Roles, completions: Sequence[TokenIds]) -> Style:
    """How some answers look."""
    return Style.of(roles.encoder.decode(completions), [len(each) for each in completions])


def first_purely_on_policy_step(settings: Distill) -> int:
    """The step from which nothing guides the student: from there on, a run may end."""
    guided = [step for step in range(settings.steps) if batch_mix(step, settings).teacher_sampled]
    return guided[-1] + 1 if guided else 0


def validation_is_due(step: int, settings: Distill, alone: int) -> bool:
    """Whether the student is measured on the validation split after this step.

    Seldom before it is left alone: those measurements are for who watches, and choose nothing.
    """
    every = settings.validate_every * (1 if step >= alone else GUIDED_TIMES)
    return (step + 1) % every == 0 or step + 1 == settings.steps


def restore_weights(
    parameters: Sequence[torch.nn.Parameter], kept: Sequence[Tensor] | None
) -> None:
    """Put the kept weights back; without any the last ones stay."""
    with torch.no_grad():
        for parameter, value in zip(parameters, kept or (), strict=bool(kept)):
            parameter.copy_(value)


def teacher_sampled_of_step(settings: Distill, prepared: RunData, step: int) -> list[Trajectory]:
    """The step's guided trajectories, out of the pool."""
    return [
        *draw_items(settings, "teacher_sampled", prepared.teacher_sampled, step),
        *draw_items(settings, "teacher_sampled_replay", prepared.teacher_sampled_replay, step),
    ]


def sample_on_policy_ahead(
    settings: Distill, roles: Roles, prepared: RunData, step: int
) -> dict[int, list[Trajectory]]:
    """Sample the on-policy trajectories of the next `refresh_every` steps, in one go.

    DecodeBatch reads all weights once a token, whether for one sequence or for twenty.
    """
    asked = {
        ahead: [
            *draw_items(settings, "on_policy", prepared.prompts, ahead),
            *draw_items(settings, "on_policy_replay", prepared.replay, ahead),
        ]
        for ahead in range(step, min(step + settings.refresh_every, settings.steps))
    }
    roles.sampler.generator.manual_seed(settings.seed * 1_000_003 + step)
    together = [prompt for prompts in asked.values() for prompt in prompts]
    seeds = roles.sampler.seeds(len(together))
    share = roles.parallel.local_items
    done = sample_on_policy(
        roles.teacher, roles.on_policy, share(together), settings.temperature, share(seeds)
    )
    sampled = iter(roles.parallel.gather(done))
    return {ahead: [next(sampled) for _ in prompts] for ahead, prompts in asked.items()}


def backward(
    student: Student,
    guided: list[Trajectory],
    on_policy: list[Trajectory],
    settings: Distill,
    parallel: ParallelState = SINGLE_PROCESS,
) -> dict[str, float]:
    """Accumulate the gradient of one step, pass by pass, under one global denominator.

    Returns:
        Mean divergence, and mean entropy of the student, on each kind of trajectory in the step,
        in nats a token.
    """
    everything = [*guided, *on_policy]
    tokens = sum(len(item.completion) for item in everything)
    judged_by = loss.Objective(settings.divergence, settings.top_k, settings.teacher_weight)
    metrics: dict[str, float] = {}
    for name, objective, chosen in (
        ("teacher_sampled", loss.FORWARD, guided),
        ("on_policy", judged_by, on_policy),
    ):
        weigh = partial(
            loss.token_weights,
            sequences=len(everything),
            tokens=tokens,
            normalise=settings.normalise,
        )
        sums = accumulate_gradients(student, parallel.local_items(chosen), objective, weigh)
        parallel.all_reduce([sums])
        if chosen:
            divergence, entropy, count = sums.tolist()
            metrics |= {
                f"{name}_divergence": divergence / count,
                f"{name}_entropy": entropy / count,
            }
    for parameter in student.parameters():
        if parameter.grad is None:  # nothing of the step was this process's
            parameter.grad = torch.zeros_like(parameter)
    parallel.all_reduce(parameter.grad for parameter in student.parameters())
    return metrics


def accumulate_gradients(
    student: Student,
    chosen: list[Trajectory],
    objective: loss.Objective,
    weigh: Callable[[Sequence[int]], Tensor],
) -> Tensor:
    """Add the gradient of some trajectories, in as few passes as fit.

    Returns:
        Double[3]: the sums of divergence and entropy over their tokens, and the number of tokens.
    """
    sums = torch.zeros(3, dtype=torch.double, device=student.model.device)
    pairs = [(item.prompt.student_ids, item.completion) for item in chosen]
    for run in packing.microbatches(pairs, 0, student.model.device):
        states = student.states(pairs[run])  # (N, D)
        weights = weigh([len(completion) for _, completion in pairs[run]]).to(states.device)
        # What a resume point kept is on the CPU.
        judged = stack(chosen[run]).to(states.device)  # (N, D)
        value, per_token, entropy = loss.divergence(
            states, judged, student.head, weights, objective
        )
        value.backward()
        sums[0] += per_token.sum()
        sums[1] += entropy.sum()
        sums[2] += len(states)
    return sums


def lr_factor(step: int, warmup: int, steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then cosine decay to a tenth."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    return FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress))
