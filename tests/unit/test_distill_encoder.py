"""Prompts as the student and the teacher read them."""

import pytest
from tokenizers.processors import TemplateProcessing

from distill.context import statements
from distill.model.encoder import Encoder, PromptRejected, PromptTooLong, encode_text, user
from store.contexts import Context, compose
from tests.support.tiny import tiny_tokenizer

CONTEXT = Context(system_prompt="The shop opens at 7.", lessons=("Refunds take 3 days.",))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(tiny_tokenizer(), CONTEXT, max_prompt_tokens=200)


def test_a_plain_text_begins_with_the_tokenizers_bos_token_if_it_has_one():
    plain, opened = tiny_tokenizer(), tiny_tokenizer()
    opened.add_special_tokens({"bos_token": "<s>"})
    opened.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", opened.bos_token_id)]
    )

    assert encode_text(plain, "Hi") == tuple(plain("Hi")["input_ids"])
    assert encode_text(opened, "Hi") == (opened.bos_token_id, *encode_text(plain, "Hi"))


def test_student_and_teacher_prompts_use_the_template_arguments_of_serving():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += "{% if not enable_thinking | default(true) %}(){% endif %}"
    plain, told = (
        Encoder(tokenizer, CONTEXT, max_prompt_tokens=200, template=template)
        for template in ({}, {"enable_thinking": False})
    )

    one, other = (each.prompt(user("Hi")) for each in (plain, told))

    empty = encode_text(tokenizer, "()")
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


def test_a_registered_prompt_that_the_client_sends_too_is_in_the_teachers_prompt_once(encoder):
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


def test_prompts_of_one_context_share_a_prefix(encoder):
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


def test_statements_are_sentences_and_lessons():
    context = Context(
        system_prompt="# Shop\n\nWe open at 7 in the morning. "
        "The clinic was founded by Dr. J. Falk.\n"
        "- Tyres are free on Fridays.\n2. 24 hours of notice are needed.\n* 10% off on Mondays.",
        lessons=("Refunds take 3 days.",),
    )

    assert statements.split_statements(context) == [
        "We open at 7 in the morning.",
        "The clinic was founded by Dr. J. Falk.",
        "Tyres are free on Fridays.",
        "24 hours of notice are needed.",
        "10% off on Mondays.",
        "Refunds take 3 days.",
    ]


def test_a_conversation_that_the_template_rejects_is_an_error_that_names_it():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += (
        "{% if messages | length > 2 %}{{ raise_exception('no') }}{% endif %}"
    )
    encoder = Encoder(tokenizer, CONTEXT, max_prompt_tokens=200)
    twice = (*user("Anyone there?"), *user("Hello?"))

    with pytest.raises(PromptRejected, match=r"rejects the prompt 'Hello\?': no"):
        encoder.prompt(twice)
    assert not encoder.fits(twice)
    assert encoder.fits(twice[:1])
