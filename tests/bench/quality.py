"""How much of a context's effect each way of distilling keeps, in equal steps; in pieces.

    python -m tests.bench.quality --out bench/quality            # all, hours; goes on where it was
    python -m tests.bench.quality --out bench/quality --only clinic/ours/0
    python -m tests.bench.quality --out bench/quality --report   # the table, and a picture
    python -m tests.bench.quality --out bench/slow --only clinic/reference/0 --lr 1e-4

A piece is one run: a context of `contexts/`, a method, a seed. Its 40 questions are in wordings
that nothing was trained on. `ours` are the defaults. `off_policy` is context distillation on texts
of the teacher alone, with forward KL (arXiv 2209.15189). `reference` is OPCD as its authors' code
has it (arXiv 2602.12275): on-policy from the first step, reverse KL over the student's 256
likeliest tokens, not renormalised. All three train the same LoRA on the same questions.

A piece that was killed resumes from its checkpoint, which knows nothing of the code: after a change
of how runs train, take another folder.
"""

import argparse
import math
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import tests.bench.as_trainer  # noqa: F401 - before torch

# isort: split
import torch
from torch import Tensor

from distill import guards, loss, steps
from distill.data import prepare
from distill.evaluate import measure, preflight
from distill.evaluate.measure import Anchored
from distill.model.embedded import embed
from distill.model.encoder import user
from distill.model.trajectories import sample_from_teacher
from distill.progress import PlainProgress
from distill.roles import Roles, load_roles, training_device
from distill.run import checkpoint
from distill.run.checkpoint import Checkpoints
from distill.settings import TrainerSettings
from distill.spec import RunSpec
from store.anchors import Anchor
from store.contexts import Context
from tests.bench.pieces import append, read
from tests.bench.plots import Share, plot_shares

CONTEXTS = Path(__file__).parent / "contexts"
NAMES = ("clinic", "invoicing", "format", "labels")
SEEDS = (0, 1)
REFERENCE_TOP_K = 256
METHODS = {
    "ours": {},
    "off_policy": {"teacher_share": 1.0, "on_policy_tail": 0.0, "replay_share": 0.0},
    "reference": {"teacher_share": 0.0, "replay_share": 0.0},
}
Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Piece:
    """One run."""

    context: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.context}/{self.method}/{self.seed}"


def main() -> None:
    """Do what is left to do, or print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", help="CONTEXT/METHOD/SEED: one piece")
    parser.add_argument("--lr", type=float, help="the learning rate of all, if not the default")
    parser.add_argument("--report", action="store_true", help="print the table, draw the picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    if options.report:
        groups = grouped(read(results))
        print(table(groups))
        draw(groups, options.out / "quality.png")
        return
    model = embed(options.out / "model")
    done = {line["piece"] for line in read(results)}
    for piece in pieces():
        if str(piece) not in done and options.only in (None, str(piece)):
            print(f"--- {piece}")
            try:
                measured = train_and_measure(piece, model, options.out, options.lr)
            except preflight.NothingToLearn as error:
                measured = {"nothing_to_learn": str(error)}
            except guards.Diverged as error:
                measured = {"diverged": str(error)}
            append(results, {"piece": str(piece), **measured})


def pieces() -> Iterator[Piece]:
    """All runs, each method of a context after the other, so that an early end compares."""
    for seed in SEEDS:
        for context in NAMES:
            for method in METHODS:
                yield Piece(context, method, seed)


def anchors(name: str) -> tuple[Anchor, ...]:
    """The checks of a file of `contexts/`."""
    checks = tomllib.loads((CONTEXTS / f"{name}.toml").read_text())["check"]
    pairs = [(asked, check["expect"]) for check in checks for asked in check["ask"]]
    return tuple(Anchor(user(asked), {"regex": expect}) for asked, expect in pairs)


def train_and_measure(
    piece: Piece, model: Path, out: Path, lr: float | None = None
) -> dict[str, Any]:
    """Train one piece and count what base, teacher and candidate get right."""
    context = tomllib.loads((CONTEXTS / f"{piece.context}.toml").read_text())["context"].strip()
    rate = {"lr": lr} if lr else {}
    spec = RunSpec(
        model=model,
        context=Context(system_prompt=context),
        prompts=(),
        settings=TrainerSettings(seed=piece.seed, **METHODS[piece.method] | rate),
        out=out / "adapters",
        work=out / "work" / str(piece).replace("/", "-"),
        anchors=anchors(piece.context),
    ).with_device_defaults(training_device().type)
    began = time.monotonic()
    roles = load_roles(spec)
    checkpoints = Checkpoints(spec.work, spec.fingerprint(roles.base_sha256))
    lines = PlainProgress()
    with changed(piece.method):
        prepared = prepare.prepare_data(spec, roles.encoder, roles.teacher, roles.sampler, lines)
        settings = spec.resolved_settings(prepared.statements)
        with same_end(settings.steps):
            steps.train(settings, roles, prepared, checkpoints, lines)
    checkpoint.clear(spec.work)
    seconds = time.monotonic() - began
    trained, longest = roles.sampler, spec.settings.max_answer_tokens
    roles = replace(roles, sampler=replace(trained, max_tokens=longest))
    alone = answers(roles, spec.anchors, in_context=False)
    asked = [roles.encoder.prompt(check.messages) for check in spec.anchors]
    taught = sample_from_teacher(roles.teacher, trained, asked, 0)
    unchanged = sample_from_teacher(roles.teacher, trained, prepared.unrelated, 0)
    general = anchors("retention")
    with roles.student.adapter_disabled():
        knew, knew_in_context = (
            passed(roles, general, in_context=in_context) for in_context in (False, True)
        )
    return {
        "questions": len(spec.anchors),
        "base": prepared.anchored.base,
        "teacher": prepared.anchored.teacher,
        "candidate": prepared.anchored.passed(alone),
        "leaks": measure.leak_rate(alone),
        "with_context": passed(roles, spec.anchors, in_context=True),
        "general": len(general),
        "kept": passed(roles, general, in_context=False),
        "knew": knew,
        "knew_in_context": knew_in_context,
        "retention_kl": measure.student_kl(roles.teacher, unchanged),
        "kl_base": measure.base_kl(roles.teacher, taught),
        "kl_candidate": measure.student_kl(roles.teacher, taught),
        "seconds": seconds,
    }


@contextmanager
def changed(name: str) -> Iterator[None]:
    """What a method changes in the code for the length of a run."""
    with ExitStack() as stack:
        if name == "off_policy":
            stack.enter_context(mock.patch.object(prepare, "context_verbatim", return_value=[]))
        if name == "reference":
            formulas = {"reverse": reference_reverse}
            stack.enter_context(mock.patch.dict(loss.FORMULAS, formulas))
        yield


@contextmanager
def same_end(taken: int) -> Iterator[None]:
    """All methods keep the best of the same last steps."""
    since = steps.first_purely_on_policy_step(TrainerSettings(steps=taken))
    with mock.patch.object(steps, "first_purely_on_policy_step", return_value=since):
        yield


def reference_reverse(log_p: Tensor, log_q: Tensor, _: float) -> tuple[Tensor, Tensor]:
    """Sum over the student's likeliest tokens of p (log p - log q), and its slope in the logits."""
    top = log_p.topk(REFERENCE_TOP_K).indices
    inside = torch.zeros_like(log_p).scatter_(1, top, 1.0)
    p, ratio = log_p.exp(), (log_p - log_q) * inside
    value = (p * ratio).sum(-1)
    # d/dz_j of sum_S p_i r_i = p_j ((r_j + 1) [j in S] - sum_S p_i (r_i + 1))
    mass = (p * inside).sum(-1)
    return value, p * (ratio + inside - (value + mass)[:, None])


