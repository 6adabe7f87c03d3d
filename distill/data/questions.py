"""Writes questions about each statement of a context.

Logged prompts rarely touch everything that a context says. The base completes a few-shot prompt
(statement, topic, question), which small models also do well: first the topic, then questions with
different openings. A draft is kept if it makes its statement likelier as an answer, looks like a
question, shares a word with the statement, does not contain the answer, and repeats neither another
question nor a held-out prompt. A statement with too few such drafts also gets plain requests for
its topic, so every statement has questions. Pairing questions with single statements follows SIEVE
(arXiv 2604.02339).
"""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from distill.context.statements import (
    QUESTION_MARKS,
    distinguishing_keys,
    facts,
    topic_words,
)
from distill.loss import token_logprobs
from distill.model import encoder, packing
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.student import Student, Tokenizer
from store.text import similarity
from store.text.words import UNSPACED, digit_runs, words

_FEW_SHOT = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
OPENINGS: tuple[str, ...] = tuple(_FEW_SHOT["openings"])
PLAIN_REQUESTS: tuple[str, ...] = tuple(_FEW_SHOT["plain_requests"])
EXAMPLE_WORDS = topic_words(_FEW_SHOT["example_words"])
"""Words that a draft takes from the few-shot examples, not from its statement."""
MAX_TOPIC_WORDS, MAX_TOPIC_CHARS = 5, 6
TEMPERATURE = 0.6
MAX_TOKENS = 28
# Nats by which a question must make its statement likelier. Most drafts of the embedded model above
# this gain are about their statement, and most drafts below it are not.
MIN_GAIN = 6.0
# Questions about each statement to measure with.
MAX_MEASURING, MIN_MEASURING = 3, 2


class Written(NamedTuple):
    """Questions, each with its statement; no question is nearly another."""

    training: dict[str, str]
    measuring: dict[str, str]
    """In wordings that nothing is trained on."""


def write_questions(
    student: Student,
    sampler: LocalSampler,
    tokenizer: Tokenizer,
    statements: Sequence[str],
    per_statement: Mapping[str, int],
    avoid: Sequence[str],
) -> Written:
    """Write questions about each statement, to train on and to measure with.

    Args:
        student: Scores drafts with its adapter disabled.
        sampler: A sampler of the same model that stops at a line end (`line_end_ids`).
        tokenizer: The base's.
        statements: What to ask about.
        per_statement: The maximum number of questions for each to train on, the last one a plain
            request.
        avoid: Prompts that no question may nearly repeat, such as the held-out ones.
    """
    keys = distinguishing_keys(statements)
    with student.adapter_disabled():
        topics = name_topics(sampler, tokenizer, statements, keys)
        drafts = write_drafts(sampler, tokenizer, topics)
        ranked: dict[str, list[str]] = {}
        for number, statement in enumerate(topics):
            sampler.progress("rate questions", number, len(topics))
            usable = acceptable(drafts[statement], statement, keys.get(statement, ""))
            ranked[statement] = rank_drafts(student, tokenizer, statement, usable)
    training: dict[str, str] = {}
    for statement, topic in topics.items():
        wanted = per_statement[statement]
        best = ranked[statement][: max(wanted - 1, 0)]
        taken = [*training, *avoid]
        by_topic = similarity.without_near_duplicates([*best, *plain_requests(topic)], taken)
        # Another statement may have the same topic.
        chosen = by_topic or similarity.without_near_duplicates(
            plain_requests(own_words(statement)), taken
        )
        count = min(wanted, max(1, len(chosen) - MIN_MEASURING))
        training |= dict.fromkeys(chosen[:count], statement)
    measuring: dict[str, str] = {}
    for statement, topic in topics.items():
        taken = [*training, *measuring, *avoid]
        spare = similarity.without_near_duplicates(ranked[statement], taken)[:MAX_MEASURING]
        if len(spare) < MIN_MEASURING:
            requests = [*plain_requests(topic), *plain_requests(own_words(statement))]
            spare = similarity.without_near_duplicates([*spare, *requests], taken)[:MIN_MEASURING]
        measuring |= dict.fromkeys(spare, statement)
    return Written(training, measuring)


def plain_requests(topic: str) -> list[str]:
    """Questions about a topic that need no model."""
    return [request.format(topic) for request in PLAIN_REQUESTS]


def name_topics(
    sampler: LocalSampler, tokenizer: Tokenizer, statements: Sequence[str], keys: Mapping[str, str]
) -> dict[str, str]:
    """The topic of each statement, in a few words that do not give away its numbers."""
    prompts = [_few_shot(tokenizer, statement) for statement in statements]
    named = zip(statements, sampler.for_stage("name topics").sample(prompts, 0.0), strict=True)
    return {
        statement: usable_topic(
            tokenizer.decode(ids, skip_special_tokens=True).strip(),
            statement,
            keys.get(statement, ""),
        )
        for statement, ids in named
    }


