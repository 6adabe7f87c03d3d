"""On-policy context distillation (OPCD, arXiv 2602.12275): one run, from data to adapter.

The context moves into the weights. For a prompt x and a context c, the student p sees x alone and
the teacher q sees c and x. The student samples a completion y and minimises its reverse KL to the
teacher:

    L = E_{x, y ~ p(.|x)} [ 1/|y| sum_t KL( p(.|x, y<t) || q(.|c, x, y<t) ) ]

`run` takes these steps:

    1. load     the base, a LoRA adapter on it, and proof that the teacher is the frozen base
    2. prepare  preflight, prompts, questions by the base, the teacher's answers (`data/prepare.py`)
    3. train    sample, score every token, update the adapter, keep the best step   (`steps.py`)
    4. measure  each statement, and the student with what it has not learned against the teacher
    5. publish  the adapter folder, by an atomic rename                      (`run/publish.py`)

Differences from the paper and its reference code:
- The divergence is exact over the whole vocabulary, not over the student's top 256 tokens
  (`loss.py`).
- LoRA on all linear layers replaces full fine-tuning, so the learning rate is far higher.
- Part of each batch is teacher-sampled: the teacher, or the context verbatim, gives the completion,
  and the student learns it with forward KL. Reverse KL has no gradient for facts that the student
  never samples. The share is scaled by how many lessons are facts and decays to zero, so a run ends
  purely on-policy. Rules are learned on-policy from the first step. A system prompt may hold facts,
  so it is teacher-sampled.
- Part of each batch is replay: unrelated prompts whose teacher is the base without context (arXiv
  2607.18110). Replay preserves behaviour that the context does not concern.
- On-policy trajectories are sampled `refresh_every` steps ahead without importance correction. The
  per-token divergence is exact for any sampling policy.
- A validation split selects the step to keep, among those without teacher-sampled trajectories.
- Live and averaged teachers are left out because they collapse (table 5 of the paper). Checkpoints
  are never selected on test results.

    python -m distill train --model DIR --context handbook.md --prompts prompts.jsonl --out DIR
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill import steps
from distill.data.prepare import RunData, prepare_data
from distill.evaluate import measure, probe, served
from distill.evaluate.answers import teacher_answers
from distill.evaluate.candidate import Evaluation, EvaluationSet, measure_candidate
from distill.evaluate.learned import Judge
from distill.evaluate.preflight import NothingToLearn
from distill.evaluate.probe import Probe
from distill.model.adapter_files import canonical
from distill.model.distributed import ParallelState, init_parallel, shutdown_parallel
from distill.model.sampler import LocalSampler
from distill.progress import PLAN, Report, no_report
from distill.roles import Roles, load_roles, training_device
from distill.run import folders, publish
from distill.run.checkpoint import DATA, Checkpoints
from distill.run.plot import frontier_png
from distill.settings import TrainerSettings
from distill.spec import RunSpec

PROBES = 3


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    adapter: Path
    """The published folder."""
    evaluation: Evaluation
    curves: list[dict[str, Any]]
    """Training metrics, one entry per step."""


def run(spec: RunSpec, report: Report) -> Outcome | None:
    """Distil `spec.context` into an adapter, resuming from `spec.work` if the run was interrupted.

    Returns:
        The published adapter with its evaluation; None in every process but the main one.

    Raises:
        NothingToLearn: The context does not change the model's answers, or none of it was learned.
        Diverged: The loss is not finite, or the student's answers have degenerated.
        PromptTooLong, PromptRejected, ContextTooLong, ModelError, FolderError: An input does not
            fit the model or cannot be used.
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
    """Take the five steps in this process; only the main process publishes."""
    report("load the model", 0, 1, {})
    spec = spec.with_device_defaults(training_device().type)
    roles = load_roles(spec, parallel)
    checkpoints = _open_checkpoints(spec, roles)
    data = parallel.run_on_first_replica(
        lambda: load_or_prepare_data(spec, roles, checkpoints, report)
    )
    settings = spec.resolved_settings(data.statements)
    _report_plan(settings, data, report)
    curves = steps.train(settings, roles, data, checkpoints, report)
    if parallel.replica == 0:
        evaluation, probes = evaluate(spec, roles, data, report)
    shutdown_parallel()
    if not parallel.is_main_process:
        return None
    adapter = publish_adapter(spec, roles, evaluation, curves, probes)
    return Outcome(adapter, evaluation, curves)


