"""Resume points of a run, in its work folder: a killed run continues bit-identically.

    pool.pt      what is constant in a run: questions, guided trajectories
    latest.pt    step, weights, the best so far, optimiser state, trajectories sampled ahead, curves
    metrics.jsonl  one line a step, for whoever watches; a resume writes it anew from latest.pt

All random choices follow from (seed, step), so there is no random state to keep. The first line of
a `.pt` file says which release and run it belongs to; another's is ignored without unpacking it.
"""

import importlib.metadata
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill import atomic

POOL, LATEST, METRICS = "pool.pt", "latest.pt", "metrics.jsonl"
RELEASE = importlib.metadata.version("byheart")


@dataclass(frozen=True)
class Checkpoints:
    """The resume points of one run."""

    folder: Path
    fingerprint: str
    """Hash of everything that the run's result follows from."""

    @property
    def header(self) -> bytes:
        """The first line of this run's files."""
        return f"byheart {RELEASE} {self.fingerprint}\n".encode()

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace one resume point, whole or not at all."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        atomic.write_file(self.folder / name, self.header + buffer.getvalue())

    def load(self, name: str) -> dict[str, Any] | None:
        """The state saved under `name`, or None if there is none of this run.

        The files are this program's own, in a folder that only it writes to: they hold dataclasses,
        which torch loads only when told to trust them.
        """
        path = self.folder / name
        content = path.read_bytes() if path.is_file() else b""
        if not content.startswith(self.header):
            return None
        packed = io.BytesIO(content[len(self.header) :])
        state: dict[str, Any] = torch.load(packed, map_location="cpu", weights_only=False)
        return state

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one step to the curves."""
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The curves so far, one entry a step."""
        return [json.loads(line) for line in (self.folder / METRICS).read_text().splitlines()]

    def keep(
        self,
        step: int,
        parameters: Sequence[torch.nn.Parameter],
        optimiser: torch.optim.Optimizer,
        fresh: dict[int, Any],
        best: Sequence[Tensor] | None,
    ) -> None:
        """Keep where the run stands after `step` steps, with what is sampled for later ones.

        `best` are the weights that the run would keep if it ended here, if not the last.
        """
        state = {
            "step": step,
            "weights": [parameter.detach() for parameter in parameters],
            "optimiser": optimiser.state_dict(),
            "fresh": {ahead: kept for ahead, kept in fresh.items() if ahead >= step},
            "best": best,
            "metrics": self.metrics(),
        }
        self.save(LATEST, state)

    def resume(
        self, parameters: Sequence[torch.nn.Parameter], optimiser: torch.optim.Optimizer
    ) -> tuple[int, dict[int, Any], list[Tensor] | None]:
        """Restore the latest resume point.

        Returns:
            The step to go on with, 0 without a resume point; what was sampled for it; and the best
            weights so far.
        """
        kept = self.load(LATEST) or {"step": 0, "fresh": {}, "best": None, "metrics": []}
        if "weights" in kept:
            with torch.no_grad():
                for parameter, value in zip(parameters, kept["weights"], strict=True):
                    parameter.copy_(value)
            optimiser.load_state_dict(kept["optimiser"])
        curves = "".join(json.dumps(line) + "\n" for line in kept["metrics"])
        atomic.write_file(self.folder / METRICS, curves.encode())
        return kept["step"], kept["fresh"], kept["best"]


def clear(folder: Path) -> None:
    """Remove the resume points of a run that is over: they can be larger than its adapter."""
    for name in (POOL, LATEST):
        (folder / name).unlink(missing_ok=True)
