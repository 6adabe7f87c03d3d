"""What the loss itself costs in time and memory, beside the same loss written out.

    python -m tests.bench.loss_memory    # `make bench-loss`; about two minutes on two cores

Hidden states of student and teacher go in, the loss and the gradient in the student's states come
out, through an output head of the embedded model's shape. `naive` is the full-vocabulary reverse KL
with PyTorch's automatic gradient, all logits at once. Each row is measured in a process of its own;
memory is the peak beyond the inputs.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import tests.bench.as_trainer  # noqa: F401 - before torch

# isort: split
import torch
from torch import Tensor

from distill import loss
from tests.bench.apart import forget_peak, measure_apart, memory_mib
from tests.bench.plots import plot_lines

HIDDEN, VOCABULARY = 576, 49152
TOKENS = (256, 1024, 4096)


def main() -> None:
    """Measure both ways at every number of tokens, and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="*", default=TOKENS)
    parser.add_argument("--rounds", type=int, default=3, help="times, of which the median counts")
    parser.add_argument("--plot", type=Path, help="a picture to draw, of the memory")
    options = parser.parse_args()
    print("| completion tokens | byheart, s | MiB | naive, s | MiB |\n" + "|---" * 5 + "|")
    points: dict[str, list[tuple[float, float]]] = {"byheart": [], "naive": []}
    for tokens in options.tokens:
        ours, naive = (
            measure_apart(measure, way, tokens, options.rounds) for way in ("ours", "naive")
        )
        share = ours["peak_mib"] / naive["peak_mib"]
        print(
            f"| {tokens} | {ours['seconds']:.2f} | {ours['peak_mib']:.0f} ({share:.2f}) "
            f"| {naive['seconds']:.2f} | {naive['peak_mib']:.0f} |",
            flush=True,
        )
        points["byheart"].append((tokens, ours["peak_mib"]))
        points["naive"].append((tokens, naive["peak_mib"]))
    if options.plot:
        plot_lines(points, "completion tokens", "peak memory, MiB", options.plot)


def measure(way: str, tokens: int, rounds: int) -> None:
    """Print the median seconds and the peak memory of one loss and its gradient."""
    chance = torch.Generator().manual_seed(0)
    head, student, teacher = (
        torch.randn(rows, HIDDEN, generator=chance) for rows in (VOCABULARY, tokens, tokens)
    )
    head /= HIDDEN**0.5
    student.requires_grad_(True)
    forget_peak()
    before = memory_mib("VmRSS")
    seconds = []
    for _ in range(rounds):
        student.grad = None
        began = time.monotonic()
        value = ours(student, teacher, head) if way == "ours" else naive(student, teacher, head)
        value.backward()
        seconds.append(time.monotonic() - began)
    peak = memory_mib("VmHWM") - before
    print(json.dumps({"seconds": median(seconds), "peak_mib": peak}))


def ours(student: Tensor, teacher: Tensor, head: Tensor) -> Tensor:
    """The loss of a run."""
    weights = torch.full((len(student),), 1 / len(student))
    return loss.divergence(student, teacher, head, weights)[0]


def naive(student: Tensor, teacher: Tensor, head: Tensor) -> Tensor:
    """The same, written out."""
    log_p = (student @ head.T).log_softmax(-1)  # (N, V)
    with torch.no_grad():
        log_q = (teacher @ head.T).log_softmax(-1)  # (N, V)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


if __name__ == "__main__":
    main()
