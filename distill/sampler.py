"""Trajectories: completions sampled token by token.

They are sampled in this process, with the model's adapter on (the student) or off (the teacher, who
also writes questions). The prompts of a call are decoded together in packed rows (`packing.py`): no
padding, and a shared beginning is read once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from distill import packing
from distill.head import logits
from distill.packing import Ids, Row

# Attention in a packed row grows with the square of its tokens; the matrix products of a decode
# step are as efficient as they get at this many sequences.
SEQUENCES_AT_ONCE = 24
PROMPT_TOKENS_AT_ONCE = 2048


def rows(prompts: Sequence[Ids]) -> list[list[Ids]]:
    """Split prompts, in order, into what is decoded together."""
    shared = len(packing.common_prefix(prompts)) if prompts else 0
    parts: list[list[Ids]] = []
    tokens = 0
    for prompt in prompts:
        tokens += len(prompt) - shared
        if not parts or len(parts[-1]) == SEQUENCES_AT_ONCE or tokens > PROMPT_TOKENS_AT_ONCE:
            parts.append([])
            tokens = len(prompt) - shared
        parts[-1].append(prompt)
    return parts


class Sampler(Protocol):
    """Whoever samples completions."""

    def sample(
        self, prompts: Sequence[Ids], temperature: float, seeds: Sequence[int] | None = None
    ) -> list[Ids]:
        """One completion a prompt, the end token included; temperature 0 is greedy."""


@dataclass
class LocalSampler:
    """Samples with the weights of this process, whichever adapter state they are in."""

    model: PreTrainedModel
    stop_ids: frozenset[int]
    max_tokens: int
    generator: torch.Generator
    """Of seeds, on the CPU."""

    def seeds(self, count: int) -> list[int]:
        """A seed for each of the next `count` completions."""
        return torch.randint(2**62, (count,), generator=self.generator).tolist()  # type: ignore[no-any-return]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def sample(
        self, prompts: Sequence[Ids], temperature: float, seeds: Sequence[int] | None = None
    ) -> list[Ids]:
        """One completion a prompt, the end token included; temperature 0 is greedy.

        A completion follows from its own seed, whatever is sampled beside it.
        """
        left = iter(seeds or self.seeds(len(prompts)))
        completions: list[Ids] = []
        for part in rows(prompts):
            prefix = packing.common_prefix(part)
            cache = packing.prefix_cache(self.model, prefix)
            chances = [torch.Generator().manual_seed(next(left)) for _ in part]
            completions += self.decode(part, temperature, prefix, cache, chances)
        return completions

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def decode(
        self,
        prompts: Sequence[Ids],
        temperature: float,
        prefix: Ids,
        cache: DynamicCache | None,
        chances: Sequence[torch.Generator],
    ) -> list[Ids]:
        """Decode prompts that begin with `prefix`, whose cache is left as it was given."""
        cache = DynamicCache(config=self.model.config) if cache is None else cache
        row = packing.pack([prompt[len(prefix) :] for prompt in prompts], len(prefix), self.device)
        keys = _Keys.of_prefix(len(prefix), self.device)
        completions: list[list[int]] = [[] for _ in prompts]
        running = list(range(len(prompts)))
        last = torch.tensor([len(prompt) - len(prefix) for prompt in prompts]).cumsum(0) - 1
        while True:
            keys = keys.extended(row)
            mask = packing.visible(row, keys.positions, keys.segments)
            states = packing.hidden_states(self.model, row, cache, mask)
            drawn = [chances[index] for index in running]
            tokens = self._choose(states[last.to(self.device)], temperature, drawn)
            for index, token in zip(running, tokens, strict=True):
                completions[index].append(token)
            running = [index for index in running if not self._ended(completions[index])]
            if not running:
                break
            row = self._next_row(running, completions, prompts)
            last = torch.arange(len(running))
        cache.crop(len(prefix) - cache.get_seq_length())
        return [tuple(completion) for completion in completions]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def _choose(
        self, states: Tensor, temperature: float, chances: Sequence[torch.Generator]
    ) -> list[int]:
        scores = logits(states, self.model.get_output_embeddings().weight).float()  # (running, V)
        if temperature == 0:
            return [int(token) for token in scores.argmax(-1)]
        # By the inverse of the distribution function: one number a sequence, from its generator.
        below = (scores / temperature).softmax(-1).double().cumsum(-1)  # (running, V)
        places = torch.stack([torch.rand((), generator=one, dtype=torch.double) for one in chances])
        places = places.to(below.device) * below[:, -1]
        tokens: list[int] = torch.searchsorted(below, places[:, None], right=True)[:, 0].tolist()
        return tokens

    def _ended(self, completion: list[int]) -> bool:
        return completion[-1] in self.stop_ids or len(completion) >= self.max_tokens

    def _next_row(
        self, running: list[int], completions: list[list[int]], prompts: Sequence[Ids]
    ) -> Row:
        """The newest token of each running sequence, at its place after the prompt."""
        tokens = [completions[index][-1] for index in running]
        places = [len(prompts[index]) + len(completions[index]) - 1 for index in running]
        return Row(
            torch.tensor(tokens, device=self.device),
            torch.tensor(places, device=self.device),
            torch.tensor(running, device=self.device) + 1,
        )


@dataclass(frozen=True)
class _Keys:
    """Positions and segments of everything in the cache, for the attention mask."""

    positions: Tensor
    segments: Tensor

    @staticmethod
    def of_prefix(length: int, device: torch.device) -> "_Keys":
        positions = torch.arange(length, device=device)
        return _Keys(positions, torch.zeros_like(positions))

    def extended(self, row: Row) -> "_Keys":
        return _Keys(
            torch.cat([self.positions, row.positions]), torch.cat([self.segments, row.segments])
        )
