"""Checkpoints of a run, in its work folder: a killed run continues bit-identically.

    data.pt        the prepared data, constant in a run: prompts, teacher-sampled trajectories
    latest.pt      step, weights, best weights, optimiser state, trajectories sampled ahead, curves
    given.json     for a run with a row, the inputs read from rows that may change (`FrozenInputs`)
    metrics.jsonl  the curves for watchers, one line per step; a resume rewrites it from latest.pt
    student/       the current adapter, for an engine that samples (`engine_sampler.py`)

Random choices are functions of (seed, step), so no random state is stored. The first line of a
`.pt` file holds the release, the format, the run's fingerprint and the SHA-256 of the rest. A file
of another run or release, or a corrupt one, is ignored before it is unpickled. Unpickling executes
what a pickle names, so only plain values, tensors and the classes in `SAFE_CLASSES` are allowed.
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
from distill.evaluate.answers import Check
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

DATA, LATEST, INPUTS, METRICS = "data.pt", "latest.pt", "given.json", "metrics.jsonl"
RELEASE = importlib.metadata.version("byheart")
FORMAT = 4
"""Raise it when the content of a checkpoint changes, or a class of `SAFE_CLASSES` moves or changes:
older files cannot be loaded then."""
SAFE_CLASSES = [Anchor, Anchored, Check, RunData, Prompt, Trajectory]
"""The classes that a checkpoint may contain besides plain values and tensors."""


class ResumeState(NamedTuple):
    """The state of a run, apart from its weights and its optimiser."""

    step: int
    """The next step, counted from 0."""
    ahead: dict[int, Any]
    """On-policy trajectories sampled ahead, by step."""
    best: list[Tensor] | None
    """The best weights so far; None if the last ones are to be kept."""
    curves: list[dict[str, Any]]
    """The metrics so far, one entry per step."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    fingerprint: str
    """Hash of everything that the run's result follows from."""
    writes: bool = True
    """Whether this process writes; of several, only the main one does."""

    def _line(self, packed: bytes) -> bytes:
        """Return the first line of a file of this run with this content."""
        digest = hashlib.sha256(packed).hexdigest()
        return f"{self._origin} {self.fingerprint} {digest}".encode()

    @property
    def _origin(self) -> str:
        return f"byheart {RELEASE} format {FORMAT}"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace one checkpoint atomically."""
        if not self.writes:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        packed = buffer.getvalue()
        durable_files.write_file(self.folder / name, self._line(packed) + b"\n" + packed)

    def load(self, name: str) -> dict[str, Any] | None:
        """Return the state saved under `name`, or None without an intact file of this run.

        Raises:
            FolderError: The file was not written by byheart.
        """
        path = self.folder / name
        content = path.read_bytes() if path.is_file() else b""
        line, _, packed = content.partition(b"\n")
        if line != self._line(packed):
            if content and not line.startswith(f"{self._origin} ".encode()):
                log.warning(
                    "%s was written by another release of byheart: the run restarts from scratch.",
                    path,
                )
            return None
        try:
            with torch.serialization.safe_globals(SAFE_CLASSES):
                state: dict[str, Any] = torch.load(
                    io.BytesIO(packed), map_location="cpu", weights_only=True
                )
        except pickle.UnpicklingError as error:
            raise FolderError(
                f"{path} was not written by byheart. Delete it to restart the run from scratch."
            ) from error
        return state

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append one step to metrics.jsonl, for watchers."""
        if not self.writes:
            return
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save_progress(
        self,
        parameters: Sequence[torch.nn.Parameter],
        optimiser: torch.optim.Optimizer,
        progress: ResumeState,
    ) -> None:
        """Save the run's state, with the trajectories of later steps."""
        state = {
            "weights": [parameter.detach() for parameter in parameters],
            "optimiser": optimiser.state_dict(),
            "step": progress.step,
            "ahead": {
                step: items for step, items in progress.ahead.items() if step >= progress.step
            },
            "best": progress.best,
            "curves": progress.curves,
        }
        self.save(LATEST, state)

    def resume(
        self, parameters: Sequence[torch.nn.Parameter], optimiser: torch.optim.Optimizer
    ) -> ResumeState:
        """Restore the latest checkpoint; without one, return the initial state."""
        saved = self.load(LATEST)
        if saved is None:
            state = ResumeState(0, {}, None, [])
        else:
            with torch.no_grad():
                for parameter, value in zip(parameters, saved["weights"], strict=True):
                    parameter.copy_(value)
            optimiser.load_state_dict(saved["optimiser"])
            state = ResumeState(saved["step"], saved["ahead"], saved["best"], saved["curves"])
        if self.writes:
            curves = "".join(json.dumps(line) + "\n" for line in state.curves)
            durable_files.write_file(self.folder / METRICS, curves.encode())
        return state


def clear(folder: Path) -> None:
    """Remove the checkpoints of a finished run; they can be larger than its adapter."""
    for path in (*folder.glob("*.pt"), folder / INPUTS):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / STUDENT, ignore_errors=True)


@dataclass(frozen=True)
class FrozenInputs:
    """The inputs of a run that are read from rows that may change."""

    prompts: tuple[Messages, ...]
    held_out: tuple[Messages, ...]
    anchors: tuple[Anchor, ...]
    parent: Parent | None
    relapsed: tuple[str, ...] = ()


INPUTS_JSON: TypeAdapter[Any] = TypeAdapter(FrozenInputs)


def freeze_inputs(spec: RunSpec, writes: bool) -> RunSpec:
    """Return the run with the inputs saved at its first start, saving them at the first start.

    Args:
        spec: The run with the current inputs.
        writes: Whether this process may save them.
    """
    path = spec.work / INPUTS
    if not path.is_file() and not writes:
        return spec
    if not path.is_file():
        parent = spec.parent
        if parent and parent.folder.is_relative_to(spec.out):  # the data folder may move
            parent = replace(parent, folder=parent.folder.relative_to(spec.out))
        inputs = FrozenInputs(spec.prompts, spec.held_out, spec.anchors, parent, spec.relapsed)
        path.parent.mkdir(parents=True, exist_ok=True)
        durable_files.write_file(path, INPUTS_JSON.dump_json(inputs))
        return spec
    saved: FrozenInputs = INPUTS_JSON.validate_json(path.read_bytes())
    parent = saved.parent
    return replace(
        spec,
        prompts=saved.prompts,
        held_out=saved.held_out,
        anchors=saved.anchors,
        relapsed=saved.relapsed,
        parent=replace(parent, folder=spec.out / parent.folder) if parent else None,
    )
