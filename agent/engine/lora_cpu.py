"""A vLLM plugin that computes LoRA on the CPU with one matrix product per adapter, not per token.

vLLM's own CPU path gathers the adapter's weights for every token of a batch, which costs more than
the model itself. This plugin groups a batch's tokens by adapter and computes x A^T B^T with two
matrix products per group and slice, so that answers with an adapter are nearly as fast as the
base's.

It also fixes a bug. A token without an adapter has the index -1, and the gather reads that as the
last slot: in a mixed batch, requests to the base are answered with the adapter that is loaded
there. Here such tokens belong to no group.

vLLM calls `register` in each of its processes (entry point group `vllm.general_plugins`), also when
byheart did not start it. The plugin does nothing on other platforms, with
`BYHEART_ENGINE__LORA_CPU=0`, and in vLLM releases that it was not tested with. This is the only
module of `agent` that imports torch and vLLM, and nothing in `agent` imports it.

Shapes: T tokens in a batch, D inputs, R rank, O outputs of a slice (q, k and v are three slices).
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

ENABLED_VARIABLE = "BYHEART_ENGINE__LORA_CPU"
"""The variable of `engine.lora_cpu`; 0 or false leaves vLLM's own path in place."""
TESTED_RELEASES = {"0.32.0"}
"""vLLM releases whose `PunicaWrapperCPU` the subclass was tested with."""

Rows: TypeAlias = slice | Tensor
Slice: TypeAlias = tuple[Tensor, Tensor, slice]
"""A^T, B^T, and the output columns that their product is added to."""

log = logging.getLogger("vllm.byheart")  # a child of vLLM's logger, so it has a handler


def register() -> None:
    """Make vLLM's CPU platform use `GroupedPunicaWrapper`; may be called more than once."""
    if not current_platform.is_cpu() or os.environ.get(ENABLED_VARIABLE, "").lower() in {
        "0",
        "false",
    }:
        return
    release = vllm.__version__.split("+")[0]
    if release not in TESTED_RELEASES:
        log.warning("byheart's LoRA plugin is off: it was not tested with vLLM %s.", release)
        return
    wrapper = f"{GroupedPunicaWrapper.__module__}.{GroupedPunicaWrapper.__qualname__}"
    type(current_platform).get_punica_wrapper = classmethod(lambda _: wrapper)


def group_by_adapter(indices: Tensor) -> list[tuple[int, Rows]]:
    """Group the rows of a batch by adapter.

    Args:
        indices: Int[T], the adapter's slot for each token; -1 for tokens without one.

    Returns:
        Slot and rows of each adapter. Contiguous rows are a slice, which needs no copy.
    """
    groups: list[tuple[int, Rows]] = []
    for slot in indices.unique().tolist():
        rows = (indices == slot).nonzero()[:, 0]
        first, last = int(rows[0]), int(rows[-1])
        contiguous = last - first + 1 == len(rows)
        if slot >= 0:
            groups.append((slot, slice(first, last + 1) if contiguous else rows))
    return groups


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's CPU wrapper for LoRA, with linear layers computed per adapter instead of per token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.groups: list[tuple[int, Rows]] = []
        self.views: dict[tuple[int, int], tuple[tuple[Tensor, ...], list[Slice]]] = {}

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Regroup the tokens by adapter; vLLM calls this before each batch."""
        super().update_metadata(*args, **kwargs)
        self.groups = group_by_adapter(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
    ) -> None:
        """Add x A^T B^T of each adapter to the rows of its tokens, in place.

        Args:
            y: Float[T, sum of O], the base layer's output.
            x: Float[T, D], the base layer's input.
            lora_a_stacked: A of each slice, Float[slots, 1, R, D].
            lora_b_stacked: B of each slice, Float[slots, 1, O, R].
            scale: Factor of the sum; the adapter's alpha / rank is already part of B.
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
        """Return the views of one layer and slot, cached.

        Creating them for each of a hundred layers costs a tenth of a decode step. The cache stays
        valid because vLLM changes the weights in place and keeps the tuples.
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
