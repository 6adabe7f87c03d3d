"""Turns list entries and table rows into sentences: "deposit: 80 euros" as people say it.

Questions are written about a context's statements, and their answers repeat the context verbatim;
but nobody answers with keys or table rows. The base completes a few-shot prompt. A draft is kept
only if it contains every word of the values and no other number.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from distill.context.statements import topic_words
from distill.model import encoder
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.student import Tokenizer
from store.text.words import digit_runs, words

_FEW_SHOT = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
LABELLED = re.compile(r"^[^.!?,]{1,60}: \S")
DRAFTS, TEMPERATURE, MAX_TOKENS = 3, 0.5, 48


def verbalise(
    sampler: LocalSampler, tokenizer: Tokenizer, statements: Sequence[str]
) -> dict[str, str]:
    """A sentence for each statement that is a list entry or a table row, if one is found.

    Args:
        sampler: A sampler of the base that stops at a line end.
        tokenizer: The base's.
        statements: Statements of a context; those that are sentences are skipped.
    """
    labelled = [statement for statement in statements if LABELLED.search(statement)]
    prompts = [_few_shot(tokenizer, statement) for statement in labelled]
    sampler = sampler.for_stage("say as sentences", max_tokens=MAX_TOKENS)
    drafts = [*sampler.sample(prompts, 0.0), *sampler.sample(prompts * DRAFTS, TEMPERATURE)]
    texts = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in drafts]
    best = {
        statement: best_of(texts[index :: len(labelled)], statement)
        for index, statement in enumerate(labelled)
    }
    return {statement: sentence for statement, sentence in best.items() if sentence}


def best_of(drafts: Sequence[str], statement: str) -> str | None:
    """The first faithful draft with the most words of the statement; None without any."""
    wanted = topic_words(statement)
    usable = [draft for draft in drafts if is_faithful(draft, statement)]
    return max(usable, key=lambda draft: len(wanted & topic_words(draft)), default=None)


def is_faithful(sentence: str, statement: str) -> bool:
    """Whether a sentence has all values of a statement, a word of each label, and nothing else.

    Other numbers and words from the few-shot examples show that something was added.
    """
    sentence_words = set(words(sentence.lower()))
    parts = [part.rpartition(": ") for part in statement.split("; ")]
    values = {word for _, _, value in parts for word in words(value.lower())}
    labels = [topic_words(label) for label, _, _ in parts]
    added = topic_words(sentence) - topic_words(statement)
    entries = " ".join(example["entry"] for example in _FEW_SHOT["examples"])
    return (
        sentence.endswith(".")
        and values <= sentence_words
        and digit_runs(sentence) <= digit_runs(statement)
        and not added & topic_words(entries)
        and all(label & topic_words(sentence) for label in labels if label)
    )


def _few_shot(tokenizer: Tokenizer, statement: str) -> TokenIds:
    examples = [
        f"List: {example['entry']}\nSentence: {example['sentence']}"
        for example in _FEW_SHOT["examples"]
    ]
    return encoder.encode_text(
        tokenizer,
        "\n\n".join([_FEW_SHOT["header"], *examples, f"List: {statement}\nSentence:"]),
    )
