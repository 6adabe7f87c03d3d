"""Sequence packing: the forward pass that student and teacher share.

A shared prefix of the sequences (the chat template's system message, the teacher's context) is
packed once as segment 0; each sequence's suffix is a segment of its own:

    row        prefix prefix | a a a | b b b b | c c
    segment      0      0    | 1 1 1 | 2 2 2 2 | 3 3
    position     0      1    | 2 3 4 | 2 3 4 5 | 2 3

A token attends to segment 0 and to its own segment, up to its own position, so each sequence gets
the result of an unpacked forward pass. There is no padding. A constant prefix, such as the
teacher's, stays in a batch-1 KV cache that is never copied per sequence.

Shapes: T tokens of a row, N completion tokens, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

TokenIds = tuple[int, ...]

# Suffix tokens of one row. Large enough for efficient matrix products; small enough that attention
# between segments, which is masked but computed, stays cheap.
MAX_ROW_TOKENS = {"cpu": 256, "accelerator": 4096}


@dataclass(frozen=True)
class PackedRow:
    """Packed tokens; all tensors on the model's device."""

    ids: Tensor
    """Int[T], the tokens after the cached prefix."""
    positions: Tensor
    """Int[T], each token's position within its own sequence."""
    segments: Tensor
    """Int[T], 0 for the prefix, then 1, 2, ... per sequence."""


def common_prefix(prompts: Sequence[TokenIds]) -> TokenIds:
    """Return the longest common prefix that leaves each prompt a suffix of at least one token."""
    shortest = min(prompts, key=len)
    limit = len(shortest) - 1
    shared = next(
        (i for i in range(limit) if any(prompt[i] != shortest[i] for prompt in prompts)), limit
    )
    return shortest[: max(shared, 0)]


def pack(
    suffixes: Sequence[TokenIds], start: int, device: torch.device, prefix: TokenIds = ()
) -> PackedRow:
    """Pack suffixes, and an uncached prefix, into one row.

    Args:
        suffixes: Tokens of each sequence after the prefix.
        start: Length of the prefix, cached or not.
        device: Device of the row's tensors.
        prefix: The prefix's tokens, unless they are cached.
    """
    parts = [prefix, *suffixes]
    positions = [*range(len(prefix))]
    for suffix in suffixes:
        positions += range(start, start + len(suffix))
    segments = [number for number, part in enumerate(parts) for _ in part]
    return PackedRow(
        torch.tensor([token for part in parts for token in part], device=device),
        torch.tensor(positions, device=device),
        torch.tensor(segments, device=device),
    )


def attention_mask(query: PackedRow, key_positions: Tensor, key_segments: Tensor) -> Tensor:
    """Return Bool[1, 1, queries, keys], the keys that each query may attend to."""
    same = (key_segments == 0) | (key_segments == query.segments[:, None])
    return (same & (key_positions <= query.positions[:, None]))[None, None]


def hidden_states(
    model: PreTrainedModel,
    row: PackedRow,
    cache: DynamicCache | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Run the backbone over a packed row.

    Args:
        model: A causal language model, with its adapter enabled or disabled.
        row: The packed tokens.
        cache: The KV cache of segment 0; the row's keys and values are appended to it.
        mask: Bool[1, 1, T, cached + T]; None if only a prefix is cached.

    Returns:
        Float[T, D], final hidden states, the input of the output head.
    """
    if mask is None:
        cached = torch.arange(cache.get_seq_length() if cache else 0, device=row.ids.device)
        mask = attention_mask(
            row,
            torch.cat([cached, row.positions]),
            torch.cat([torch.zeros_like(cached), row.segments]),
        )
    output: Any = model.base_model(
        input_ids=row.ids[None],
        position_ids=row.positions[None],
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
    )
    states: Tensor = output.last_hidden_state[0]
    return states


def completion_states(
    model: PreTrainedModel,
    sequences: Sequence[tuple[TokenIds, TokenIds]],
    prefix: TokenIds,
    cache: DynamicCache | None = None,
) -> Tensor:
    """Return the hidden states that predict the completion tokens of each sequence.

    Args:
        model: A causal language model.
        sequences: Pairs of prompt and completion; every prompt starts with `prefix`.
        prefix: The shared prefix.
        cache: The prefix's KV cache; it is cropped back to the prefix before returning.

    Returns:
        Float[N, D], concatenated over sequences.
    """
    start = len(prefix)
    assert all(prompt[:start] == prefix and len(prompt) > start for prompt, _ in sequences)
    # The last completion token predicts no token.
    suffixes = [prompt[start:] + completion[:-1] for prompt, completion in sequences]
    row = pack(suffixes, start, model.device, () if cache else prefix)
    states = hidden_states(model, row, cache)
    if cache:
        cache.crop(start - cache.get_seq_length())
    offset = 0 if cache else start
    predicting = []
    for (prompt, completion), tokens in zip(sequences, suffixes, strict=True):
        offset += len(tokens)
        predicting.append(torch.arange(offset - len(completion), offset))
        assert len(prompt) - start + len(completion) - 1 == len(tokens)
    return states[torch.cat(predicting).to(states.device)]


def prefix_cache(model: PreTrainedModel, prefix: TokenIds) -> DynamicCache | None:
    """Compute the KV cache of a prefix, with batch size 1; None for an empty prefix."""
    if not prefix:
        return None
    cache = DynamicCache(config=model.config)
    row = pack([], 0, model.device, prefix)
    hidden_states(model, row, cache)
    return cache


def microbatches(
    sequences: Sequence[tuple[TokenIds, TokenIds]], prefix: int, device: torch.device
) -> list[slice]:
    """Split sequences, in order, into microbatches that fit one row each.

    Args:
        sequences: Pairs of prompt and completion.
        prefix: Tokens of the cached prefix of every prompt.
        device: Sets the token budget of a row; attention is quadratic in it.
    """
    budget = MAX_ROW_TOKENS["cpu" if device.type == "cpu" else "accelerator"]
    slices, start, used = [], 0, 0
    for index, (prompt, completion) in enumerate(sequences):
        length = len(prompt) - prefix + len(completion)
        if used and used + length > budget:
            slices.append(slice(start, index))
            start, used = index, 0
        used += length
    return [*slices, slice(start, len(sequences))] if sequences else []
