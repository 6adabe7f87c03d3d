"""Context dropout: which part of the context the student sees."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import dropout
from distill.context.parts import ContextParts
from distill.model.encoder import Encoder, user
from store.contexts import Context
from tests.support.tiny import tiny_tokenizer
from tests.support.tiny_run import SETTINGS

LESSONS = tuple(f"Lesson {number} of ten." for number in range(10))
PARTS = ContextParts.of(Context("We sell lamps.\nWe open at 7.", LESSONS), tiny_tokenizer())
ENCODER = Encoder(tiny_tokenizer(), PARTS.context, max_prompt_tokens=1000)
PROMPTS = [ENCODER.prompt(user(f"Question {number}?")) for number in range(8)]


def shown(share: float, step: int, seed: int = 0) -> list:
    settings = SETTINGS.model_copy(update={"partial_context_share": share, "seed": seed})
    return dropout.with_parts(settings, ENCODER, PARTS, PROMPTS, step, "on_policy")


@given(st.integers(0, 1000))
def test_without_a_share_the_student_sees_nothing_of_the_context(step):
    assert shown(0.0, step) == PROMPTS


@given(step=st.integers(0, 1000), share=st.floats(0, 1))
def test_the_teachers_prompt_stays_and_the_choice_follows_from_seed_and_step(step, share):
    prompts = shown(share, step)

    assert [prompt.teacher_ids for prompt in prompts] == [item.teacher_ids for item in PROMPTS]
    assert prompts == shown(share, step)


def test_every_statement_is_shown_and_left_out_and_sometimes_all_are_shown():
    parts = [
        dropout.draw_part(
            PARTS, SETTINGS.model_copy(update={"partial_context_share": 0.5}), f"{number}"
        )
        for number in range(2000)
    ]

    shares = Counter(bool(part) for part in parts)
    assert 0.45 < shares[True] / len(parts) < 0.55
    whole = sum(part == PARTS.context for part in parts)
    assert 0.5 < whole / (shares[True] * dropout.WHOLE_SHARE) < 1.5
    seen = Counter(lesson for part in parts if part != PARTS.context for lesson in part.lessons)
    assert set(seen) == set(LESSONS)
    assert max(seen.values()) < 1.5 * min(seen.values())


@given(st.sets(st.integers(0, 11)))
def test_a_part_of_the_context_has_its_statements_in_their_order(kept):
    part = PARTS.subset(kept)

    lines = (part.system_prompt or "").splitlines()
    assert [*lines, *part.lessons] == [PARTS.statements[index].text for index in sorted(kept)]


@pytest.mark.parametrize("context", [Context("We open at 7."), Context(lessons=("We open at 7.",))])
def test_of_a_context_of_one_statement_the_student_sees_all_or_nothing(context):
    parts = ContextParts.of(context, tiny_tokenizer())
    settings = SETTINGS.model_copy(update={"partial_context_share": 0.5})

    drawn = {dropout.draw_part(parts, settings, str(number)) for number in range(50)}

    assert drawn == {context, Context()}
