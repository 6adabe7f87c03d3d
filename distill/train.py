"""One run of On-Policy Context Distillation, from data to published candidate adapter.

What stands in the context moves into the weights (OPCD, arXiv 2602.12275). For a prompt x and a
context c, the student p sees x alone and the teacher q sees c before it:

    L = E_x, y ~ p(.|x) [ 1/|y| sum_t KL( p(.|x, y<t) || q(.|c, x, y<t) ) ]

`run` does, in this order:

    1. load the base, attach a fresh adapter, prove that the teacher is frozen
    2. prepare: stop if the context does not help; collect prompts, let the teacher write questions
       and answer them (`material.py`)
    3. train: the student answers, the teacher judges every token, the adapter moves
    4. measure: candidate without context against teacher with it, on prompts never trained on
    5. publish the adapter folder, by rename

Where it differs from the paper and its reference code:
- The divergence is exact over the vocabulary, not over the student's top 256 tokens (`loss.py`).
- LoRA on all linear layers instead of full fine-tuning, so the learning rate is far higher.
- Facts have no gradient on answers that never mention them: a share of each batch is guided, that
  is, answered by the teacher or by the context's own words, and learned with forward KL. For a
  context of facts it begins at all and falls to zero, so the run ends purely on-policy; a context
  of rules is learned on-policy from its first step.
- A share of each batch is replay: unrelated prompts against the base without context (arXiv
  2607.18110), which keeps what the context says nothing about.
- On-policy trajectories are sampled for a few steps at once (`refresh_every`), without importance
  correction: their divergences are exact whoever sampled them.
- Left out: live or averaged teachers
  (they collapse; table 5 of the paper), choosing checkpoints by test results.

    python -m distill train --model DIR --context handbook.md --prompts prompts.jsonl --out DIR

Shapes: N completion tokens of a pass, D hidden size.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.utils import clip_grad_norm_

from config.settings import Distill
from distill import evaluate, loss, material, packing, probe, publish
from distill.base import load_base, max_positions, stop_ids
from distill.checkpoint import POOL, Checkpoints
from distill.data import Encoder, draw, share_of_step
from distill.evaluate import Evaluation
from distill.material import Material
from distill.pool import Trajectory, sample_on_policy, stack
from distill.sampler import LocalSampler
from distill.spec import RunSpec
from distill.student import Student
from distill.teacher import Teacher, check_frozen, probe_logits

GRADIENT_CLIP = 1.0
BETAS = (0.9, 0.99)
FINAL_LR = 0.1
PROBES = 3

T = TypeVar("T")
Report = Callable[[str, int, int, dict[str, float]], None]
"""Called with (stage, done, total, metrics) as a run goes on."""


class Diverged(Exception):
    """Training cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    adapter: Path
    """The published folder."""
    evaluation: Evaluation
    metrics: list[dict[str, Any]]
    """The training curves, one entry a step."""


@dataclass(frozen=True)
class Parts:
    """The model of a run in its roles."""

    student: Student
    teacher: Teacher
    sampler: LocalSampler
    encoder: Encoder
    base_sha256: str


def run(spec: RunSpec, report: Report) -> Outcome:
    """Distil `spec.context` into an adapter, resuming from `spec.work` what was begun there.

    Raises:
        NothingToLearn: The context does not help the model.
        Diverged: The loss is not finite.
        PromptTooLong, ModelError: The input does not fit, or is not usable.
    """
    report("load the model", 0, 1, {})
    parts = load_parts(spec)
    checkpoints = Checkpoints(spec.work, spec.fingerprint(parts.base_sha256))
    prepared = prepare(spec, parts, checkpoints, report)
    train(spec, parts, prepared, checkpoints, report)
    report("measure", 0, 1, {})
    evaluation = measure(spec, parts, prepared)
    adapter = publish_adapter(spec, parts, prepared, evaluation, checkpoints)
    return Outcome(adapter, evaluation, checkpoints.metrics())


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


def prepare(spec: RunSpec, parts: Parts, checkpoints: Checkpoints, report: Report) -> Material:
    """Preflight and material, or what an earlier attempt of this run has kept of them."""
    kept = checkpoints.load(POOL)
    prepared: Material = (
        kept["material"]
        if kept
        else material.prepare(
            spec,
            parts.encoder,
            parts.teacher,
            parts.sampler,
            lambda stage, done, total: report(stage, done, total, {}),
        )
    )
    if not kept:
        checkpoints.save(POOL, {"material": prepared})
    return prepared


