"""Pictures of what the benchmarks measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

Share = tuple[float, float, float]
"""A share, and the ends of its interval."""


def plot_shares(shares: Mapping[str, Sequence[Share]], places: Sequence[str], path: Path) -> None:
    """Draw shares as groups of bars with their intervals, into a PNG file.

    Args:
        shares: Of each bar's name, one for each place.
        places: What stands below each group.
        path: The file.
    """
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    width = 0.8 / len(shares)
    for number, (name, values) in enumerate(shares.items()):
        middles = [place + (number - (len(shares) - 1) / 2) * width for place in range(len(values))]
        heights = [100 * share for share, _, _ in values]
        below = [100 * (share - low) for share, low, _ in values]
        above = [100 * (high - share) for share, _, high in values]
        axes.bar(middles, heights, width, yerr=[below, above], label=name, capsize=2)
    axes.set_xticks(range(len(places)), places)
    axes.set(ylabel="right answers, %", ylim=(0, 100))
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_lines(
    lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, path: Path
) -> None:
    """Draw lines through points on logarithmic axes, into a PNG file.

    Args:
        lines: The points of each, by its name.
        across: What the first number of a point is.
        up: What the second is.
        path: The file.
    """
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, points in lines.items():
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel=across, ylabel=up, xscale="log", yscale="log")
    places = sorted({place for points in lines.values() for place, _ in points})
    axes.set_xticks(places, [f"{place:g}" for place in places], minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)
