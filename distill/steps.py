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
from distill.mixture import drawn, share_of_step
from distill.model import packing
from distill.model.distributed import ALONE, Processes
from distill.model.packing import Ids
from distill.model.student import Student
from distill.model.trajectories import Trajectory, sample_on_policy, stack
from distill.progress import RESUME, Meter, Report
from distill.roles import Parts
from distill.run.checkpoint import Checkpoints, Resumed

GRADIENT_CLIP = 1.0
BETAS = (0.9, 0.99)
FINAL_LR = 0.1
GUIDED_TIMES = 4


def train(
    settings: Distill, parts: Parts, prepared: RunData, checkpoints: Checkpoints, report: Report
) -> list[dict[str, Any]]:
    """Take all steps that are left, checkpointing as they go, and restore the best.

    Returns:
        The curves, one entry a step.

    Raises:
        Diverged: The loss is not finite, or the student's answers are no longer answers.
    """
    parameters = parts.student.parameters()
    optimiser = torch.optim.AdamW(parameters, lr=settings.lr, betas=BETAS, weight_decay=0.0)
    start, fresh, kept, curves = checkpoints.resume(parameters, optimiser)
    if start:
        report(RESUME, start, settings.steps, {})
    alone = alone_from(settings)
    validate = partial(measure.student_kl, parts.teacher, prepared.validation)
    meter = Meter(time.monotonic)
    ends = styles(parts, prepared.validation) if prepared.validation else ()
    for step in range(start, settings.steps):
        if guards.is_enough(curves, alone, settings.patience):
            break
        if step not in fresh:
            fresh = sample_ahead(settings, parts, prepared, step)
        guided = guided_of_step(settings, prepared, step)
        line = {"step": step, **take(settings, parts, optimiser, step, guided, fresh[step])}
        if prepared.validation and is_due(step, settings, alone):
            line["validation"] = parts.processes.from_first(validate)
            guards.check_finite(step, {"validation": line["validation"]})
        curves.append(line)
        checkpoints.append_metrics(line)
        if ends:
            guards.check_answers(curves, ends)
        if guards.best(curves, alone) == step:
            kept = [parameter.detach().clone() for parameter in parameters]
        tokens = sum(len(item.completion) for item in [*guided, *fresh[step]])
        report("train", step + 1, settings.steps, {**line, **meter.count(tokens)})
        if (step + 1) % settings.checkpoint_every == 0:
            checkpoints.keep(parameters, optimiser, Resumed(step + 1, fresh, kept, curves))
    restore(parameters, kept)
    return curves


def take(
    settings: Distill,
    parts: Parts,
    optimiser: torch.optim.Optimizer,
    step: int,
    guided: list[Trajectory],
    on_policy: list[Trajectory],
) -> dict[str, float]:
    """Take one optimiser step; what was measured on the way.

    Raises:
        Diverged: Something in it is not finite; the weights are as they were.
    """
    rate = settings.lr * schedule(step, settings.warmup_steps, settings.steps)
    for group in optimiser.param_groups:
        group["lr"] = rate
    metrics = backward(parts.student, guided, on_policy, settings, parts.processes)
    metrics["grad_norm"] = float(clip_grad_norm_(parts.student.parameters(), GRADIENT_CLIP))
    guards.check_finite(step, metrics)
    optimiser.step()
    optimiser.zero_grad()
    return {"lr": rate, **metrics, **answers(parts, on_policy)}


def answers(parts: Parts, on_policy: Sequence[Trajectory]) -> dict[str, float]:
    """What can be seen of the student's answers to prompts of this context; nothing without any."""
    own = [item for item in on_policy if not item.prompt.replay]
    if not own:
        return {}
    seen = style(parts, [item.completion for item in own])
    return {f"answer_{name}": value for name, value in asdict(seen).items()}


def styles(parts: Parts, taught: Sequence[Trajectory]) -> tuple[Style, Style]:
    """How the base answers what the teacher answered, and how the teacher did."""
    with parts.student.adapter_off():
        plain = [item.prompt.student_ids for item in taught]
        said = parts.sampler.sample(plain, temperature=0)
    return style(parts, said), style(parts, [item.completion for item in taught])


def style(parts: Parts, completions: Sequence[Ids]) -> Style:
    """How some answers look."""
    return Style.of(parts.encoder.decode(completions), [len(each) for each in completions])


def alone_from(settings: Distill) -> int:
    """The step from which nothing guides the student: from there on, a run may end."""
    guided = [step for step in range(settings.steps) if share_of_step(step, settings).guided]
    return guided[-1] + 1 if guided else 0


def is_due(step: int, settings: Distill, alone: int) -> bool:
    """Whether the student is measured on the validation split after this step.

    Seldom before it is left alone: those measurements are for who watches, and choose nothing.
    """
    every = settings.validate_every * (1 if step >= alone else GUIDED_TIMES)
    return (step + 1) % every == 0 or step + 1 == settings.steps


def restore(parameters: Sequence[torch.nn.Parameter], kept: Sequence[Tensor] | None) -> None:
    """Put the kept weights back; without any the last ones stay."""
    with torch.no_grad():
        for parameter, value in zip(parameters, kept or (), strict=bool(kept)):
            parameter.copy_(value)


def guided_of_step(settings: Distill, prepared: RunData, step: int) -> list[Trajectory]:
    """The step's guided trajectories, out of the pool."""
    return [
        *drawn(settings, "guided", prepared.guided, step),
        *drawn(settings, "guided_replay", prepared.guided_replay, step),
    ]


def sample_ahead(
    settings: Distill, parts: Parts, prepared: RunData, step: int
) -> dict[int, list[Trajectory]]:
    """Sample the on-policy trajectories of the next `refresh_every` steps, in one go.

    Decoding reads all weights once a token, whether for one sequence or for twenty.
    """
    asked = {
        ahead: [
            *drawn(settings, "on_policy", prepared.prompts, ahead),
            *drawn(settings, "on_policy_replay", prepared.replay, ahead),
        ]
        for ahead in range(step, min(step + settings.refresh_every, settings.steps))
    }
    parts.sampler.generator.manual_seed(settings.seed * 1_000_003 + step)
    together = [prompt for prompts in asked.values() for prompt in prompts]
    seeds = parts.sampler.seeds(len(together))
    share = parts.processes.share
    done = sample_on_policy(
        parts.teacher, parts.on_policy, share(together), settings.temperature, share(seeds)
    )
    sampled = iter(parts.processes.merged(done))
    return {ahead: [next(sampled) for _ in prompts] for ahead, prompts in asked.items()}


def backward(
    student: Student,
    guided: list[Trajectory],
    on_policy: list[Trajectory],
    settings: Distill,
    processes: Processes = ALONE,
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
        ("guided", loss.FORWARD, guided),
        ("on_policy", judged_by, on_policy),
    ):
        weigh = partial(
            loss.token_weights,
            sequences=len(everything),
            tokens=tokens,
            normalise=settings.normalise,
        )
        sums = accumulate(student, processes.share(chosen), objective, weigh)
        processes.add([sums])
        if chosen:
            divergence, entropy, count = sums.tolist()
            metrics |= {
                f"{name}_divergence": divergence / count,
                f"{name}_entropy": entropy / count,
            }
    for parameter in student.parameters():
        if parameter.grad is None:  # nothing of the step was this process's
            parameter.grad = torch.zeros_like(parameter)
    processes.add(parameter.grad for parameter in student.parameters())
    return metrics


def accumulate(
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
    for run in packing.passes(pairs, 0, student.model.device):
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


def schedule(step: int, warmup: int, steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then cosine decay to a tenth."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    return FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress))