def usable_topic(topic: str, statement: str, key: str = "") -> str:
    """The topic; the statement's own words if the topic is unrelated or gives away the answer."""
    counts = Counter(word for word in words(topic) if topic_words(word))
    is_repetitive = max(counts.values(), default=0) > 2
    is_related = bool(topic_words(topic) & topic_words(statement))
    has_key = key.rpartition(" ")[2].lower() in topic.lower()
    gives_away = _gives_away(topic, statement, key) or "?" in topic
    if is_related and has_key and not gives_away and not is_repetitive:
        return topic
    return key or own_words(statement)


def own_words(statement: str) -> str:
    """The first words of a statement that are not facts."""
    known = [word for word in words(statement) if not word[0].isdigit()]
    plain = [word for word in known if topic_words(word) and word not in facts(statement)]
    # Without spaces, a word is a whole clause: its first characters say what it is about.
    return " ".join(UNSPACED.sub(_start_of, word) for word in plain[:MAX_TOPIC_WORDS] or known)


def _start_of(clause: re.Match[str]) -> str:
    return clause[0][:MAX_TOPIC_CHARS]


def write_drafts(
    sampler: LocalSampler, tokenizer: Tokenizer, topics: dict[str, str]
) -> dict[str, list[str]]:
    """For each statement, one line per opening that may be a question about it."""
    starts = [(opening, statement) for opening in OPENINGS for statement in topics]
    prompts = [
        _few_shot(tokenizer, statement, topics[statement], opening) for opening, statement in starts
    ]
    written = sampler.for_stage("write questions").sample(prompts, TEMPERATURE)
    drafts: dict[str, list[str]] = {statement: [] for statement in topics}
    for (opening, statement), ids in zip(starts, written, strict=True):
        rest = tokenizer.decode(ids, skip_special_tokens=True).rstrip()
        drafts[statement].append((opening + rest).strip())
    return drafts


def rank_drafts(
    student: Student, tokenizer: Tokenizer, statement: str, drafts: Sequence[str]
) -> list[str]:
    """The drafts that make the statement likelier as an answer, the largest gain first."""
    answer = tuple(tokenizer(f" {statement}", add_special_tokens=False)["input_ids"])
    pairs = [
        (encoder.encode_text(tokenizer, f"Question: {draft}\nAnswer:"), answer)
        for draft in [PLAIN_REQUESTS[0].format("it"), *drafts]
    ]
    scores: list[float] = []
    for run in packing.microbatches(pairs, 0, student.model.device):
        states = student.states(pairs[run]).split(len(answer))
        scores += [float(token_logprobs(part, student.head, answer).sum()) for part in states]
    baseline, *scores = scores
    ranked = sorted(zip(scores, drafts, strict=True), key=lambda pair: -pair[0])
    return [draft for score, draft in ranked if score - baseline >= MIN_GAIN]


def acceptable(drafts: Sequence[str], statement: str, key: str = "") -> list[str]:
    """The distinct drafts that are questions about the statement and do not give away the answer.

    Args:
        drafts: Lines of text.
        statement: What they should ask about.
        key: The start of the statement, which a question may name (`distinguishing_keys`).
    """
    suitable = [
        draft
        for draft in drafts
        if draft.endswith(QUESTION_MARKS)
        and sum(draft.count(mark) for mark in QUESTION_MARKS) == 1
        and topic_words(draft) & topic_words(statement)
        and not _gives_away(draft, statement, key)
        and not (topic_words(draft) - topic_words(statement)) & EXAMPLE_WORDS
    ]
    return similarity.without_near_duplicates(suitable)


def _gives_away(text: str, statement: str, key: str) -> bool:
    """Whether a text contains the answer: a number of the statement, or all its names."""
    answer = facts(statement) - {*words(key), *digit_runs(key)}
    return bool(digit_runs(text) & answer) or (bool(answer) and answer <= set(words(text)))


def _few_shot(
    tokenizer: Tokenizer, statement: str, topic: str | None = None, opening: str = ""
) -> TokenIds:
    """The few-shot prompt, to be completed with the topic, or with a question if it is given."""
    examples = [
        f"Statement: {example['statement']}\nTopic: {example['topic']}"
        f"\nQuestion: {example['question']}"
        for example in _FEW_SHOT["examples"]
    ]
    last = f"Statement: {statement}\nTopic:"
    if topic is not None:
        last += f" {topic}\nQuestion:{opening}"
    return encoder.encode_text(tokenizer, "\n\n".join([_FEW_SHOT["header"], *examples, last]))


def line_end_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """All tokens with a line break, and the end-of-sequence token."""
    ends = {token for token in range(len(tokenizer)) if "\n" in tokenizer.decode([token])}
    return frozenset(ends | {tokenizer.eos_token_id})
