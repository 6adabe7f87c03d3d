"""Prompts of a run, as the student and as the teacher see them, and what each batch is made of.

A prompt is encoded twice with the same chat template: for the student `compose(messages, nothing)`,
for the teacher `compose(messages, context)`, which is what the gateway sends before and after the
adapter is live: where the client's own system text begins with the registered one, that is taken
out on both sides. Every random choice follows from (seed, step) alone, so a resumed run needs no
random state.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from rapidfuzz import fuzz, process

from config.sections import Distill
from distill.packing import Ids, common_prefix
from store.contexts import Context, Message, compose, message_text
from store.contexts import Messages as Messages

# Similarity (0 to 100) of their telling words from which two texts ask the same.
SAME = 90.0
# Words that make no other question of one: "How can I return a lamp?", "How do you return lamps?"
TELLING_NOTHING = frozenset(
    """
    a about am an and any are as at be been by can could d did do does for from had has have i if
    in into is it its just ll m may me my of on or our please re s shall should so some t that the
    their them then there these they this to up us ve was we were will with would you your
    """.split()  # noqa: SIM905 - prose is easier to read and change
)


# Multiples of it, taken modulo one, lie evenly everywhere.
GOLDEN = (math.sqrt(5) - 1) / 2


class PromptTooLong(Exception):
    """A prompt with its context does not fit the model; nothing is ever truncated."""


@dataclass(frozen=True)
class Prompt:
    """One conversation to answer, for both sides."""

    text: str
    """The last message, for people and for finding near-duplicates."""
    student_ids: Ids
    """What the student sees: no context."""
    teacher_ids: Ids
    """What the teacher sees: the context first."""
    prefix: Ids
    """Beginning of `teacher_ids` that all prompts of this context share."""
    replay: bool = False
    """Whether it is there to be left unchanged: an unrelated prompt, with an empty context."""


@dataclass(frozen=True)
class Encoder:
    """Turns messages into prompts of one context."""

    tokenizer: Any
    context: Context
    limit: int
    """Most tokens that a prompt may have beside the longest completion."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, as serving gives them: whether the model thinks, say."""

    def prompt(self, messages: Messages, replay: bool = False) -> Prompt:
        """Encode messages for both sides.

        Raises:
            PromptTooLong: The teacher's prompt does not fit; the message names the prompt.
        """
        context = Context() if replay else self.context
        teacher_ids = self.ids(messages, context)
        text = message_text(messages[-1])
        if len(teacher_ids) > self.limit:
            raise PromptTooLong(
                f"With its context the prompt {text[:80]!r} has {len(teacher_ids)} tokens; "
                f"{self.limit} fit the model beside the answer. Shorten the context or the prompt."
            )
        prefix = common_prefix([teacher_ids, self._opening(context)])
        return Prompt(text, self.ids(messages, Context()), teacher_ids, prefix, replay)

    def ids(self, messages: Messages, context: Context) -> Ids:
        """Token ids of the composed messages with the generation prompt, as serving sends them."""
        composed = compose(messages, context, elide=self.context.system_prompt)
        return tuple(
            self.tokenizer.apply_chat_template(
                [_plain(message) for message in composed],
                add_generation_prompt=True,
                return_dict=False,
                **self.template,
            )
        )

    def fits(self, messages: Messages) -> bool:
        """Whether the conversation fits the model beside the context."""
        return len(self.ids(messages, self.context)) <= self.limit

    def decode(self, completions: Sequence[Ids]) -> list[str]:
        """The completions as text, without special tokens."""
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in completions]

    def _opening(self, context: Context) -> Ids:
        """The tokens up to where a user's words begin."""
        one, other = (self.ids(user(text), context) for text in ("a", "0"))
        # An id that no prompt has: the opening may be shared to its end.
        return (*common_prefix([one, other]), -1)


def _plain(message: Message) -> Message:
    """The message with text as its content, as vLLM gives it to a chat template."""
    return {**message, "content": message_text(message)}


def text_ids(tokenizer: Any, text: str) -> Ids:  # noqa: ANN401
    """The tokens of a text by itself, behind the one with which the tokenizer begins any text."""
    begins = tokenizer.bos_token_id in tokenizer("")["input_ids"]
    start = (tokenizer.bos_token_id,) if begins else ()
    return (*start, *tokenizer(text, add_special_tokens=False)["input_ids"])


def user(text: str) -> Messages:
    """A conversation of one user message."""
    return ({"role": "user", "content": text},)


def asked(messages: Messages) -> str:
    """What the user said in a conversation, from its first turn: what makes it this one."""
    said = [message_text(message) for message in messages if message["role"] == "user"]
    return "\n".join(said)


def wordings(messages: Messages) -> list[str]:
    """What must not be repeated of a conversation: all that was asked, and its last question."""
    return list(dict.fromkeys([asked(messages), message_text(messages[-1])]))


def is_near(text: str, others: Sequence[str]) -> bool:
    """Whether `text` asks nearly what one of `others` does, in other order, spelling, small words.

    A telling word makes another question: "When do you open?" is not "Why do you open?".
    """
    telling, known = _telling(text), map(_telling, others)
    return process.extractOne(telling, known, scorer=fuzz.ratio, score_cutoff=SAME) is not None


@lru_cache(maxsize=4096)
def _telling(text: str) -> str:
    """The words that tell a question from another, sorted."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return " ".join(sorted(w for w in words if w not in TELLING_NOTHING) or words)


def without_near_duplicates(texts: Sequence[str], avoid: Sequence[str] = ()) -> list[str]:
    """The texts in order, without those that nearly repeat an earlier one or one of `avoid`."""
    kept: list[str] = []
    for text in texts:
        if not is_near(text, [*kept, *avoid]):
            kept.append(text)
    return kept


@dataclass(frozen=True)
class Share:
    """How many trajectories of a step are of each kind; they add up to the batch size."""

    guided: int
    on_policy: int
    guided_replay: int
    on_policy_replay: int


def share_of_step(step: int, settings: Distill) -> Share:
    """What step `step` (from 0) is made of.

    Guided trajectories hold their share, then fall linearly to zero, so that the last part of the
    run, `on_policy_tail`, is purely on-policy. Shares are kept over steps, not in each: a batch of
    four with an eighth of replay has one replay trajectory every other step.
    """
    replay = _due(step, settings.batch_size * settings.replay_share)
    fresh = settings.batch_size - replay
    share = settings.guided_share * _guidance_left(step, settings)
    # Rounded up as often as a share of its kind asks for, and not always in the same steps.
    up = (step + 1) * GOLDEN % 1
    guided, guided_replay = math.floor(fresh * share + up), math.floor(replay * share + up)
    return Share(guided, fresh - guided, guided_replay, replay - guided_replay)


def _due(step: int, each: float) -> int:
    return math.floor((step + 1) * each) - math.floor(step * each)


def _guidance_left(step: int, settings: Distill) -> float:
    alone = settings.steps * settings.on_policy_tail
    # Of a short run too, the last step is the student's own.
    end = settings.steps - (max(alone, 1.0) if alone else 0.0)
    start = end - alone
    return 1.0 if step < start else max(0.0, (end - step) / max(end - start, 1.0))


def draw(count: int, already: int, size: int, seed: str) -> list[int]:
    """The next `count` indices after `already` drawn: every epoch a new order of all `size`."""
    chosen = []
    for place in range(already, already + count):
        epoch, offset = divmod(place, size)
        order = list(range(size))
        random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311 - reproducible, not secret
        chosen.append(order[offset])
    return chosen
