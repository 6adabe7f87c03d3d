"""Plots the training curves."""

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
