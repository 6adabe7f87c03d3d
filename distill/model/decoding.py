"""Decoding: keys and values of sequences that grow together behind one shared beginning.

    prefix   p p p p            once, read by all sequences in one product
    own      . . a a a | a'     a row each, the prompts moved to the right so that all grow at
             . b b b b | b'     the same place
             c c c c c | c'

The product with the prefix is the same for a long context as a matrix product of all sequences'
queries, and nothing of it is copied for each (Hydragen, arXiv 2402.05099). A weight of the model is
read once a step, whether for one sequence or for sixty.

Shapes: B sequences, Q tokens a step, H heads of queries, K of keys, G = H / K, P prefix tokens, L
places of own tokens, E size of a head.
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

NAME = "byheart"
# Tokens that are read at once, times those that each of them may attend to.
PRODUCTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class SharedPrefix:
    """The beginning of all sequences, read once."""

    tokens: int
    layers: list[tuple[Tensor, Tensor]]
    """Float[K, P, E] of keys and of values, a pair for each layer; none without a beginning."""

    @staticmethod
    def compute(model: PreTrainedModel, prefix: TokenIds) -> "SharedPrefix":
        """Read a beginning with the model's weights as they are."""
        return SharedPrefix.from_cache(prefix, packing.prefix_cache(model, prefix))

    @staticmethod
    def from_cache(prefix: TokenIds, cache: DynamicCache | None) -> "SharedPrefix":
        """A beginning that was read before (`packing.prefix_cache`)."""
        layers = [(layer.keys[0], layer.values[0]) for layer in cache.layers] if cache else []
        return SharedPrefix(len(prefix), layers)


class DecodeBatch:
    """Some sequences while they are decoded: what each layer has to remember of them."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[TokenIds], shared: SharedPrefix, room: int
    ) -> None:
        """Prepare for prompts that begin with what is shared, and `room` tokens after them."""
        self.model = model
        self.start = shared.tokens
        self.shared = shared.layers
        self.prompts = [prompt[self.start :] for prompt in prompts]
        longest = max(map(len, self.prompts))
        pads = torch.tensor([longest - len(own) for own in self.prompts])
        places = torch.arange(longest + room)
        self.filled = (places >= pads[:, None]).to(model.device)  # (B, L)
        self.pads = pads.to(model.device)
        self.own: dict[int, tuple[Tensor, Tensor]] = {}
        self.used = 0

    def begin(self) -> Tensor:
        """Float[B, D]: the states that predict the first token after each prompt."""
        longest = max(map(len, self.prompts))
        padded = [(0,) * (longest - len(own)) + own for own in self.prompts]
        ids = torch.tensor(padded, device=self.model.device)
        most = PRODUCTS_AT_ONCE // (len(padded) * (self.start + longest))
        *earlier, last = ids.split(max(most, 1), dim=1)
        for piece in earlier:
            self._forward(piece)
        return self._forward(last)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Float[B, D]: the states that predict what comes after one more token of each."""
        return self._forward(torch.tensor(tokens, device=self.model.device)[:, None])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these sequences alone."""
        chosen = torch.tensor(rows, device=self.model.device)
        self.filled, self.pads = self.filled[chosen], self.pads[chosen]
        self.own = {
            layer: (keys[chosen], values[chosen]) for layer, (keys, values) in self.own.items()
        }

    def _forward(self, ids: Tensor) -> Tensor:
        """Run the backbone over Int[B, Q] more tokens."""
        places = torch.arange(self.used, self.used + ids.shape[1], device=ids.device)
        positions = (places - self.pads[:, None]).clamp(min=0) + self.start  # (B, Q)
        earlier = torch.arange(self.used + ids.shape[1], device=ids.device) <= places[:, None]
        visible = earlier & self.filled[:, None, : earlier.shape[1]]  # (B, Q, L)
        output: Any = self.model.base_model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=visible[:, None],
            use_cache=False,
            decoding=self,
        )
        self.used += ids.shape[1]
        states: Tensor = output.last_hidden_state[:, -1]
        return states

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scale: float
    ) -> Tensor:
        """Float[B, H, Q, E]: attention of Float[B, H, Q, E] to the prefix and to own tokens.

        Args:
            layer: Whose keys and values to add to, and to read.
            query: Of the new tokens.
            key: Float[B, K, Q, E], of the new tokens.
            value: Float[B, K, Q, E], of the new tokens.
            visible: Bool[B, 1, Q, L].
            scale: Of the products.
        """
        keys, values = self._stored(layer, key, value)  # (B, K, L, E)
        sequences, heads, tokens, size = query.shape
        groups = heads // keys.shape[1]
        # The queries of the heads that share keys are rows of one product.
        rows = query.reshape(sequences, -1, groups * tokens, size)  # (B, K, GQ, E)
        hidden = ~visible.repeat(1, 1, groups, 1)  # (B, 1, GQ, L)
        scores = (rows @ keys.mT).masked_fill_(hidden, torch.finfo(rows.dtype).min)
        if not self.shared:
            weights = (scores.float() * scale).softmax(-1).to(rows.dtype)
            return (weights @ values).reshape(query.shape)
        first, told = self.shared[layer]  # (K, P, E)
        before = _together(rows) @ first.mT  # (K, B GQ, P)
        scores = torch.cat([_apart(before, sequences), scores], -1)
        weights = (scores.float() * scale).softmax(-1).to(rows.dtype)
        own = weights[..., first.shape[1] :] @ values
        said = _together(weights[..., : first.shape[1]]) @ told
        return (own + _apart(said, sequences)).reshape(query.shape)

    def _stored(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of the own tokens, the new ones included."""
        if layer not in self.own:
            shape = (*key.shape[:2], self.filled.shape[1], key.shape[3])
            self.own[layer] = key.new_zeros(shape), value.new_zeros(shape)
        end = self.used + key.shape[2]
        for kept, new in zip(self.own[layer], (key, value), strict=True):
            kept[:, :, self.used : end] = new
        keys, values = self.own[layer]
        return keys[:, :, :end], values[:, :, :end]


def _together(rows: Tensor) -> Tensor:
    """Float[K, B n, ...] of Float[B, K, n, ...]: the rows of all sequences in one matrix."""
    return rows.transpose(0, 1).flatten(1, 2)


def _apart(rows: Tensor, sequences: int) -> Tensor:
    """Float[B, K, n, ...] of Float[K, B n, ...]."""
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
    """What a layer of a model asks: of the sequences that are decoded, and else PyTorch's own."""
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


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
