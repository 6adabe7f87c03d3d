"""Many sequences in one row: the forward pass that student and teacher share.

Sequences that begin with the same tokens (the chat template's system message, the teacher's
context) keep them once, as segment 0; each sequence's own tokens are a segment of their own:

    row        prefix prefix | a a a | b b b b | c c
    segment      0      0    | 1 1 1 | 2 2 2 2 | 3 3
    position     0      1    | 2 3 4 | 2 3 4 5 | 2 3

A token sees segment 0 and its own segment, up to its own position. The result for each sequence is
what it would be alone. There is no padding, and a prefix that is constant (the teacher's) stays in
a batch-1 key/value cache that is never copied per sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

TokenIds = tuple[int, ...]

# Tokens of their own that sequences may have in one row. Large enough for efficient matrix
# products, small enough that attention between rows' strangers, masked but computed, stays cheap.
MAX_ROW_TOKENS = {"cpu": 256, "accelerator": 4096}


@dataclass(frozen=True)
class PackedRow:
    """Packed tokens; all tensors on the model's device."""

    ids: Tensor
    """Int[T], the tokens after what is cached."""
    positions: Tensor
    """Int[T], each token's position within its own sequence."""
    segments: Tensor
    """Int[T], 0 for the prefix, then one number a sequence."""


def common_prefix(prompts: Sequence[TokenIds]) -> TokenIds:
    """The longest shared beginning that leaves each prompt at least one token of its own."""
    shortest = min(prompts, key=len)
    limit = len(shortest) - 1
    shared = next(
        (i for i in range(limit) if any(prompt[i] != shortest[i] for prompt in prompts)), limit
    )
    return shortest[: max(shared, 0)]


def pack(
    own: Sequence[TokenIds], start: int, device: torch.device, prefix: TokenIds = ()
) -> PackedRow:
    """Pack the sequences' own tokens.

    Args:
        own: Tokens of each sequence after the prefix.
        start: Length of the prefix, cached or not.
        device: Where the row goes.
        prefix: The prefix's tokens, if they are not cached and have to be in the row.
    """
    parts = [prefix, *own]
    positions = [*range(len(prefix))]
    for sequence in own:
        positions += range(start, start + len(sequence))
    segments = [number for number, part in enumerate(parts) for _ in part]
    return PackedRow(
        torch.tensor([token for part in parts for token in part], device=device),
        torch.tensor(positions, device=device),
        torch.tensor(segments, device=device),
    )


def attention_mask(query: PackedRow, key_positions: Tensor, key_segments: Tensor) -> Tensor:
    """Bool[1, 1, queries, keys]: which keys each query token may attend to."""
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
        model: A causal language model, with or without an active adapter.
        row: The tokens.
        cache: Keys and values of a prefix of segment 0; the row's own are appended to it.
        mask: Bool[1, 1, T, cached + T], if more than a plain prefix is cached.

    Returns:
        Float[T, D], final hidden states, ready for the output head.
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
    """Hidden states that predict the completion tokens of each sequence.

    Args:
        model: A causal language model.
        sequences: Prompt and completion of each; every prompt begins with `prefix`.
        prefix: The shared beginning.
        cache: The prefix's keys and values; cropped back to the prefix before returning.

    Returns:
        Float[N, D], sequence after sequence: the states from which their tokens are predicted.
    """
    start = len(prefix)
    assert all(prompt[:start] == prefix and len(prompt) > start for prompt, _ in sequences)
    # The last completion token predicts nothing that is trained.
    own = [prompt[start:] + completion[:-1] for prompt, completion in sequences]
    row = pack(own, start, model.device, () if cache else prefix)
    states = hidden_states(model, row, cache)
    if cache:
        cache.crop(start - cache.get_seq_length())
    offset = 0 if cache else start
    kept = []
    for (prompt, completion), tokens in zip(sequences, own, strict=True):
        offset += len(tokens)
        kept.append(torch.arange(offset - len(completion), offset))
        assert len(prompt) - start + len(completion) - 1 == len(tokens)
    return states[torch.cat(kept).to(states.device)]


def prefix_cache(model: PreTrainedModel, prefix: TokenIds) -> DynamicCache | None:
    """Keys and values of a prefix, batch 1; None for an empty one."""
    if not prefix:
        return None
    cache = DynamicCache(config=model.config)
    row = pack([], 0, model.device, prefix)
    hidden_states(model, row, cache)
    return cache


def microbatches(
    sequences: Sequence[tuple[TokenIds, TokenIds]], prefix: int, device: torch.device
) -> list[slice]:
    """Split sequences into runs that fit one row each, in order.

    Args:
        sequences: Prompt and completion of each.
        prefix: Tokens at the start of each prompt that the row does not repeat.
        device: Decides how long a row may be: attention in it is quadratic.
    """
    budget = MAX_ROW_TOKENS["cpu" if device.type == "cpu" else "accelerator"]
    runs, start, used = [], 0, 0
    for index, (prompt, completion) in enumerate(sequences):
        length = len(prompt) - prefix + len(completion)
        if used and used + length > budget:
            runs.append(slice(start, index))
            start, used = index, 0
        used += length
    return [*runs, slice(start, len(sequences))] if sequences else []
