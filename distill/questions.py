"""Questions that the teacher writes: every lesson and passage is asked for in many wordings.

Logged prompts rarely touch everything a context says. The base completes a few-shot pattern
(statement, question), which also small models do well. Of many drafts those are kept that make the
passage the likeliest answer, look like questions, share a content word with their passage, and
repeat neither another question nor a held-out prompt.
Pairing questions with single passages follows SIEVE (arXiv 2604.02339).
"""

import re
from collections.abc import Sequence

from distill import data, packing
from distill.loss import token_logprobs
from distill.packing import Ids
from distill.sampler import LocalSampler
from distill.student import Student, Tokenizer
from store.contexts import Context

HEADER = "Questions that people ask, each answered by the statement above it."
EXAMPLES = (
    ("The museum opens at ten in the morning.", "When can I come in?"),
    ("Tickets for children cost 6 pounds.", "How much does my son have to pay?"),
    ("Complaints are handled by Ms. Okafor.", "Who should I talk to if I want to complain?"),
    ("Guided tours must be booked two weeks ahead.", "Is it enough to book a tour tomorrow?"),
)
# How drafts begin. Left to itself (""), a small model begins nearly all of them in the same way.
OPENINGS = (
    *("",) * 5,
    " What",
    " When",
    " Where",
    " Who",
    " Which",
    " How much",
    " How long",
    " How many",
)
BLUNT_WORDS = 5
TEMPERATURE = 0.6
MAX_TOKENS = 20
SHORT_PASSAGE_CHARS = 24
# Headings, quotes, bullets and numbers of lists; a number that a sentence begins with stays.
MARKUP = re.compile(r"^\s*(?:#+|>|[-*+•]|\d+[.)])\s+")
STOP_WORDS = frozenset(
    """
    the and for are with our you your that this from have has not only per can all any its was
    were will what when where who how does which much many long is it in on at to of a an be by
    or as do i my me we us if no so up
    """.split()  # noqa: SIM905 - prose is easier to read and change
)


def passages(context: Context) -> list[str]:
    """What questions are asked about: each lesson, each line or sentence of a system prompt."""
    lines = (context.system_prompt or "").splitlines()
    pieces = [piece for line in lines for piece in _sentences(line)]
    return [piece for piece in [*pieces, *context.lessons] if content_words(piece)]


def _sentences(line: str) -> list[str]:
    text = MARKUP.sub("", line).strip()
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
    joined: list[str] = []
    for part in parts:
        # A split after an abbreviation ("Dr.") leaves a stump that belongs to what follows.
        if joined and len(joined[-1]) < SHORT_PASSAGE_CHARS:
            joined[-1] += f" {part}"
        else:
            joined.append(part)
    return [part for part in joined if part]


def content_words(text: str) -> set[str]:
    """Lower-case word stems (first five letters) that carry meaning."""
    words = re.findall(r"[^\W_]+", text.lower())
    return {word[:5] for word in words if len(word) > 1 and word not in STOP_WORDS}


def write_questions(
    student: Student,
    sampler: LocalSampler,
    tokenizer: Tokenizer,
    about: Sequence[str],
    per_passage: int,
    avoid: Sequence[str],
) -> list[str]:
    """Write up to `per_passage` questions for each passage, and one where no draft is any good.

    Args:
        student: Judges drafts with its adapter off.
        sampler: Of the same model; stops at a line end (`line_end_ids`).
        tokenizer: The base's.
        about: Passages.
        per_passage: Most questions kept for each.
        avoid: Prompts that no question may nearly repeat, such as the held-out ones.
    """
    drafts: dict[str, list[str]] = {passage: [] for passage in about}
    asked = [(opening, passage) for opening in OPENINGS for passage in about if per_passage]
    with student.adapter_off():
        prompts = [_few_shot(tokenizer, passage, opening) for opening, passage in asked]
        for (opening, passage), draft in zip(
            asked, sampler.sample(prompts, TEMPERATURE), strict=True
        ):
            rest = tokenizer.decode(draft, skip_special_tokens=True).rstrip()
            drafts[passage].append((opening + rest).strip())
        written: list[str] = []
        for passage in about:
            kept: list[str] = []
            for question in best_first(student, tokenizer, passage, drafts[passage]):
                if len(kept) < per_passage and acceptable(
                    question, passage, [*written, *kept, *avoid]
                ):
                    kept.append(question)
            written += kept or ([blunt_question(passage)] if per_passage else [])
    return data.without_near_duplicates(written, avoid)


def blunt_question(passage: str) -> str:
    """A question about a passage for which no better one was found, so that none is left out."""
    words = re.findall(r"[^\W\d_]+", passage)
    about = [word for word in words if content_words(word)][:BLUNT_WORDS] or words
    return f"What should I know about {' '.join(about)}?"


def best_first(
    student: Student, tokenizer: Tokenizer, passage: str, drafts: Sequence[str]
) -> list[str]:
    """Distinct drafts, those first that make the passage the likeliest answer."""
    distinct = [draft for draft in dict.fromkeys(drafts) if acceptable(draft, passage, ())]
    answer = tuple(tokenizer(f" {passage}", add_special_tokens=False)["input_ids"])
    pairs = [
        (
            tuple(tokenizer(f"Question: {draft}\nAnswer:", add_special_tokens=False)["input_ids"]),
            answer,
        )
        for draft in distinct
    ]
    scores: list[float] = []
    for run in packing.passes(pairs, 0, student.model.device):
        states = student.states(pairs[run]).split(len(answer))
        scores += [float(token_logprobs(part, student.head, answer).sum()) for part in states]
    order = sorted(range(len(distinct)), key=lambda index: -scores[index])
    return [distinct[index] for index in order]


def acceptable(question: str, passage: str, others: Sequence[str]) -> bool:
    """Whether a draft is a question about the passage, does not answer itself, and is new."""
    return (
        question.endswith("?")
        and question.count("?") == 1
        and bool(content_words(question) & content_words(passage))
        and not numbers(question) & numbers(passage)
        and not data.is_near(question, others)
    )


def numbers(text: str) -> set[str]:
    """The numbers in a text, as they are written."""
    return set(re.findall(r"\d+", text))


def passage_of(question: str, about: Sequence[str]) -> str | None:
    """The passage that shares most content words with a question; None if none shares any."""
    words = content_words(question)
    best = max(about, key=lambda passage: len(words & content_words(passage)), default=None)
    return best if best is not None and words & content_words(best) else None


def _few_shot(tokenizer: Tokenizer, passage: str, opening: str) -> Ids:
    shown = "\n\n".join(
        f"Statement: {statement}\nQuestion: {question}" for statement, question in EXAMPLES
    )
    text = f"{HEADER}\n\n{shown}\n\nStatement: {passage}\nQuestion:{opening}"
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def line_end_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """All tokens that end a line, and the end token."""
    ends = {i for i in range(len(tokenizer)) if "\n" in tokenizer.decode([i])}
    return frozenset(ends | {tokenizer.eos_token_id})
