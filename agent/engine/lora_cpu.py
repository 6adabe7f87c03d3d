"""A vLLM plugin: LoRA on the CPU as matrix products, at nearly the speed of the base.

vLLM's own CPU path gathers the adapter's weights once for every token of a batch, which costs more
than the model itself. Here tokens are grouped by adapter, and each group goes through two plain
matrix products a slice. A token without an adapter has the index -1, which the gather takes for the
last slot: in a mixed batch, requests to the base are then answered with whatever adapter lies
there. Here such tokens are in no group.

vLLM loads `register` in each of its processes (entry point group `vllm.general_plugins`), whoever
starts it. It does nothing on other platforms, with `BYHEART_ENGINE__LORA_CPU=0`, or for releases of
vLLM whose internals it was not tested with. This is the only module of `agent` that imports torch
and vLLM, and nothing in `agent` imports it.

Shapes: T tokens of a batch, D inputs, R rank, O outputs of a slice (q, k and v are three slices).
"""

import logging
import os
from itertools import accumulate
from typing import Any, TypeAlias

import torch
import vllm
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

SWITCH = "BYHEART_ENGINE__LORA_CPU"
"""The setting's own variable; 0 or false leaves vLLM's path in place."""
TESTED = {"0.32.0"}
"""Releases of vLLM whose `PunicaWrapperCPU` the wrapper here is known to extend."""

Rows: TypeAlias = slice | Tensor
Slice: TypeAlias = tuple[Tensor, Tensor, slice]
"""A^T, B^T, and the columns of the output that they add to."""

log = logging.getLogger("vllm.byheart")  # below vLLM's, which has a handler


def register() -> None:
    """Give vLLM's CPU platform the wrapper below; vLLM may call this more than once."""
    if not current_platform.is_cpu() or os.environ.get(SWITCH, "").lower() in {"0", "false"}:
        return
    release = vllm.__version__.split("+")[0]
    if release not in TESTED:
        log.warning("byheart leaves LoRA as it is: it was not tested with vLLM %s.", release)
        return
    wrapper = f"{GroupedPunicaWrapper.__module__}.{GroupedPunicaWrapper.__qualname__}"
    type(current_platform).get_punica_wrapper = classmethod(lambda _: wrapper)


def groups(indices: Tensor) -> list[tuple[int, Rows]]:
    """The rows of each adapter in a batch.

    Args:
        indices: Int[T], the adapter's slot for each token; -1 for tokens without one.

    Returns:
        Slot and rows: a slice where they follow one another, which needs no copies.
    """
    found: list[tuple[int, Rows]] = []
    for slot in indices.unique().tolist():
        rows = (indices == slot).nonzero()[:, 0]
        first, last = int(rows[0]), int(rows[-1])
        together = last - first + 1 == len(rows)
        if slot >= 0:
            found.append((slot, slice(first, last + 1) if together else rows))
    return found


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's wrapper for LoRA on the CPU, with the linear layers done group by group."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.groups: list[tuple[int, Rows]] = []
        self.views: dict[tuple[int, int], tuple[tuple[Tensor, ...], list[Slice]]] = {}

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Take over which adapter each token of the next batch asks for."""
        super().update_metadata(*args, **kwargs)
        self.groups = groups(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
    ) -> None:
        """Add each adapter's x A^T B^T to the rows that belong to it, in place.

        Args:
            y: Float[T, sum of O], the base layer's output.
            x: Float[T, D], its input.
            lora_a_stacked: For each slice Float[slots, 1, R, D].
            lora_b_stacked: For each slice Float[slots, 1, O, R].
            scale: Of what is added; vLLM has the adapter's own in B already.
            output_slices: O of each slice.
        """
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self.groups:
            inputs = x[rows]
            for down, up, columns in self._slices(
                slot, lora_a_stacked, lora_b_stacked, output_slices
            ):
                hidden = torch.mm(inputs, down)  # (rows, R)
                if isinstance(rows, slice):
                    y[rows, columns].addmm_(hidden, up, alpha=scale)
                else:
                    y[:, columns].index_add_(0, rows, torch.mm(hidden, up), alpha=scale)

    def _slices(
        self, slot: int, a: tuple[Tensor, ...], b: tuple[Tensor, ...], widths: tuple[int, ...]
    ) -> list[Slice]:
        """The views of one layer and slot; vLLM changes the weights in place and keeps the tuples.

        Making them anew for each of a hundred layers costs a tenth of a decode step.
        """
        key = (id(a), slot)
        if key not in self.views:
            stops = list(accumulate(widths))
            columns = [slice(stop - width, stop) for stop, width in zip(stops, widths, strict=True)]
            self.views[key] = (
                a,
                [
                    (down[slot, 0].T, up[slot, 0].T, part)
                    for down, up, part in zip(a, b, columns, strict=True)
                ],
            )
        return self.views[key][1]
