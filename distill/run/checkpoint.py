"""Resume points of a run, in its work folder: a killed run continues bit-identically.

    pool.pt      what is constant in a run: questions, guided trajectories
    latest.pt    step, weights, the best so far, optimiser state, trajectories sampled ahead, curves
    given.json   of a run with a row, what was read from rows that may change (`FrozenInputs`)
    metrics.jsonl  one line a step, for whoever watches; a resume writes it anew from latest.pt
    student/     the adapter as it is now, for the engine that samples (`engine_sampler.py`)

All random choices follow from (seed, step), so there is no random state to keep. The first line of
a `.pt` file names its release, format and run, and the hash of the rest. One of another run or
release, and a damaged one, is ignored without unpacking it, so nobody need delete it. A pickle runs
what it names, so nothing but plain values, tensors and the classes of `SAFE_CLASSES` is unpacked.
"""

import hashlib
import importlib.metadata
import io
import json
import logging
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter
from torch import Tensor

from distill.data.prepare import RunData
from distill.evaluate.measure import Anchored
from distill.model.encoder import Prompt
from distill.model.engine_sampler import STUDENT
from distill.model.trajectories import Trajectory
from distill.run.folders import FolderError
from distill.spec import Parent, RunSpec
from store import durable_files
from store.anchors import Anchor
from store.contexts import Messages

log = logging.getLogger(__name__)

POOL, LATEST, GIVEN, METRICS = "pool.pt", "latest.pt", "given.json", "metrics.jsonl"
RELEASE = importlib.metadata.version("byheart")
FORMAT = 2
"""Raise it when a class of `SAFE_CLASSES` moves or changes: older files cannot be loaded then."""
SAFE_CLASSES = [Anchor, Anchored, RunData, Prompt, Trajectory]
"""What a resume point has beside plain values and tensors."""


class ResumeState(NamedTuple):
    """Where a run stands, beside its weights and its optimiser."""

    step: int
    """The next one, from 0."""
    fresh: dict[int, Any]
    """Trajectories that were sampled for later steps."""
    best: list[Tensor] | None
    """The weights that the run would keep if it ended here, if not the last."""
    curves: list[dict[str, Any]]
    """What was measured so far, one entry a step."""


@dataclass(frozen=True)
class Checkpoints:
    """The resume points of one run."""

    folder: Path
    fingerprint: str
    """Hash of everything that the run's result follows from."""
    writes: bool = True
    """Of several processes only the first does."""

    def _line(self, packed: bytes) -> bytes:
        """The first line of a file of this run with this behind it."""
        digest = hashlib.sha256(packed).hexdigest()
        return f"{self._origin} {self.fingerprint} {digest}".encode()

    @property
    def _origin(self) -> str:
        return f"byheart {RELEASE} format {FORMAT}"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace one resume point, whole or not at all."""
        if not self.writes:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        packed = buffer.getvalue()
        durable_files.write_file(self.folder / name, self._line(packed) + b"\n" + packed)

    def load(self, name: str) -> dict[str, Any] | None:
        """The state saved under `name`, or None if there is none of this run, as it was written.

        Raises:
            FolderError: What is there was not written by this program.
        """
        path = self.folder / name
        content = path.read_bytes() if path.is_file() else b""
        line, _, packed = content.partition(b"\n")
        if line != self._line(packed):
            if content and not line.startswith(f"{self._origin} ".encode()):
                log.warning("%s is of another release of byheart: the run begins anew.", path)
            return None
        try:
            with torch.serialization.safe_globals(SAFE_CLASSES):
                state: dict[str, Any] = torch.load(
                    io.BytesIO(packed), map_location="cpu", weights_only=True
                )
        except pickle.UnpicklingError as error:
            raise FolderError(
                f"{path} was not written by byheart: delete it, and the run begins anew."
            ) from error
        return state

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one step to the curves, for whoever watches."""
        if not self.writes:
            return
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save_progress(
        self,
        parameters: Sequence[torch.nn.Parameter],
        optimiser: torch.optim.Optimizer,
        at: ResumeState,
    ) -> None:
        """Keep where the run stands, with what is sampled for later steps."""
        state = {
            "weights": [parameter.detach() for parameter in parameters],
            "optimiser": optimiser.state_dict(),
            "step": at.step,
            "fresh": {ahead: kept for ahead, kept in at.fresh.items() if ahead >= at.step},
            "best": at.best,
            "curves": at.curves,
        }
        self.save(LATEST, state)

    def resume(
        self, parameters: Sequence[torch.nn.Parameter], optimiser: torch.optim.Optimizer
    ) -> ResumeState:
        """Restore the latest resume point; where to go on from, the beginning without one."""
        kept = self.load(LATEST)
        if kept is None:
            at = ResumeState(0, {}, None, [])
        else:
            with torch.no_grad():
                for parameter, value in zip(parameters, kept["weights"], strict=True):
                    parameter.copy_(value)
            optimiser.load_state_dict(kept["optimiser"])
            at = ResumeState(kept["step"], kept["fresh"], kept["best"], kept["curves"])
        if self.writes:
            curves = "".join(json.dumps(line) + "\n" for line in at.curves)
            durable_files.write_file(self.folder / METRICS, curves.encode())
        return at


def clear(folder: Path) -> None:
    """Remove the resume points of a run that is over: they can be larger than its adapter."""
    for name in (POOL, LATEST, GIVEN):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / STUDENT, ignore_errors=True)


@dataclass(frozen=True)
class FrozenInputs:
    """What is read from rows that may change."""

    prompts: tuple[Messages, ...]
    held_out: tuple[Messages, ...]
    anchors: tuple[Anchor, ...]
    parent: Parent | None


INPUTS_JSON: TypeAdapter[Any] = TypeAdapter(FrozenInputs)


def freeze_inputs(spec: RunSpec, writes: bool) -> RunSpec:
    """Load the inputs saved at the first start; save them where this is the first.

    Args:
        spec: The run, as rows have it now.
        writes: Whether this process is the one that keeps it.
    """
    path = spec.work / GIVEN
    if not path.is_file() and not writes:
        return spec
    if not path.is_file():
        parent = spec.parent
        if parent and parent.folder.is_relative_to(spec.out):  # the data folder may be moved
            parent = replace(parent, folder=parent.folder.relative_to(spec.out))
        now = FrozenInputs(spec.prompts, spec.held_out, spec.anchors, parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        durable_files.write_file(path, INPUTS_JSON.dump_json(now))
        return spec
    begun: FrozenInputs = INPUTS_JSON.validate_json(path.read_bytes())
    parent = begun.parent
    return replace(
        spec,
        prompts=begun.prompts,
        held_out=begun.held_out,
        anchors=begun.anchors,
        parent=replace(parent, folder=spec.out / parent.folder) if parent else None,
    )
