"""The vLLM plugin against vLLM's own CPU path, in vLLM's own wrapper."""

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SLICES = (24, 8, 8)
SLOTS, RANK, INPUTS = 3, 16, 32
SCRIPT = """
import vllm.plugins
vllm.plugins.load_general_plugins()
from vllm.lora.punica_wrapper.punica_selector import get_punica_wrapper
print(type(get_punica_wrapper(8, 4, "cpu")).__name__)
"""


def weights(dtype: torch.dtype) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    down = [torch.randn(SLOTS, 1, RANK, INPUTS, generator=generator) for _ in SLICES]
    up = [torch.randn(SLOTS, 1, outputs, RANK, generator=generator) for outputs in SLICES]
    return tuple(a.to(dtype) for a in down), tuple(b.to(dtype) for b in up)


@pytest.fixture(scope="module")
def lora() -> SimpleNamespace:
    """Our wrapper and vLLM's own; importing vLLM warns of what it will change."""
    with warnings.catch_warnings(action="ignore"):
        from vllm.lora.layers import LoRAMapping
        from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

        from agent.engine.lora_cpu import GroupedPunicaWrapper, group_by_adapter
    return SimpleNamespace(
        ours=GroupedPunicaWrapper,
        theirs=PunicaWrapperCPU,
        group_by_adapter=group_by_adapter,
        mapping=LoRAMapping,
    )


def added(lora, wrapper, x: torch.Tensor, slots: list[int], scale: float) -> torch.Tensor:
    """What a wrapper of vLLM adds for a batch of tokens."""
    ids = tuple(slot + 1 for slot in slots)  # vLLM counts adapters from 1, slots from 0
    punica = wrapper(len(slots), len(slots), torch.device("cpu"))
    punica.update_metadata(lora.mapping(ids, ids, is_prefill=True), [1, 2, 3], SLOTS, 100)
    y = torch.zeros(len(slots), sum(SLICES), dtype=x.dtype)
    punica.add_lora_linear(y, x, *weights(x.dtype), scale, SLICES)
    return y


def by_hand(x: torch.Tensor, dtype: torch.dtype, slots: list[int], scale: float) -> torch.Tensor:
    """Token by token in double precision."""
    a, b = weights(dtype)
    rows = []
    for token, slot in zip(x.double(), slots, strict=True):
        parts = [
            scale * (up[slot, 0].double() @ (down[slot, 0].double() @ token))
            for down, up in zip(a, b, strict=True)
        ]
        rows.append(torch.cat(parts) * (slot >= 0))
    return torch.stack(rows)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@given(slots=st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=12), scale=st.floats(0.1, 2))
@settings(max_examples=100)
def test_each_token_gets_its_own_adapter_and_a_token_without_one_gets_none(
    lora, dtype, tolerance, slots, scale
):
    x = torch.randn(len(slots), INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype)
    y = added(lora, lora.ours, x, slots, scale)
    expected = by_hand(x, dtype, slots, scale)
    assert (y.double() - expected).abs().max() <= tolerance * max(1.0, expected.abs().max())
    assert not y[torch.tensor(slots) < 0].any()


def test_a_batch_with_adapters_only_equals_vllms_own_path(lora):
    x, slots = torch.randn(5, INPUTS), [0, 0, 2, 1, 0]
    ours, theirs = (added(lora, w, x, slots, 1.0) for w in (lora.ours, lora.theirs))
    assert torch.allclose(ours, theirs, atol=1e-4)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=20))
def test_groups_hold_each_token_with_an_adapter_once(lora, slots):
    seen = [
        (row, slot)
        for slot, rows in lora.group_by_adapter(torch.tensor(slots))
        for row in torch.arange(len(slots))[rows].tolist()
    ]
    assert sorted(seen) == [(row, slot) for row, slot in enumerate(slots) if slot >= 0]


@pytest.mark.parametrize(
    ("switch", "wrapper"), [("1", "GroupedPunicaWrapper"), ("0", "PunicaWrapperCPU")]
)
def test_vllm_loads_the_plugin_unless_it_is_switched_off(switch, wrapper):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"VLLM_LOGGING_LEVEL": "WARNING", "BYHEART_ENGINE__LORA_CPU": switch},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == [wrapper]
