"""What a context tells by names, as sentences: "deposit: 80 euros" as people say it.

Questions are written about a context's statements, and its own words are recited as their answers;
but nobody answers in keys, or in rows of a table. The base completes a few-shot pattern, and of its
drafts only those count that say every word of what the names stand for, and no other number.
"""

import re
from collections.abc import Sequence

from distill.context.statements import topic_words
from distill.model import encoder
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.student import Tokenizer
from store.text.words import digit_runs, words

HEADER = "What lists and tables say, in whole sentences."
EXAMPLES = (
    ("museum: opening hours: monday: 10 to 6", "On Mondays the museum is open from 10 to 6."),
    ("prices: tickets for children: 6 pounds", "Tickets for children cost 6 pounds."),
    ("Ticket: Family; Price: 20 pounds", "The price of the Family ticket is 20 pounds."),
    ("Department: Complaints; Contact: Ms. Okafor", "The contact for complaints is Ms. Okafor."),
    (
        "guided tours: booked at least: 2 weeks ahead",
        "Guided tours must be booked at least 2 weeks ahead.",
    ),
    ("director: Paul Weiss", "The director is called Paul Weiss."),
)
NAMED = re.compile(r"^[^.!?,]{1,60}: \S")
DRAFTS, TEMPERATURE, MAX_TOKENS = 3, 0.5, 48


def in_sentences(
    sampler: LocalSampler, tokenizer: Tokenizer, statements: Sequence[str]
) -> dict[str, str]:
    """A sentence for each statement that is told by names, where one is found.

    Args:
        sampler: Of the base; stops at a line end.
        tokenizer: The base's.
        statements: Of a context; those that are sentences already are left out.
    """
    named = [each for each in statements if NAMED.search(each)]
    prompts = [_few_shot(tokenizer, each) for each in named]
    patient = sampler.for_stage("say as sentences", max_tokens=MAX_TOKENS)
    drafts = [*patient.sample(prompts, 0.0), *patient.sample(prompts * DRAFTS, TEMPERATURE)]
    said = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in drafts]
    best = {each: best_of(said[place :: len(named)], each) for place, each in enumerate(named)}
    return {each: sentence for each, sentence in best.items() if sentence}


def best_of(drafts: Sequence[str], statement: str) -> str | None:
    """The first of the faithful drafts that say most of the statement's names; None without any."""
    told = topic_words(statement)
    usable = [draft for draft in drafts if is_faithful(draft, statement)]
    return max(usable, key=lambda draft: len(told & topic_words(draft)), default=None)


def is_faithful(sentence: str, statement: str) -> bool:
    """Whether a sentence says all that the names stand for, of each something, and no more.

    More would be another number, or something out of the examples.
    """
    known = set(words(sentence.lower()))
    parts = [part.rpartition(": ") for part in statement.split("; ")]
    values = {word for _, _, value in parts for word in words(value.lower())}
    names = [topic_words(name) for name, _, _ in parts]
    added = topic_words(sentence) - topic_words(statement)
    return (
        sentence.endswith(".")
        and values <= known
        and digit_runs(sentence) <= digit_runs(statement)
        and not added & topic_words(" ".join(listed for listed, _ in EXAMPLES))
        and all(name & topic_words(sentence) for name in names if name)
    )


def _few_shot(tokenizer: Tokenizer, statement: str) -> TokenIds:
    shown = [f"List: {listed}\nSentence: {said}" for listed, said in EXAMPLES]
    return encoder.encode_text(
        tokenizer, "\n\n".join([HEADER, *shown, f"List: {statement}\nSentence:"])
    )
