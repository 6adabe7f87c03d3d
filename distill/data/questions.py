"""Questions that the teacher writes: every lesson and passage is asked for in many wordings.

Logged prompts rarely touch everything a context says. The base completes a few-shot pattern
(statement, topic, question), which also small models do well: the topic first, then questions that
begin in different ways. Drafts are kept that make their passage likelier as an answer, look like
questions, share a content word with it, do not answer themselves, and repeat neither another
question nor a held-out prompt. Where a passage has few such drafts, plain requests for its topic
fill up, so that none is left out.
Pairing questions with single passages follows SIEVE (arXiv 2604.02339).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from distill.context import statements
from distill.context.statements import QUESTION_MARKS, facts, topic_words
from distill.loss import token_logprobs
from distill.model import encoder, packing
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.student import Student, Tokenizer
from store.text import similarity
from store.text.words import UNSPACED, digit_runs, words

HEADER = "Questions that people ask, each answered by the statement above it."
EXAMPLES = (
    (
        "The museum opens at ten in the morning.",
        "opening hours of the museum",
        "When can I come in?",
    ),
    (
        "Tickets for children cost 6 pounds.",
        "price of tickets for children",
        "How much does my son have to pay for his ticket?",
    ),
    (
        "Complaints are handled by Ms. Okafor.",
        "complaints",
        "Who should I talk to if I want to complain?",
    ),
    (
        "Guided tours must be booked two weeks ahead.",
        "booking of guided tours",
        "Is it enough to book a tour tomorrow?",
    ),
)
OF_EXAMPLES = topic_words("museum tickets children guided tours Okafor")
"""What a draft has from the pattern, and not from its passage."""
# How drafts begin. Left to itself (""), a small model begins nearly all of them in the same way.
OPENINGS = (
    *("",) * 4,
    " What",
    " When",
    " Where",
    " Who",
    " Which",
    " How much",
    " How long",
    " How many",
    " Can I",
    " Do you",
)
PLAIN_REQUESTS = (
    "What should I know about {}?",
    "Can you tell me about {}?",
    "I have a question about {}. What can you tell me?",
)
TOPIC_WORDS, TOPIC_CHARACTERS = 5, 6
TEMPERATURE = 0.6
MAX_TOKENS = 28
# Nats by which a question must make its passage likelier. Of the drafts of the embedded model those
# above are nearly all about their passage, and those below are mostly not.
MIN_GAIN = 6.0


def write_questions(
    student: Student,
    sampler: LocalSampler,
    tokenizer: Tokenizer,
    about: Sequence[str],
    per_passage: int,
    avoid: Sequence[str],
) -> dict[str, str]:
    """Write up to `per_passage` questions for each passage, the last of them a plain request.

    Args:
        student: Judges drafts with its adapter off.
        sampler: Of the same model; stops at a line end (`line_end_ids`).
        tokenizer: The base's.
        about: Passages.
        per_passage: Most questions kept for each.
        avoid: Prompts that no question may nearly repeat, such as the held-out ones.

    Returns:
        The passage of each question.
    """
    if not per_passage:
        return {}
    keys = statements.distinguishing_keys(about)
    with student.adapter_disabled():
        topics = name_topics(sampler, tokenizer, about, keys)
        drafts = write_drafts(sampler, tokenizer, topics)
        written: dict[str, str] = {}
        for number, (passage, topic) in enumerate(topics.items()):
            sampler.progress("rate questions", number, len(topics))
            usable = acceptable(drafts[passage], passage, keys.get(passage, ""))
            asked = best_first(student, tokenizer, passage, usable)[: per_passage - 1]
            by_topic = _new([*asked, *plain_requests(topic)], [*written, *avoid])
            # Another passage may have the same topic.
            chosen = by_topic or _new(plain_requests(own_words(passage)), [*written, *avoid])
            written |= dict.fromkeys(chosen[:per_passage], passage)
    return written


def plain_requests(topic: str) -> list[str]:
    """Ways to ask about a topic that need no model."""
    return [each.format(topic) for each in PLAIN_REQUESTS]


def _new(asked: Sequence[str], avoid: Sequence[str]) -> list[str]:
    return similarity.without_near_duplicates(asked, avoid)


def name_topics(
    sampler: LocalSampler, tokenizer: Tokenizer, about: Sequence[str], keys: Mapping[str, str]
) -> dict[str, str]:
    """What each passage is about, in a few words that do not give away its numbers."""
    prompts = [_few_shot(tokenizer, passage) for passage in about]
    named = zip(about, sampler.for_stage("name topics").sample(prompts, 0.0), strict=True)
    return {
        passage: usable_topic(
            tokenizer.decode(ids, skip_special_tokens=True).strip(), passage, keys.get(passage, "")
        )
        for passage, ids in named
    }


def usable_topic(topic: str, passage: str, key: str = "") -> str:
    """The topic, or the passage's own words where it is none of the passage's or gives it away."""
    said = Counter(each for each in words(topic) if topic_words(each))
    goes_round = max(said.values(), default=0) > 2
    shared = topic_words(topic) & topic_words(passage)
    told = _tells(topic, passage, key) or "?" in topic
    if shared and not told and not goes_round and key.rpartition(" ")[2].lower() in topic.lower():
        return topic
    return key or own_words(passage)


def own_words(passage: str) -> str:
    """The first words of a passage that are no facts."""
    known = [each for each in words(passage) if not each.isdigit()]
    plain = [each for each in known if topic_words(each) and each not in facts(passage)]
    # Where no spaces are written, a word is a whole clause: its beginning says what it is about.
    return " ".join(UNSPACED.sub(_begun, each) for each in plain[:TOPIC_WORDS] or known)


def _begun(clause: re.Match[str]) -> str:
    return clause[0][:TOPIC_CHARACTERS]


def write_drafts(
    sampler: LocalSampler, tokenizer: Tokenizer, topics: dict[str, str]
) -> dict[str, list[str]]:
    """For each passage, a line that may be a question about it with each of the openings."""
    asked = [(opening, passage) for opening in OPENINGS for passage in topics]
    prompts = [
        _few_shot(tokenizer, passage, topics[passage], opening) for opening, passage in asked
    ]
    written = sampler.for_stage("write questions").sample(prompts, TEMPERATURE)
    drafts: dict[str, list[str]] = {passage: [] for passage in topics}
    for (opening, passage), ids in zip(asked, written, strict=True):
        rest = tokenizer.decode(ids, skip_special_tokens=True).rstrip()
        drafts[passage].append((opening + rest).strip())
    return drafts


def best_first(
    student: Student, tokenizer: Tokenizer, passage: str, drafts: Sequence[str]
) -> list[str]:
    """The drafts that make the passage likelier as an answer, by how much they do."""
    answer = tuple(tokenizer(f" {passage}", add_special_tokens=False)["input_ids"])
    pairs = [
        (encoder.encode_text(tokenizer, f"Question: {each}\nAnswer:"), answer)
        for each in [PLAIN_REQUESTS[0].format("it"), *drafts]
    ]
    scores: list[float] = []
    for run in packing.microbatches(pairs, 0, student.model.device):
        states = student.states(pairs[run]).split(len(answer))
        scores += [float(token_logprobs(part, student.head, answer).sum()) for part in states]
    unasked, *scores = scores
    gains = sorted(zip(scores, drafts, strict=True), key=lambda each: -each[0])
    return [draft for score, draft in gains if score - unasked >= MIN_GAIN]


def acceptable(drafts: Sequence[str], passage: str, key: str = "") -> list[str]:
    """Distinct drafts that are questions about the passage and do not answer themselves.

    Args:
        drafts: Lines of text.
        passage: What they are to ask about.
        key: Beginning of the passage that a question may name (`passages.keys`).
    """
    asking = [
        draft
        for draft in drafts
        if draft.endswith(QUESTION_MARKS)
        and sum(draft.count(mark) for mark in QUESTION_MARKS) == 1
        and topic_words(draft) & topic_words(passage)
        and not _tells(draft, passage, key)
        and not (topic_words(draft) - topic_words(passage)) & OF_EXAMPLES
    ]
    return similarity.without_near_duplicates(asking)


def _tells(text: str, passage: str, key: str) -> bool:
    """Whether a text has a number of the passage, or all its names: then it asks for nothing."""
    told = facts(passage) - {*words(key), *digit_runs(key)}
    return bool(digit_runs(text) & told) or (bool(told) and told <= set(words(text)))


def _few_shot(
    tokenizer: Tokenizer, passage: str, topic: str | None = None, opening: str = ""
) -> TokenIds:
    """The pattern up to where the model goes on: with the topic, or with a question about it."""
    shown = [
        f"Statement: {statement}\nTopic: {about}\nQuestion: {question}"
        for statement, about, question in EXAMPLES
    ]
    last = f"Statement: {passage}\nTopic:"
    if topic is not None:
        last += f" {topic}\nQuestion:{opening}"
    text = "\n\n".join([HEADER, *shown, last])
    return encoder.encode_text(tokenizer, text)


def line_end_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """All tokens that end a line, and the end token."""
    ends = {i for i in range(len(tokenizer)) if "\n" in tokenizer.decode([i])}
    return frozenset(ends | {tokenizer.eos_token_id})
