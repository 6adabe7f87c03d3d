"""Batched decoding with a shared prefix: prefill, then one token per sequence and step.

    prefix    p p p p            one KV cache, shared by all sequences
    suffixes  . . a a a | a'     a KV cache with one row per sequence; prompts are left-padded, so
              . b b b b | b'     that all sequences append at the same position
              c c c c c | c'

Attention to the prefix is one matrix product over the queries of all sequences, and the prefix is
never copied per sequence (Hydragen, arXiv 2402.05099). A decoding step reads each weight once,
whether for one sequence or for sixty.

Shapes: B sequences, Q query tokens, H query heads, K key/value heads, G = H / K, P prefix tokens,
L suffix positions, E head size, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from distill.model import packing
from distill.model.packing import TokenIds

ATTENTION_NAME = "byheart"
# Attention scores per head of one prefill chunk, over all sequences: bounds its memory.
MAX_PREFILL_SCORES = 4_000_000


@dataclass(frozen=True)
class SharedPrefix:
    """The KV cache of the prefix that all sequences share."""

    tokens: int
    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer, Float[K, P, E]; empty without a prefix."""

    @staticmethod
    def compute(model: PreTrainedModel, prefix: TokenIds) -> "SharedPrefix":
        """Compute the KV cache of a prefix with the model's current weights."""
        return SharedPrefix.from_cache(prefix, packing.prefix_cache(model, prefix))

    @staticmethod
    def from_cache(prefix: TokenIds, cache: DynamicCache | None) -> "SharedPrefix":
        """Wrap a KV cache from `packing.prefix_cache`."""
        layers = [(layer.keys[0], layer.values[0]) for layer in cache.layers] if cache else []
        return SharedPrefix(len(prefix), layers)


class DecodeBatch:
    """Sequences that are decoded together, and their KV cache."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[TokenIds],
        prefix: SharedPrefix,
        max_new_tokens: int,
    ) -> None:
        """Allocate the batch.

        Args:
            model: Uses the attention implementation `ATTENTION_NAME`.
            prompts: Token ids; all begin with the prefix.
            prefix: The shared prefix.
            max_new_tokens: Tokens that may be appended to each prompt.
        """
        self.model = model
        self.start = prefix.tokens
        self.prefix_layers = prefix.layers
        self.suffixes = [prompt[self.start :] for prompt in prompts]
        self.longest = max(map(len, self.suffixes))
        padding = torch.tensor([self.longest - len(suffix) for suffix in self.suffixes])
        positions = torch.arange(self.longest + max_new_tokens)
        self.is_token = (positions >= padding[:, None]).to(model.device)  # (B, L)
        self.padding = padding.to(model.device)  # (B,)
        self.suffix_layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.used = 0

    def prefill(self) -> Tensor:
        """Return Float[B, D], the states that predict the first token after each prompt."""
        padded = [(0,) * (self.longest - len(suffix)) + suffix for suffix in self.suffixes]
        ids = torch.tensor(padded, device=self.model.device)
        chunk_tokens = MAX_PREFILL_SCORES // (len(padded) * (self.start + self.longest))
        *chunks, last = ids.split(max(chunk_tokens, 1), dim=1)
        for chunk in chunks:
            self._forward(chunk)
        return self._forward(last)

    def decode(self, tokens: Sequence[int]) -> Tensor:
        """Append one token per sequence; return Float[B, D], the states that predict the next."""
        return self._forward(torch.tensor(tokens, device=self.model.device)[:, None])

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these sequences."""
        indices = torch.tensor(rows, device=self.model.device)
        self.is_token, self.padding = self.is_token[indices], self.padding[indices]
        self.suffix_layers = {
            layer: (keys[indices], values[indices])
            for layer, (keys, values) in self.suffix_layers.items()
        }

    def _forward(self, ids: Tensor) -> Tensor:
        """Run the backbone over Int[B, Q] more tokens; return the last states, Float[B, D]."""
        end = self.used + ids.shape[1]
        places = torch.arange(self.used, end, device=ids.device)
        positions = (places - self.padding[:, None]).clamp(min=0) + self.start  # (B, Q)
        causal = torch.arange(end, device=ids.device) <= places[:, None]  # (Q, L)
        visible = causal & self.is_token[:, None, :end]  # (B, Q, L)
        output: Any = self.model.base_model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=visible[:, None],
            use_cache=False,
            decoding=self,
        )
        self.used = end
        states: Tensor = output.last_hidden_state[:, -1]
        return states

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scale: float
    ) -> Tensor:
        """Return Float[B, H, Q, E], attention of new queries to prefix and suffix.

        Args:
            layer: Index of the layer; its suffix cache receives the new keys and values.
            query: Float[B, H, Q, E].
            key: Float[B, K, Q, E].
            value: Float[B, K, Q, E].
            visible: Bool[B, 1, Q, L], the suffix positions that each query may attend to.
            scale: Factor on the attention scores.
        """
        keys, values = self._append(layer, key, value)  # (B, K, L, E)
        sequences, heads, tokens, size = query.shape
        groups = heads // keys.shape[1]
        # Grouped-query attention: the query heads of one key head are rows of one product.
        rows = query.reshape(sequences, -1, groups * tokens, size)  # (B, K, GQ, E)
        hidden = ~visible.repeat(1, 1, groups, 1)  # (B, 1, GQ, L)
        scores = (rows @ keys.mT).masked_fill_(hidden, torch.finfo(rows.dtype).min)
        if not self.prefix_layers:
            weights = (scores.float() * scale).softmax(-1).to(rows.dtype)
            return (weights @ values).reshape(query.shape)
        prefix_keys, prefix_values = self.prefix_layers[layer]  # (K, P, E)
        prefix_scores = _merge_batch(rows) @ prefix_keys.mT  # (K, B GQ, P)
        scores = torch.cat([_split_batch(prefix_scores, sequences), scores], -1)
        weights = (scores.float() * scale).softmax(-1).to(rows.dtype)
        prefix_tokens = prefix_keys.shape[1]
        suffix = weights[..., prefix_tokens:] @ values
        prefix = _merge_batch(weights[..., :prefix_tokens]) @ prefix_values
        return (suffix + _split_batch(prefix, sequences)).reshape(query.shape)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append to the layer's suffix cache; return all its keys and values, Float[B, K, L, E]."""
        if layer not in self.suffix_layers:
            shape = (*key.shape[:2], self.is_token.shape[1], key.shape[3])
            self.suffix_layers[layer] = key.new_zeros(shape), value.new_zeros(shape)
        end = self.used + key.shape[2]
        keys, values = self.suffix_layers[layer]
        keys[:, :, self.used : end] = key
        values[:, :, self.used : end] = value
        return keys[:, :, :end], values[:, :, :end]


def _merge_batch(rows: Tensor) -> Tensor:
    """Float[B, K, n, ...] -> Float[K, B n, ...], the rows of all sequences in one matrix."""
    return rows.transpose(0, 1).flatten(1, 2)


def _split_batch(rows: Tensor, sequences: int) -> Tensor:
    """Float[K, B n, ...] -> Float[B, K, n, ...], the inverse of `_merge_batch`."""
    return rows.unflatten(1, (sequences, -1)).transpose(0, 1)


def attention(  # noqa: PLR0913 - the signature that transformers calls
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    decoding: DecodeBatch | None = None,
    **rest: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Compute a layer's attention: of `decoding` if it is given, otherwise PyTorch's SDPA."""
    if decoding is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **rest
        )
        return result
    assert attention_mask is not None
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer: Any = module.layer_idx
    attended = decoding.attend(layer, query, key, value, attention_mask, scale)
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