def _open_checkpoints(spec: RunSpec, roles: Roles) -> Checkpoints:
    is_main = roles.parallel.is_main_process
    if is_main:
        folders.check_disk_space(spec.out, spec.work, _size_bytes(roles.student.parameters()))
    return Checkpoints(spec.work, spec.fingerprint(roles.base_sha256), writes=is_main)


def _size_bytes(parameters: Sequence[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def load_or_prepare_data(
    spec: RunSpec, roles: Roles, checkpoints: Checkpoints, report: Report
) -> RunData:
    """Return the data that an earlier attempt of this run saved, or prepare and save it."""
    saved = checkpoints.load(DATA)
    if saved:
        data: RunData = saved["data"]
        return data
    data = prepare_data(
        spec,
        roles.encoder,
        roles.teacher,
        roles.sampler,
        lambda stage, done, total: report(stage, done, total, {}),
    )
    checkpoints.save(DATA, {"data": data})
    return data


def _report_plan(settings: TrainerSettings, data: RunData, report: Report) -> None:
    counts: dict[str, float] = {
        "statements": data.statements,
        "prompts": len(data.prompts),
        "teacher_sampled": len(data.teacher_sampled),
    }
    report(PLAN, settings.steps, settings.steps, counts)


def evaluate(
    spec: RunSpec, roles: Roles, data: RunData, report: Report
) -> tuple[Evaluation, list[Probe]]:
    """Measure the trained student for the gate, and compute the probes of its adapter.

    The engine's answers to the probes later prove that it serves this adapter.
    """
    sampler = roles.sampler.for_stage(
        "measure the candidate",
        max_tokens=spec.settings.max_answer_tokens,
        progress=lambda stage, done, total: report(stage, done, total, {}),
    )
    sampler.generator.manual_seed(spec.settings.seed)  # the same for a resumed run
    judge = _judge(spec, roles, data, sampler)
    residual = served.find_residual(judge, roles.parts)
    if len(residual.reasons) == len(roles.parts):
        raise NothingToLearn(served.nothing_learned(residual))
    evaluation = measure_candidate(
        judge, roles.parts, residual, EvaluationSet(data.held_out, data.unrelated, data.anchored)
    )
    completions = measure.greedy(sampler, data.held_out)
    max_tokens = spec.settings.max_completion_tokens
    probed = [ids[:max_tokens] for ids in completions[: len(data.held_out)]]
    return evaluation, probe.make_probes(roles.teacher, data.held_out, probed, PROBES)


def _judge(spec: RunSpec, roles: Roles, data: RunData, sampler: LocalSampler) -> Judge:
    settings, teacher, encoder = spec.settings, roles.teacher, roles.encoder
    temperature = settings.serving_temperature
    taught = teacher_answers(teacher, sampler, encoder, data.checks, temperature)
    reference = [item for check in data.checks for item in check.reference]
    with teacher.student.adapter_disabled():
        gaps = [float(values.mean()) for values in measure.token_kls(teacher, reference)]
    tolerance = settings.statement_tolerance
    return Judge(teacher, sampler, encoder, data.checks, taught, gaps, temperature, tolerance)


def publish_adapter(
    spec: RunSpec,
    roles: Roles,
    evaluation: Evaluation,
    curves: list[dict[str, Any]],
    probes: list[Probe],
) -> Path:
    """Write the adapter folder with its manifest, curves and evaluation; return the folder."""
    lineage = publish.Lineage(
        base_name=spec.model.resolve().name,
        base_sha256=roles.base_sha256,
        context_sha256=spec.context.hash,
        data_sha256=spec.data_sha256(),
        settings=spec.fingerprint_settings(),
        run=spec.run,
        parent=spec.parent.folder.name if spec.parent else None,
    )
    lines = "".join(json.dumps(line) + "\n" for line in curves)
    documents = {
        "metrics.jsonl": lines.encode(),
        "evaluation.json": canonical(evaluation.as_dict()),
        "residual.md": evaluation.residual.encode(),
        "frontier.png": frontier_png(evaluation.frontier, spec.model.resolve().name),
    }
    return publish.publish(spec.out, roles.student, lineage, probes, documents)
