"""One run of On-Policy Context Distillation, from data to published candidate adapter.

What stands in the context moves into the weights (OPCD, arXiv 2602.12275). For a prompt x and a
context c, the student p sees x alone and the teacher q sees c before it:

    L = E_x, y ~ p(.|x) [ 1/|y| sum_t KL( p(.|x, y<t) || q(.|c, x, y<t) ) ]

`run` does, in this order:

    1. load the base, attach a fresh adapter, prove that the teacher is frozen
    2. prepare: stop if the context does not help; collect prompts, let the teacher write questions
       and answer them (`material.py`)
    3. train: the student answers, the teacher judges every token, the adapter moves; keep the best
       step, and stop with a reason when answers are no longer answers (`steps.py`, `guards.py`)
    4. measure: candidate without context against teacher with it, on prompts never trained on
    5. publish the adapter folder, by rename

Where it differs from the paper and its reference code:
- The divergence is exact over the vocabulary, not over the student's top 256 tokens (`loss.py`).
- LoRA on all linear layers instead of full fine-tuning, so the learning rate is far higher.
- Facts have no gradient on answers that never mention them: a share of each batch is guided, that
  is, answered by the teacher or by the context's own words, and learned with forward KL. It begins
  at the share of lessons that are facts, is theirs alone, and falls to zero, so that the run ends
  purely on-policy. Lessons that are rules are learned on-policy from the first step; a system
  prompt may hold facts, and is guided.
- A share of each batch is replay: unrelated prompts against the base without context (arXiv
  2607.18110), which keeps what the context says nothing about.
- On-policy trajectories are sampled for a few steps at once (`refresh_every`), without importance
  correction: their divergences are exact whoever sampled them.
- The step that is kept is chosen on a validation split, among those without guidance.
- Left out: live or averaged teachers (they collapse; table 5 of the paper), choosing checkpoints
  by test results.

    python -m distill train --model DIR --context handbook.md --prompts prompts.jsonl --out DIR

Shapes: N completion tokens of a pass, D hidden size.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill import steps
from distill.data.prepare import RunData, prepare_data
from distill.evaluate import measure, probe
from distill.evaluate.measure import Evaluation, EvaluationSet
from distill.evaluate.probe import Probe
from distill.model.adapter_files import canonical
from distill.model.distributed import ParallelState, init_parallel, shutdown_parallel
from distill.progress import PLAN, Report, no_report
from distill.roles import Roles, device, load_roles
from distill.run import folders, publish
from distill.run.checkpoint import POOL, Checkpoints
from distill.spec import RunSpec

PROBES = 3


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    adapter: Path
    """The published folder."""
    evaluation: Evaluation
    metrics: list[dict[str, Any]]
    """The training curves, one entry a step."""


def run(spec: RunSpec, report: Report) -> Outcome | None:
    """Distil `spec.context` into an adapter, resuming from `spec.work` what was begun there.

    Returns:
        What was published; None in all but the first of several parallel.

    Raises:
        NothingToLearn: The context does not help the model.
        Diverged: The loss is not finite, or the student's answers are no longer answers.
        PromptTooLong, PromptRejected, ContextTooLong, ModelError, FolderError: What the run was
            given does not fit, or is not usable.
    """
    parallel = init_parallel(spec.settings.shards)
    if not parallel.is_main_process:
        _distil(spec, parallel, no_report)
        return None
    for folder in (spec.out, spec.work):
        folders.check_writable(folder)
    with folders.lock_folder(spec.work):
        return _distil(spec, parallel, report)


def _distil(spec: RunSpec, parallel: ParallelState, report: Report) -> Outcome | None:
    """The run, as each of its parallel does it; None in all but the first."""
    first = parallel.is_main_process
    report("load the model", 0, 1, {})
    spec = spec.with_device_defaults(device().type)
    roles = load_roles(spec, parallel)
    if first:
        folders.check_disk_space(spec.out, spec.work, _size(roles.student.parameters()))
    checkpoints = Checkpoints(spec.work, spec.fingerprint(roles.base_sha256), writes=first)
    prepared = parallel.run_on_first_replica(
        lambda: load_or_prepare_data(spec, roles, checkpoints, report)
    )
    settings = spec.resolved_settings(prepared.statements)
    counts: dict[str, float] = {
        "statements": prepared.statements,
        "prompts": len(prepared.prompts),
        "teacher_sampled": len(prepared.teacher_sampled),
    }
    report(PLAN, settings.steps, settings.steps, counts)
    curves = steps.train(settings, roles, prepared, checkpoints, report)
    if parallel.rank == 0:
        evaluation, probes = evaluate(spec, roles, prepared, report)
    shutdown_parallel()
    if not first:
        return None
    adapter = publish_adapter(spec, roles, evaluation, curves, probes)
    return Outcome(adapter, evaluation, curves)


def _size(parameters: Sequence[torch.nn.Parameter]) -> int:
    """Bytes of some weights."""
    return sum(each.numel() * each.element_size() for each in parameters)


def load_or_prepare_data(
    spec: RunSpec, roles: Roles, checkpoints: Checkpoints, report: Report
) -> RunData:
    """Preflight and material, or what an earlier attempt of this run has kept of them."""
    kept = checkpoints.load(POOL)
    prepared: RunData = (
        kept["material"]
        if kept
        else prepare_data(
            spec,
            roles.encoder,
            roles.teacher,
            roles.sampler,
            lambda stage, done, total: report(stage, done, total, {}),
        )
    )
    if not kept:
        checkpoints.save(POOL, {"material": prepared})
    return prepared


def evaluate(
    spec: RunSpec, roles: Roles, prepared: RunData, report: Report
) -> tuple[Evaluation, list[Probe]]:
    """Measure the trained student as the gate wants it, and how an engine may know it."""
    patient = roles.sampler.for_stage(
        "measure the candidate",
        max_tokens=spec.settings.max_answer_tokens,
        progress=lambda stage, done, total: report(stage, done, total, {}),
    )
    completions = measure.greedy(patient, [*prepared.held_out, *prepared.unrelated])
    evaluation = measure.measure_candidate(
        roles.teacher,
        patient,
        roles.encoder,
        EvaluationSet(prepared.held_out, prepared.unrelated, prepared.anchored),
        completions,
    )
    asked = prepared.held_out
    short = [ids[: spec.settings.max_completion_tokens] for ids in completions[: len(asked)]]
    return evaluation, probe.make_probes(roles.teacher, asked, short, PROBES)


def publish_adapter(
    spec: RunSpec,
    roles: Roles,
    evaluation: Evaluation,
    metrics: list[dict[str, Any]],
    probes: list[Probe],
) -> Path:
    """Write the adapter folder with its manifest, curves and measurements."""
    lineage = publish.Lineage(
        base_name=spec.model.resolve().name,
        base_sha256=roles.base_sha256,
        context_sha256=spec.context.hash,
        data_sha256=spec.data_sha256(),
        settings=spec.fingerprint_settings(),
        run=spec.run,
        parent=spec.parent.folder.name if spec.parent else None,
    )
    curves = "".join(json.dumps(line) + "\n" for line in metrics)
    documents = {
        "metrics.jsonl": curves.encode(),
        "evaluation.json": canonical(evaluation.as_dict()),
    }
    return publish.publish(spec.out, roles.student, lineage, probes, documents)
