"""Plots the training curves, and what an adapter needs in its prompt."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

CURVES = (
    ("teacher_sampled_divergence", "teacher-sampled: KL(teacher || student)", "tab:blue"),
    ("on_policy_divergence", "on-policy: student to teacher", "tab:orange"),
    ("validation", "validation: KL(teacher || student)", "tab:green"),
)


def plot_curves(metrics: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Plot the divergences of each step, in nats per token, to a PNG file."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, label, colour in CURVES:
        points = [(line["step"] + 1, line[name]) for line in metrics if name in line]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=label, color=colour, linewidth=1.5)
    axes.set(xlabel="step", ylabel="nats per token", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def frontier_png(points: Sequence[dict[str, Any]], title: str) -> bytes:
    """Plot right answers by prompt tokens, for each part of the context in front; return a PNG."""
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    ordered = sorted(points, key=lambda point: point["prompt_tokens"])
    tokens = [point["prompt_tokens"] for point in ordered]
    shares = [100 * point["right"] / max(point["total"], 1) for point in ordered]
    axes.plot(tokens, shares, marker="o", color="tab:green", linewidth=1.5)
    for point, x, y in zip(ordered, tokens, shares, strict=True):
        axes.annotate(
            f"{point['context']}: {point['right']} of {point['total']}",
            (x, y),
            xytext=(4, 6),
            textcoords="offset points",
        )
    axes.set(xlabel="tokens of the context in the prompt", ylabel="right answers, %", title=title)
    axes.set_ylim(0, 110)
    axes.margins(x=0.25)
    axes.grid(visible=True, alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, dpi=130, format="png", metadata={"Software": None})
    plt.close(figure)
    return image.getvalue()
