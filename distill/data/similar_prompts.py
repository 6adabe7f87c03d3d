"""Writes more prompts like those in the examples of a context that shows a format.

Questions about a format ("What is a classifier?") are not the prompts that it is for, so the base
continues a list of the prompts in its examples (`context/examples.py`).
"""

import random
from collections.abc import Sequence

from distill.context.labels import unquoted
from distill.model import encoder
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.student import Tokenizer
from store.text import similarity

LISTED, TEMPERATURE = 8, 0.7
MIN_WORDS, MARGIN_TOKENS = 2, 16


def write_similar(
    sampler: LocalSampler,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    drafts: int,
    avoid: Sequence[str],
) -> list[str]:
    """Let the base continue a list of prompts.

    Args:
        sampler: A sampler of the base that stops at a line end.
        tokenizer: The base's.
        prompts: The prompts of the examples.
        drafts: How many to write; near-duplicates of each other, of the examples or of `avoid` are
            dropped.
        avoid: Prompts that must not be repeated, such as held-out ones.
    """
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in prompts]
    sampler = sampler.for_stage("write messages", max_tokens=max(lengths) + MARGIN_TOKENS)
    lists = [_list(tokenizer, prompts, number) for number in range(drafts)]
    written = [
        unquoted(tokenizer.decode(ids, skip_special_tokens=True))
        for ids in sampler.sample(lists, TEMPERATURE)
        if ids[-1] in sampler.stop_ids  # without it, the text is cut off
    ]
    usable = [text for text in written if len(text.split()) >= MIN_WORDS]
    return similarity.without_near_duplicates(usable, [*avoid, *prompts])


def _list(tokenizer: Tokenizer, prompts: Sequence[str], number: int) -> TokenIds:
    """A list of some of the prompts in random order, up to where the next one starts."""
    rng = random.Random(number)  # noqa: S311 - reproducible, not secret
    some = rng.sample(list(prompts), min(len(prompts), LISTED))
    text = "\n".join(["Messages from different people:", *(f"- {item}" for item in some), "-"])
    return encoder.encode_text(tokenizer, text)
