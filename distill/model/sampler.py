"""Local sampling of completions, with the adapter enabled (student) or disabled (teacher).

Prompts are sorted by length and decoded in batches (`decoding.py`); a shared prefix is computed
once. The teacher's questions are sampled in the same way.
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

# On two cores, a decoding step of 64 sequences takes twice as long as one of 16.
MAX_BATCH_SEQUENCES = 64
# Suffix tokens in the KV cache of one batch: some 5 GB for an 8B model.
MAX_BATCH_TOKENS = 32_768
# Finished sequences are dropped from a batch once they are this share of it.
COMPACT_SHARE = 0.25


def decode_batches(
    prompts: Sequence[TokenIds], prefix: int, max_new_tokens: int
) -> list[list[int]]:
    """Group prompt indices into batches that are decoded together, shortest prompts first.

    Args:
        prompts: Token ids.
        prefix: Tokens of the prefix that all prompts share.
        max_new_tokens: Tokens that may be appended to each prompt.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        tokens = len(prompts[index]) - prefix + max_new_tokens
        is_full = not batches or len(batches[-1]) == MAX_BATCH_SEQUENCES
        if is_full or (len(batches[-1]) + 1) * tokens > MAX_BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""


class Sampler(Protocol):
    """Samples completions."""

    def sample(
        self, prompts: Sequence[TokenIds], temperature: float, seeds: Sequence[int] | None = None
    ) -> list[TokenIds]:
        """Return one completion per prompt, stop token included; temperature 0 is greedy."""


@dataclass
class LocalSampler:
    """Samples with this process's weights, with the adapter enabled or disabled by the caller."""

    model: PreTrainedModel
    stop_ids: frozenset[int]
    max_tokens: int
    generator: torch.Generator
    """Draws seeds; on the CPU."""
    progress: Callable[[str, int, int], None] = no_progress
    """Called with (stage, done, total) when a batch starts and as completions finish."""
    stage: str = "sample"
    """The stage to report progress for."""

    def __post_init__(self) -> None:
        self.model.set_attn_implementation(decoding.ATTENTION_NAME)

    def for_stage(self, stage: str, **changes: Any) -> "LocalSampler":  # noqa: ANN401 - any field
        """Return a copy for another stage, with changed fields."""
        return replace(self, stage=stage, **changes)

    def seeds(self, count: int) -> list[int]:
        """Draw a seed for each of the next `count` completions."""
        return torch.randint(2**62, (count,), generator=self.generator).tolist()  # type: ignore[no-any-return]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def sample(
        self,
        prompts: Sequence[TokenIds],
        temperature: float,
        seeds: Sequence[int] | None = None,
        prefix: SharedPrefix | None = None,
    ) -> list[TokenIds]:
        """Return one completion per prompt, stop token included; temperature 0 is greedy.

        A completion depends on its own seed only, not on the other sequences of its batch.

        Args:
            prompts: Token ids.
            temperature: Sampling temperature.
            seeds: One per prompt; None draws them.
            prefix: The KV cache of a prefix of all prompts; None computes it.
        """
        if not seeds:  # greedy decoding draws no seeds, so that later draws do not depend on it
            seeds = self.seeds(len(prompts)) if temperature else [0] * len(prompts)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        if prefix is None:
            shared = packing.common_prefix(prompts) if prompts else ()
            prefix = SharedPrefix.compute(self.model, shared)
        completions: dict[int, TokenIds] = {}
        for indices in decode_batches(prompts, prefix.tokens, self.max_tokens):
            batch_prompts = [prompts[index] for index in indices]
            batch = DecodeBatch(self.model, batch_prompts, prefix, self.max_tokens)
            report = partial(self._report, len(prompts), len(completions))
            batch_generators = [generators[index] for index in indices]
            batch_completions = self._decode(batch, temperature, batch_generators, report)
            completions |= zip(indices, batch_completions, strict=True)
        return [completions[index] for index in range(len(prompts))]

    def _report(self, total: int, before: int, finished: int) -> None:
        self.progress(self.stage, before + finished, total)

    def _decode(
        self,
        batch: DecodeBatch,
        temperature: float,
        generators: Sequence[torch.Generator],
        report: Callable[[int], None],
    ) -> list[TokenIds]:
        """Decode until all sequences have finished; finished ones are dropped in groups."""
        completions: list[list[int]] = [[] for _ in generators]
        rows = [*range(len(generators))]  # the sequence in each row of the batch
        unfinished = rows
        report(0)
        states = batch.prefill()
        while True:
            tokens = self._next_tokens(states, temperature, [generators[index] for index in rows])
            for index, token in zip(rows, tokens, strict=True):
                if not self._is_finished(completions[index]):
                    completions[index].append(token)
            before = len(unfinished)
            unfinished = [
                row for row, index in enumerate(rows) if not self._is_finished(completions[index])
            ]
            if len(unfinished) < before:
                report(len(generators) - len(unfinished))
            if not unfinished:
                return [tuple(completion) for completion in completions]
            if len(unfinished) <= (1 - COMPACT_SHARE) * len(rows):
                batch.select(unfinished)
                rows = [rows[row] for row in unfinished]
                tokens = [tokens[row] for row in unfinished]
            states = batch.decode(tokens)

    def _next_tokens(
        self, states: Tensor, temperature: float, generators: Sequence[torch.Generator]
    ) -> list[int]:
        """Sample one token per row of Float[B, D] states."""
        scores = logits(states, self.model.get_output_embeddings().weight)  # (B, V)
        if temperature == 0:
            return [int(token) for token in scores.argmax(-1)]
        # Inverse transform sampling: one uniform number per sequence, from its own generator.
        cdf = (scores / temperature).softmax(-1).double().cumsum(-1)  # (B, V)
        uniform = torch.stack(
            [torch.rand((), generator=generator, dtype=torch.double) for generator in generators]
        )
        uniform = uniform.to(cdf.device) * cdf[:, -1]
        tokens: list[int] = torch.searchsorted(cdf, uniform[:, None], right=True)[:, 0].tolist()
        return tokens

    def _is_finished(self, completion: list[int]) -> bool:
        return bool(completion) and (
            completion[-1] in self.stop_ids or len(completion) >= self.max_tokens
        )