def train(
    spec: RunSpec, parts: Parts, prepared: Material, checkpoints: Checkpoints, report: Report
) -> None:
    """Take all steps that are left, checkpointing as they go."""
    settings = spec.effective_settings()
    parameters = parts.student.parameters()
    optimiser = torch.optim.AdamW(parameters, lr=settings.lr, betas=BETAS, weight_decay=0.0)
    start, fresh = checkpoints.resume(parameters, optimiser)
    for step in range(start, settings.steps):
        rate = settings.lr * schedule(step, settings.warmup_steps, settings.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        if step not in fresh:
            fresh = sample_ahead(settings, parts, prepared, step)
        guided = guided_of_step(settings, prepared, step)
        metrics = backward(parts.student, guided, fresh[step], settings)
        metrics["grad_norm"] = float(clip_grad_norm_(parameters, GRADIENT_CLIP))
        check_finite(step, metrics)
        optimiser.step()
        optimiser.zero_grad()
        checkpoints.append_metrics({"step": step, "lr": rate, **metrics})
        report("train", step + 1, settings.steps, metrics)
        if (step + 1) % settings.checkpoint_every == 0:
            checkpoints.keep(step + 1, parameters, optimiser, fresh)


def guided_of_step(settings: Distill, prepared: Material, step: int) -> list[Trajectory]:
    """The step's guided trajectories, out of the pool."""
    return [
        *drawn(settings, "guided", prepared.guided, step),
        *drawn(settings, "guided_replay", prepared.guided_replay, step),
    ]


def sample_ahead(
    settings: Distill, parts: Parts, prepared: Material, step: int
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
    sampled = iter(sample_on_policy(parts.teacher, parts.sampler, together, settings.temperature))
    return {ahead: [next(sampled) for _ in prompts] for ahead, prompts in asked.items()}


def drawn(settings: Distill, kind: str, source: Sequence[T], step: int) -> list[T]:
    """What step `step` draws of one kind: everything once before anything again."""
    counts = [asdict(share_of_step(each, settings))[kind] for each in range(step + 1)]
    chosen = draw(counts[step], sum(counts[:step]), len(source), f"{settings.seed}/{kind}")
    return [source[index] for index in chosen]


def backward(
    student: Student, guided: list[Trajectory], on_policy: list[Trajectory], settings: Distill
) -> dict[str, float]:
    """Accumulate the gradient of one step, pass by pass, under one global denominator.

    Returns:
        Mean divergence of each kind of trajectory in the step, in nats a token.
    """
    everything = [*guided, *on_policy]
    tokens = sum(len(item.completion) for item in everything)
    metrics: dict[str, float] = {}
    judged_by = loss.Objective(settings.divergence, settings.top_k, settings.teacher_weight)
    shares = {"guided": (loss.FORWARD, guided), "on_policy": (judged_by, on_policy)}
    for share, (objective, chosen) in shares.items():
        divergences = []
        pairs = [(item.prompt.student_ids, item.completion) for item in chosen]
        for run_ in packing.passes(pairs, 0, student.model.device):
            states = student.states(pairs[run_])  # (N, D)
            lengths = [len(completion) for _, completion in pairs[run_]]
            weights = loss.token_weights(lengths, len(everything), tokens, settings.normalise)
            # What a resume point kept is on the CPU.
            judged = stack(chosen[run_]).to(states.device)  # (N, D)
            value, per_token = loss.divergence(
                states, judged, student.head, weights.to(states.device), objective
            )
            value.backward()
            divergences.append(per_token)
        if divergences:
            metrics[f"{share}_divergence"] = float(torch.cat(divergences).mean())
    return metrics


def schedule(step: int, warmup: int, steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then cosine decay to a tenth."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    return FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress))


def check_finite(step: int, metrics: dict[str, float]) -> None:
    """Stop before a broken gradient reaches the weights.

    Raises:
        Diverged: A value is not finite.
    """
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise Diverged(
            f"Step {step}: {', '.join(broken)} is not finite. Lower distill.lr, or look for a "
            "prompt that the model cannot answer."
        )


def measure(spec: RunSpec, parts: Parts, prepared: Material) -> Evaluation:
    """Measure the trained student as the gate wants it."""
    return evaluate.measure(
        parts.teacher,
        replace(parts.sampler, max_tokens=spec.settings.max_answer_tokens),
        parts.encoder,
        prepared.held_out,
        prepared.unrelated,
        prepared.anchored,
    )


def publish_adapter(
    spec: RunSpec,
    parts: Parts,
    prepared: Material,
    evaluation: Evaluation,
    checkpoints: Checkpoints,
) -> Path:
    """Write the adapter folder with its manifest, curves and measurements."""
    lineage = publish.Lineage(
        base_name=spec.model.resolve().name,
        base_sha256=parts.base_sha256,
        context_sha256=spec.context.hash,
        data_sha256=spec.data_sha256(),
        settings=spec.material_settings(),
        run=spec.run,
        parent=spec.parent,
    )
    curves = "".join(json.dumps(line) + "\n" for line in checkpoints.metrics())
    documents = {
        "metrics.jsonl": curves.encode(),
        "evaluation.json": publish.canonical(evaluation.as_dict()),
    }
    probes = probe.make_probes(parts.teacher, parts.sampler, prepared.held_out, PROBES)
    return publish.publish(spec.out, parts.student, lineage, probes, documents)
