"""What prompts look like to both sides, what a batch is made of, and what is kept out of it."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from config.sections import Distill
from distill import data, passages, questions, replay
from distill.data import Encoder, PromptTooLong, user
from store.contexts import Context, compose
from tests.tiny import tiny_tokenizer

CONTEXT = Context(system_prompt="The shop opens at 7.", lessons=("Refunds take 3 days.",))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(tiny_tokenizer(), CONTEXT, limit=200)


def test_a_text_by_itself_begins_as_the_tokenizer_begins_any_text():
    plain, opened = tiny_tokenizer(), tiny_tokenizer()
    opened.add_special_tokens({"bos_token": "<s>"})
    opened.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", opened.bos_token_id)]
    )

    assert data.text_ids(plain, "Hi") == tuple(plain("Hi")["input_ids"])
    assert data.text_ids(opened, "Hi") == (opened.bos_token_id, *data.text_ids(plain, "Hi"))


def test_both_sides_are_rendered_with_the_arguments_that_serving_gives():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += "{% if not enable_thinking | default(true) %}(){% endif %}"
    plain, told = (
        Encoder(tokenizer, CONTEXT, limit=200, template=template)
        for template in ({}, {"enable_thinking": False})
    )

    one, other = (each.prompt(user("Hi")) for each in (plain, told))

    empty = data.text_ids(tokenizer, "()")
    assert other.student_ids == (*one.student_ids, *empty)
    assert other.teacher_ids == (*one.teacher_ids, *empty)


def test_the_teacher_sees_what_the_gateway_sends(encoder):
    messages = ({"role": "system", "content": "Be kind."}, *user("When do you open?"))

    prompt = encoder.prompt(messages)

    sent = encoder.tokenizer.apply_chat_template(
        compose(messages, CONTEXT), add_generation_prompt=True, return_dict=False
    )
    plain = encoder.tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_dict=False
    )
    assert prompt.teacher_ids == tuple(sent)
    assert prompt.student_ids == tuple(plain)


def test_a_client_that_sends_the_registered_prompt_too_is_seen_as_the_gateway_sends_it(encoder):
    own = {"role": "system", "content": f"{CONTEXT.system_prompt}\n\nBe kind."}

    prompt = encoder.prompt((own, *user("When do you open?")))

    assert encoder.tokenizer.decode(prompt.teacher_ids).count(CONTEXT.system_prompt) == 1
    assert CONTEXT.system_prompt not in encoder.tokenizer.decode(prompt.student_ids)
    assert "Be kind." in encoder.tokenizer.decode(prompt.student_ids)


def test_text_parts_and_absent_content_reach_the_template_as_text(encoder):
    parts = [{"type": "text", "text": "When do"}, {"type": "text", "text": "you open?"}]
    silent = {"role": "assistant"}

    prompt = encoder.prompt(({"role": "user", "content": parts}, silent, *user("Why?")))

    plain = [*user("When do\nyou open?"), {"role": "assistant", "content": ""}, *user("Why?")]
    assert prompt.student_ids == encoder.prompt(tuple(plain)).student_ids


def test_prompts_of_one_context_share_their_beginning(encoder):
    one, other = encoder.prompt(user("When do you open?")), encoder.prompt(user("Why?"))

    assert one.prefix == other.prefix
    assert "Refunds take 3 days." in encoder.tokenizer.decode(one.prefix)
    assert one.teacher_ids[: len(one.prefix)] == one.prefix


def test_replay_prompts_have_no_context(encoder):
    prompt = encoder.prompt(user("Hi"), replay=True)

    assert prompt.teacher_ids == prompt.student_ids


def test_a_prompt_that_does_not_fit_is_an_error_that_names_it(encoder):
    with pytest.raises(PromptTooLong, match="a very long story"):
        encoder.prompt(user("a very long story " * 20))


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("When do you open?", True),
        ("when do you open", True),
        ("When do you open up?", True),
        ("Why do you open?", False),
        ("When do you open on Sundays?", False),
        ("How much is a tune-up?", False),
        ("Can I ask when your shop opens?", False),
        ("When will you be open?", True),
    ],
)
def test_near_duplicates(text, near):
    assert data.is_near(text, ["What is your name?", "When do you open?"]) is near


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the return period for your shop?", "What's the return period of the shop?"),
        ("How can I return a lamp?", "How do I return lamps?"),
        ("Do you ship to Norway?", "Can you ship to Norway"),
    ],
)
def test_small_words_make_no_other_question(one, other):
    assert data.is_near(one, [other])


def test_near_duplicates_are_dropped_in_order_and_held_out_ones_never_kept():
    texts = ["When do you open?", "when do you OPEN", "Where are you?", "What does it cost?"]

    assert data.without_near_duplicates(texts, avoid=["what does it cost"]) == [
        "When do you open?",
        "Where are you?",
    ]


def test_a_run_ends_purely_on_policy():
    settings = Distill(steps=50, batch_size=8, guided_share=1.0, on_policy_tail=0.2)

    shares = [data.share_of_step(step, settings) for step in range(50)]

    assert all(
        share.guided + share.on_policy + share.guided_replay + share.on_policy_replay == 8
        for share in shares
    )
    assert all(share.on_policy == 0 for share in shares[:30])
    assert all(share.guided == share.guided_replay == 0 for share in shares[40:])
    falling = [share.guided + share.guided_replay for share in shares[30:40]]
    assert sum(falling[:5]) > sum(falling[5:])


@given(steps=st.integers(1, 300), tail=st.floats(0.001, 0.5), batch=st.integers(1, 32))
def test_the_last_step_of_a_run_of_any_length_is_the_student_s_own(steps, tail, batch):
    settings = Distill(steps=steps, batch_size=batch, on_policy_tail=tail)

    share = data.share_of_step(steps - 1, settings)

    assert share.guided == share.guided_replay == 0


@pytest.mark.parametrize("guided_share", [0.1, 0.25, 0.5])
def test_guidance_for_one_lesson_of_many_is_given(guided_share):
    settings = Distill(steps=100, guided_share=guided_share, replay_share=0.25, on_policy_tail=0.0)

    shares = [data.share_of_step(step, settings) for step in range(100)]

    assert sum(share.guided for share in shares) == pytest.approx(300 * guided_share, abs=3)
    assert sum(share.guided_replay for share in shares) == pytest.approx(100 * guided_share, abs=3)


def test_draws_go_through_everything_before_anything_again():
    drawn = [index for step in range(5) for index in data.draw(4, 4 * step, 10, "7")]

    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_no_prompt_is_replayed_that_is_near_another_or_near_one_that_is_measured_on():
    contexts = Path(__file__).parents[1] / "bench" / "contexts"
    checks = tomllib.loads((contexts / "retention.toml").read_text())["check"]
    measured = [*replay.HELD_OUT, *(asked for check in checks for asked in check["ask"])]

    assert data.without_near_duplicates(replay.PROMPTS, measured) == list(replay.PROMPTS)


def test_nothing_is_drawn_from_nothing():
    assert data.draw(0, 0, 0, "7") == []


def test_passages_are_sentences_and_lessons():
    context = Context(
        system_prompt="# Shop\n\nWe open at 7 in the morning. "
        "The clinic was founded by Dr. J. Falk.\n"
        "- Tyres are free on Fridays.\n2. 24 hours of notice are needed.\n* 10% off on Mondays.",
        lessons=("Refunds take 3 days.",),
    )

    assert passages.passages(context) == [
        "We open at 7 in the morning.",
        "The clinic was founded by Dr. J. Falk.",
        "Tyres are free on Fridays.",
        "24 hours of notice are needed.",
        "10% off on Mondays.",
        "Refunds take 3 days.",
    ]


@pytest.mark.parametrize(
    ("question", "accepted"),
    [
        ("How much is a tune-up?", True),
        ("A tune-up costs 48 euros.", False),
        ("What is a prime number?", False),
        ("What do I pay for a tune-up?", False),
    ],
)
def test_drafts_must_be_questions_about_the_passage_and_new(question, accepted):
    known = ["What do I pay for a tune-up"]

    assert questions.acceptable(question, "A tune-up costs 48 euros.", known) is accepted


def test_a_share_smaller_than_one_trajectory_is_kept_over_steps():
    settings = Distill(steps=50, batch_size=4, replay_share=0.125, on_policy_tail=0.0)

    shares = [data.share_of_step(step, settings) for step in range(16)]

    assert sum(share.guided_replay for share in shares) == 8
    assert {share.guided_replay for share in shares} == {0, 1}
