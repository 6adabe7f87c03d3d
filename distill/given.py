"""What a run was given when it began: kept, so that it goes on with the same after it was killed.

Seeds, anchors, logged prompts and the adapter that serves may all have changed by then, and a run
on other data would begin anew. The first process writes the file before anyone trains, and it is
removed with the resume points when the run is over.
"""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from distill import atomic
from distill.checkpoint import GIVEN
from distill.spec import Parent, RunSpec
from store.anchors import Anchor
from store.contexts import Messages


@dataclass(frozen=True)
class Given:
    """What is read from rows that may change."""

    prompts: tuple[Messages, ...]
    held_out: tuple[Messages, ...]
    anchors: tuple[Anchor, ...]
    parent: Parent | None


FORMAT: TypeAdapter[Any] = TypeAdapter(Given)


def as_begun(spec: RunSpec, writes: bool) -> RunSpec:
    """The run with what it was given at its beginning, which is now if it has not begun.

    Args:
        spec: The run, as rows have it now.
        writes: Whether this process is the one that keeps it.
    """
    path = spec.work / GIVEN
    if not path.is_file() and not writes:
        return spec
    if not path.is_file():
        now = Given(spec.prompts, spec.held_out, spec.anchors, spec.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_file(path, FORMAT.dump_json(now))
        return spec
    begun: Given = FORMAT.validate_json(path.read_bytes())
    return replace(
        spec,
        prompts=begun.prompts,
        held_out=begun.held_out,
        anchors=begun.anchors,
        parent=begun.parent,
    )
