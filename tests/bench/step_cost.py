"""What one step costs beside sampling, by length of the context: ours, the published recipe, TRL.

    python -m tests.bench.step_cost --out bench/step    # `make bench-step`; goes on where it was
    python -m tests.bench.step_cost --out bench/step --only published/8000
    python -m tests.bench.step_cost --out bench/step --report    # the table, and a picture
    python -m tests.bench.step_cost --out bench/8b --shape qwen3-8b    # random weights, on a GPU
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
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import tests.bench.as_trainer  # noqa: F401 - before torch

# isort: split
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from distill.model.base import check_decoding, check_packing, load_base
from distill.model.embedded import embed
from distill.model.encoder import Prompt
from distill.model.packing import TokenIds
from distill.model.student import Student
from distill.roles import training_device
from distill.settings import TrainerSettings
from tests.bench.apart import forget_peak, measure_apart, memory_mib
from tests.bench.pieces import append, read
from tests.bench.plots import plot_lines
from tests.bench.step_ways import WAYS, Batch

CONTEXTS = (300, 2000, 8000)
SEQUENCES, PROMPT, ANSWER = 4, 40, 64
MIB = 2**20
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-8b": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": False,
    },
}


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
    parser.add_argument("--shape", choices=SHAPES, help="of random weights; else the embedded")
    parser.add_argument("--report", action="store_true", help="print the table, draw the picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    if options.report:
        cells = {line["cell"]: line for line in read(results)}
        print(table(cells))
        draw(cells, options.out / "step_cost.png")
        return
    model = options.shape or str(embed(options.out / "model"))
    done = {line["cell"] for line in read(results)}
    for context in CONTEXTS:
        for way in WAYS:
            cell = f"{way}/{context}"
            wanted = options.only in (None, cell) and (way != "TRL" or find_spec("trl"))
            if wanted and cell not in done:
                print(f"--- {cell}", flush=True)
                measured = measure_apart(measure, model, way, context, options.rounds)
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
    settings, place = TrainerSettings(), training_device()
    base = of_shape(model, place) if model in SHAPES else load_base(Path(model), place)[0]
    student = Student(base, settings.rank, settings.alpha, settings.seed)
    step = WAYS[way](student)
    batches = trajectories(context, base.config.vocab_size)
    before = begin_peak(place)
    seconds = []
    # The others compute nothing once, and a step of theirs can take minutes.
    for _ in range(rounds + (way == "ours")):
        batch = next(batches)
        began = time.monotonic()
        step(batch)
        finish(place)
        seconds.append(time.monotonic() - began)
        for parameter in student.parameters():
            parameter.grad = None
    peak = peak_mib(place) - before
    usual = median(seconds[-rounds:])
    print(json.dumps({"seconds": usual, "once": seconds[0] - usual, "peak_mib": peak}))


def of_shape(name: str, place: torch.device) -> PreTrainedModel:
    """A model of random weights, as `load_base` would load it."""
    config = AutoConfig.for_model(**SHAPES[name])
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    with place:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model = model.requires_grad_(False).eval()
    check_packing(model)
    check_decoding(model)
    return model


def begin_peak(place: torch.device) -> float:
    """From now on the peak is of what comes; MiB that are in use already."""
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / MIB
    forget_peak()
    return memory_mib("VmRSS")


def peak_mib(place: torch.device) -> float:
    """MiB that were in use at most."""
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    return memory_mib("VmHWM")


def finish(place: torch.device) -> None:
    """Wait for what was begun."""
    if place.type == "cuda":
        torch.cuda.synchronize()


def trajectories(context: int, vocabulary: int) -> Iterator[Batch]:
    """New answers to new prompts of one context, of lengths as they come."""
    chance = torch.Generator().manual_seed(0)

    def some(count: int) -> TokenIds:
        return tuple(torch.randint(100, vocabulary, (count,), generator=chance).tolist())

    prefix = some(context)
    while True:
        asked = [some(PROMPT - 8 * place) for place in range(SEQUENCES)]
        answered = [some(ANSWER - 8 * place) for place in range(SEQUENCES)]
        prompts = [Prompt("", each, prefix + each, prefix) for each in asked]
        yield Batch(prompts, answered)


if __name__ == "__main__":
    main()
