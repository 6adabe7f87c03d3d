"""More messages of the sort that a form is shown by: what is asked of it, in other words.

Sentences about a form ("What is a classifier?") are not what it is asked for, so the base goes on
with a list of the messages in its examples (`examples.py`).
"""

import random
from collections.abc import Sequence

from distill.context.examples import unquoted
from distill.model import encoder
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.student import Tokenizer
from store.text import similarity

SHOWN, TEMPERATURE = 8, 0.7
MIN_WORDS, MARGIN = 2, 16


def write_similar(
    sampler: LocalSampler,
    tokenizer: Tokenizer,
    shown: Sequence[str],
    drafts: int,
    avoid: Sequence[str],
) -> list[str]:
    """Let the model go on with a list of messages: more of the sort that the examples are.

    Args:
        sampler: Of the base; stops at a line end.
        tokenizer: The base's.
        shown: What the examples ask.
        drafts: How many to write; those that repeat one another, or anything of `avoid`, are left
            out.
        avoid: What must not be repeated, such as held-out prompts.
    """
    lengths = [len(tokenizer(each, add_special_tokens=False)["input_ids"]) for each in shown]
    patient = sampler.for_stage("write messages", max_tokens=max(lengths) + MARGIN)
    prompts = [_list(tokenizer, shown, number) for number in range(drafts)]
    written = [
        unquoted(tokenizer.decode(ids, skip_special_tokens=True))
        for ids in patient.sample(prompts, TEMPERATURE)
        if ids[-1] in sampler.stop_ids  # what does not end is cut off
    ]
    usable = [text for text in written if len(text.split()) >= MIN_WORDS]
    return similarity.without_near_duplicates(usable, [*avoid, *shown])


def _list(tokenizer: Tokenizer, shown: Sequence[str], number: int) -> TokenIds:
    """A list of some of the messages, in an order of its own, up to where the next one begins."""
    chance = random.Random(number)  # noqa: S311 - reproducible, not secret
    some = chance.sample(list(shown), min(len(shown), SHOWN))
    text = "\n".join(["Messages from different people:", *(f"- {one}" for one in some), "-"])
    return encoder.encode_text(tokenizer, text)
