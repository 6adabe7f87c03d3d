"""Trajectories: completions sampled token by token.

They are sampled in this process, with the model's adapter on (the student) or off (the teacher, who
also writes questions). Many prompts are decoded together (`decoding.py`), those of a length beside
each other; a shared beginning is read once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.model import decoding, packing
from distill.model.decoding import DecodeBatch, SharedPrefix
from distill.model.logits import logits
from distill.model.packing import TokenIds

# On two cores a step of 64 sequences takes twice as long as one of 16.
MAX_BATCH_SEQUENCES = 64
# Tokens of their own whose keys and values are in memory at once: of an 8B model some 5 GB.
MAX_BATCH_TOKENS = 32_768
# Sequences that have ended are decoded along until they are this share of a group.
ENDED = 0.25


def batches_of_prompts(prompts: Sequence[TokenIds], prefix: int, room: int) -> list[list[int]]:
    """Split prompts, by their numbers, into what is decoded together: shorter ones first.

    Args:
        prompts: All of them begin with the same tokens.
        prefix: The number of these.
        room: Tokens that may come after each.
    """
    parts: list[list[int]] = []
    for number in sorted(range(len(prompts)), key=lambda each: len(prompts[each])):
        own = len(prompts[number]) - prefix + room
        full = len(parts[-1]) == MAX_BATCH_SEQUENCES if parts else True
        if full or (len(parts[-1]) + 1) * own > MAX_BATCH_TOKENS:
            parts.append([])
        parts[-1].append(number)
    return parts


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing."""


class Sampler(Protocol):
    """Whoever samples completions."""

    def sample(
        self, prompts: Sequence[TokenIds], temperature: float, seeds: Sequence[int] | None = None
    ) -> list[TokenIds]:
        """One completion a prompt, the end token included; temperature 0 is greedy."""


@dataclass
class LocalSampler:
    """Samples with the weights of this process, whichever adapter state they are in."""

    model: PreTrainedModel
    stop_ids: frozenset[int]
    max_tokens: int
    generator: torch.Generator
    """Of seeds, on the CPU."""
    progress: Callable[[str, int, int], None] = no_progress
    """Called with (stage, done, total) completions when work begins, and as they end."""
    stage: str = "sample"
    """What the completions are for, in the words of who watches."""

    def __post_init__(self) -> None:
        self.model.set_attn_implementation(decoding.NAME)

    def for_stage(self, stage: str, **changes: Any) -> "LocalSampler":  # noqa: ANN401 - any field
        """This sampler for other completions."""
        return replace(self, stage=stage, **changes)

    def seeds(self, count: int) -> list[int]:
        """A seed for each of the next `count` completions."""
        return torch.randint(2**62, (count,), generator=self.generator).tolist()  # type: ignore[no-any-return]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def sample(
        self,
        prompts: Sequence[TokenIds],
        temperature: float,
        seeds: Sequence[int] | None = None,
        shared: SharedPrefix | None = None,
    ) -> list[TokenIds]:
        """One completion a prompt, the end token included; temperature 0 is greedy.

        A completion follows from its own seed, whatever is sampled beside it.

        Args:
            prompts: Token ids.
            temperature: Of the sampling.
            seeds: One a prompt; None draws them.
            shared: What all prompts begin with, if it was read before.
        """
        if not seeds:  # a greedy one needs none, and what else is drawn must not depend on it
            seeds = self.seeds(len(prompts)) if temperature else [0] * len(prompts)
        chances = [torch.Generator().manual_seed(seed) for seed in seeds]
        if shared is None:
            shared = SharedPrefix.compute(
                self.model, packing.common_prefix(prompts) if prompts else ()
            )
        completions: dict[int, TokenIds] = {}
        for group in batches_of_prompts(prompts, shared.tokens, self.max_tokens):
            chosen = [prompts[number] for number in group]
            together = DecodeBatch(self.model, chosen, shared, self.max_tokens)
            ended = partial(self._tell, len(prompts), len(completions))
            drawn = [chances[number] for number in group]
            done = self._decode(together, temperature, drawn, ended)
            completions |= zip(group, done, strict=True)
        return [completions[number] for number in range(len(prompts))]

    def _tell(self, total: int, before: int, ended: int) -> None:
        self.progress(self.stage, before + ended, total)

    def _decode(
        self,
        together: DecodeBatch,
        temperature: float,
        chances: Sequence[torch.Generator],
        ended: Callable[[int], None],
    ) -> list[TokenIds]:
        """Decode until all sequences have ended; those that have go on for a while, no_report."""
        completions: list[list[int]] = [[] for _ in chances]
        rows = [*range(len(chances))]  # the sequence in each row
        left = rows
        ended(0)
        states = together.begin()
        while True:
            tokens = self._choose(states, temperature, [chances[number] for number in rows])
            for number, token in zip(rows, tokens, strict=True):
                if not self._ended(completions[number]):
                    completions[number].append(token)
            before = len(left)
            left = [row for row, number in enumerate(rows) if not self._ended(completions[number])]
            if len(left) < before:
                ended(len(chances) - len(left))
            if not left:
                return [tuple(completion) for completion in completions]
            if len(left) <= (1 - ENDED) * len(rows):
                together.keep(left)
                rows, tokens = [rows[row] for row in left], [tokens[row] for row in left]
            states = together.step(tokens)

    def _choose(
        self, states: Tensor, temperature: float, chances: Sequence[torch.Generator]
    ) -> list[int]:
        scores = logits(states, self.model.get_output_embeddings().weight)  # (rows, V)
        if temperature == 0:
            return [int(token) for token in scores.argmax(-1)]
        # By the inverse of the distribution function: one number a sequence, from its generator.
        below = (scores / temperature).softmax(-1).double().cumsum(-1)  # (rows, V)
        places = torch.stack([torch.rand((), generator=one, dtype=torch.double) for one in chances])
        places = places.to(below.device) * below[:, -1]
        tokens: list[int] = torch.searchsorted(below, places[:, None], right=True)[:, 0].tolist()
        return tokens

    def _ended(self, completion: list[int]) -> bool:
        return bool(completion) and (
            completion[-1] in self.stop_ids or len(completion) >= self.max_tokens
        )
