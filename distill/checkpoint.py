"""Resume points of a run, in its work folder: a killed run continues bit-identically.

    pool.pt      what is constant in a run: questions, guided trajectories
    latest.pt    step, adapter weights, optimiser state, trajectories sampled ahead
    metrics.jsonl  one line a step; cut back to the resumed step

All random choices follow from (seed, step), so there is no random state to keep. Files carry the
fingerprint of what they belong to; one of another run is ignored.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill import atomic

POOL, LATEST, METRICS = "pool.pt", "latest.pt", "metrics.jsonl"


@dataclass(frozen=True)
class Checkpoints:
    """The resume points of one run."""

    folder: Path
    fingerprint: str
    """Hash of everything that the run's result follows from."""

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace one resume point, whole or not at all."""
        buffer = io.BytesIO()
        torch.save({"fingerprint": self.fingerprint, "state": state}, buffer)
        atomic.write_file(self.folder / name, buffer.getvalue())

    def load(self, name: str) -> dict[str, Any] | None:
        """The state saved under `name`, or None if there is none of this run.

        The files are this program's own, in a folder that only it writes to: they hold dataclasses,
        which torch loads only when told to trust them.
        """
        path = self.folder / name
        if not path.is_file():
            return None
        saved = torch.load(path, map_location="cpu", weights_only=False)
        state: dict[str, Any] = saved["state"]
        return state if saved["fingerprint"] == self.fingerprint else None

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one step to the curves."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The curves so far; a line that a killed process left half written is not one."""
        path = self.folder / METRICS
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def cut_metrics(self, step: int) -> None:
        """Forget the steps from `step` on: they are about to be done again."""
        kept = [line for line in self.metrics() if line["step"] < step]
        content = "".join(json.dumps(line) + "\n" for line in kept)
        atomic.write_file(self.folder / METRICS, content.encode())

    def keep(
        self,
        step: int,
        parameters: Sequence[torch.nn.Parameter],
        optimiser: torch.optim.Optimizer,
        fresh: dict[int, Any],
    ) -> None:
        """Keep where the run stands after `step` steps, with what is sampled for later ones."""
        state = {
            "step": step,
            "weights": [parameter.detach() for parameter in parameters],
            "optimiser": optimiser.state_dict(),
            "fresh": {ahead: kept for ahead, kept in fresh.items() if ahead >= step},
        }
        self.save(LATEST, state)

    def resume(
        self, parameters: Sequence[torch.nn.Parameter], optimiser: torch.optim.Optimizer
    ) -> tuple[int, dict[int, Any]]:
        """Restore the latest resume point.

        Returns:
            The step to go on with, 0 without a resume point, and what was sampled for it.
        """
        kept = self.load(LATEST) or {"step": 0, "fresh": {}}
        if "weights" in kept:
            with torch.no_grad():
                for parameter, value in zip(parameters, kept["weights"], strict=True):
                    parameter.copy_(value)
            optimiser.load_state_dict(kept["optimiser"])
        self.cut_metrics(kept["step"])
        return kept["step"], kept["fresh"]
