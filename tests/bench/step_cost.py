"""What one step costs beside sampling, by length of the context: ours, the published recipe, TRL.

    python -m tests.bench.step_cost --out bench/step    # `make bench-step`; goes on where it was
    python -m tests.bench.step_cost --out bench/step --only published/8000
    python -m tests.bench.step_cost --out bench/step --report    # the table, and a picture
    pip install trl==1.16.0    # not needed; adds the columns of TRL's SDFTTrainer

A step scores four trajectories of the student with the teacher and takes the adapter's gradient.
All ways do so on the same model and token ids. `published` is the recipe of OPCD's authors (arXiv
2602.12275, microsoft/LMOps): a pass for the student's 256 likeliest tokens, the teacher's pass over
context and answer, and the student's pass with gradient. TRL's is its trainer's own loss, called on
a batch as it makes them. Contexts are random tokens: only their number matters here. Each way runs
in a process of its own, whose peak memory beyond the loaded model is told as well. What ours
computes once a run, the context's keys and values, is told apart from its steps.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import tests.bench.as_trainer  # noqa: F401 - before torch

# isort: split
import torch
from torch import Tensor

from config.sections import Distill
from distill import pool, steps
from distill.base import load_base
from distill.data import Prompt
from distill.embedded import embed
from distill.packing import Ids
from distill.student import Student
from distill.teacher import Teacher
from tests.bench.apart import forget_peak, measure_apart, memory_mib
from tests.bench.pieces import append, read
from tests.bench.plots import plot_lines

CONTEXTS = (300, 2000, 8000)
SEQUENCES, PROMPT, ANSWER = 4, 40, 64
TOP_K = 256


@dataclass(frozen=True)
class Batch:
    """The trajectories of a step."""

    prompts: list[Prompt]
    completions: list[Ids]


Step = Callable[[Batch], None]
Cells = dict[str, dict[str, Any]]
"""What was measured, by way and length."""


def main() -> None:
    """Measure what is left to measure, or print the table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=3, help="steps, of which the median counts")
    parser.add_argument("--only", help="WAY/TOKENS: one cell of the table")
    parser.add_argument("--report", action="store_true", help="print the table, draw the picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    if options.report:
        cells = {line["cell"]: line for line in read(results)}
        print(table(cells))
        draw(cells, options.out / "step_cost.png")
        return
    model = embed(options.out / "model")
    done = {line["cell"] for line in read(results)}
    for context in CONTEXTS:
        for way in WAYS:
            cell = f"{way}/{context}"
            wanted = options.only in (None, cell) and (way != "TRL" or find_spec("trl"))
            if wanted and cell not in done:
                measured = measure_apart(measure, str(model), way, context, options.rounds)
                append(results, {"cell": cell, **measured})


def table(cells: Cells) -> str:
    """A row for each length of the context; in brackets as a multiple of ours."""
    rows = [
        "| context, tokens | once a run, s | "
        + " | ".join(f"{way}, s a step | MiB" for way in WAYS)
        + " |",
        "|---" * (2 + 2 * len(WAYS)) + "|",
    ]
    for context in CONTEXTS:
        ours = cells.get(f"ours/{context}")
        if ours:
            told = (_told(cells.get(f"{way}/{context}"), ours) for way in WAYS)
            rows.append(f"| {context} | {ours['once']:.1f} | " + " | ".join(told) + " |")
    return "\n".join(rows)


def _told(cell: dict[str, Any] | None, ours: dict[str, Any]) -> str:
    if cell is None:
        return " | "
    seconds = cell["seconds"]
    return f"{seconds:.2f} ({seconds / ours['seconds']:.1f}x) | {cell['peak_mib']:.0f}"


def draw(cells: Cells, path: Path) -> None:
    """Draw the seconds of a step over the length of the context."""
    points = {
        way: [
            (context, cells[f"{way}/{context}"]["seconds"])
            for context in CONTEXTS
            if f"{way}/{context}" in cells
        ]
        for way in WAYS
    }
    plot_lines(points, "tokens of context", "seconds a step, beside sampling", path)


def measure(model: str, way: str, context: int, rounds: int) -> None:
    """Print the median seconds of a step, what is computed once, and the peak memory of both."""
    settings = Distill()
    base, _ = load_base(Path(model), torch.device("cpu"))
    student = Student(base, settings.rank, settings.alpha, settings.seed)
    step = WAYS[way](student)
    batches = trajectories(context, base.config.vocab_size)
    forget_peak()
    before = memory_mib("VmRSS")
    seconds = []
    # The others compute nothing once, and a step of theirs can take minutes.
    for _ in range(rounds + (way == "ours")):
        batch = next(batches)
        began = time.monotonic()
        step(batch)
        seconds.append(time.monotonic() - began)
        for parameter in student.parameters():
            parameter.grad = None
    peak = memory_mib("VmHWM") - before
    usual = median(seconds[-rounds:])
    print(json.dumps({"seconds": usual, "once": seconds[0] - usual, "peak_mib": peak}))


def trajectories(context: int, vocabulary: int) -> Iterator[Batch]:
    """New answers to new prompts of one context, of lengths as they come."""
    chance = torch.Generator().manual_seed(0)

    def some(count: int) -> Ids:
        return tuple(torch.randint(100, vocabulary, (count,), generator=chance).tolist())

    prefix = some(context)
    while True:
        asked = [some(PROMPT - 8 * place) for place in range(SEQUENCES)]
        answered = [some(ANSWER - 8 * place) for place in range(SEQUENCES)]
        prompts = [Prompt("", each, prefix + each, prefix) for each in asked]
        yield Batch(prompts, answered)


def ours(student: Student) -> Step:
    """A step as runs take it."""
    teacher, settings = Teacher(student), Distill()

    def step(batch: Batch) -> None:
        scored = pool.score(teacher, batch.prompts, batch.completions)
        steps.backward(student, [], scored, settings)

    return step


def published(student: Student) -> Step:
    """Three passes over padded sequences; log-probabilities of the student's likeliest tokens."""

    def step(batch: Batch) -> None:
        asked, taught, mask = padded(batch)
        with torch.no_grad():
            top = log_probs(student, asked, mask).topk(TOP_K).indices
        with student.adapter_off():
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
        asked, taught, mask = padded(batch)
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


def padded(batch: Batch) -> tuple[Padded, Padded, Tensor]:
    """What the student sees, what the teacher sees, and which completion tokens count."""
    completions, mask = pad(batch.completions, left=False)
    sides = [
        Padded(*pad(prompts, left=True), completions)
        for prompts in (
            [prompt.student_ids for prompt in batch.prompts],
            [prompt.teacher_ids for prompt in batch.prompts],
        )
    ]
    return sides[0], sides[1], mask


def pad(sequences: list[Ids], *, left: bool) -> tuple[Tensor, Tensor]:
    """Int[B, T] and its mask."""
    tensors = [torch.tensor(ids) for ids in sequences]
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


if __name__ == "__main__":
    main()