def passed(roles: Roles, checks: tuple[Anchor, ...], *, in_context: bool) -> int:
    """How many checks the model passes as it is, its adapter on or off."""
    return Anchored(checks).passed(answers(roles, checks, in_context=in_context))


def answers(roles: Roles, checks: tuple[Anchor, ...], *, in_context: bool) -> list[str]:
    """What the model answers as it is, its adapter on or off."""
    prompts = [roles.encoder.prompt(check.messages) for check in checks]
    ids = [prompt.teacher_ids if in_context else prompt.student_ids for prompt in prompts]
    return roles.encoder.decode(roles.sampler.sample(ids, temperature=0))


Groups = dict[tuple[str, str], list[dict]]
"""What was measured of a context and a method, a line for each seed."""


def grouped(results: Iterable[dict]) -> Groups:
    """The runs that trained, by context and method."""
    groups: Groups = {}
    for line in results:
        context, name, _ = line["piece"].split("/")
        if "candidate" in line:
            groups.setdefault((context, name), []).append(line)
    return groups


def table(groups: Groups) -> str:
    """The mean over seeds, with 95 % Wilson intervals of the shares."""
    rows = [
        "| context | method | base | teacher | candidate | 95 % | with the context again | "
        "general knowledge (base, teacher) | drift, nats | gap closed, answers | nats | leaks "
        "| minutes |",
        "|---" * 13 + "|",
    ]
    for (context, name), lines in groups.items():
        base, teacher, candidate, again = (
            interval(lines, key) for key in ("base", "teacher", "candidate", "with_context")
        )
        kept, knew, in_context = (
            fmean(line[key] / line["general"] for line in lines)
            for key in ("kept", "knew", "knew_in_context")
        )
        drift = fmean(line["retention_kl"] for line in lines)
        gap = fmean(1 - line["kl_candidate"] / line["kl_base"] for line in lines)
        closed = (candidate[0] - base[0]) / (teacher[0] - base[0])
        leaks = fmean(line["leaks"] for line in lines)
        minutes = fmean(line["seconds"] for line in lines) / 60
        rows.append(
            f"| {context} | {name} ({len(lines)}) | {base[0]:.0%} | {teacher[0]:.0%} "
            f"| {candidate[0]:.0%} | {candidate[1]:.0%} to {candidate[2]:.0%} | {again[0]:.0%} "
            f"| {kept:.0%} ({knew:.0%}, {in_context:.0%}) | {drift:.3f} | {closed:.0%} | {gap:.0%} "
            f"| {leaks:.0%} | {minutes:.1f} |"
        )
    return "\n".join(rows)


def draw(groups: Groups, path: Path) -> None:
    """Draw what each context has of every method."""
    names = [name for name in NAMES if all((name, each) in groups for each in METHODS)]
    shares = {
        key: [interval(groups[name, "ours"], key) for name in names] for key in ("base", "teacher")
    }
    shares |= {
        method: [interval(groups[name, method], "candidate") for name in names]
        for method in METHODS
    }
    plot_shares(shares, names, path)


def interval(lines: list[dict], key: str) -> Share:
    """The share of questions that were answered right, and its interval.

    The seeds of a method answer the same questions, so they count as one answer each.
    """
    total = lines[0]["questions"]
    right = fmean(line[key] for line in lines)
    return right / total, *wilson(right, total)


def wilson(successes: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, spread = successes / total, Z**2 / total
    centre = share + spread / 2
    reach = Z * math.sqrt(share * (1 - share) / total + spread / 4 / total)
    return (centre - reach) / (1 + spread), (centre + reach) / (1 + spread)


if __name__ == "__main__":
    main()
