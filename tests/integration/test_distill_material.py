"""What a run trains on, what it keeps apart, and what it asks about, on a tiny model."""

import math
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill import data, evaluate, material, preflight, prompts, replay, similar
from distill.data import PromptTooLong, user
from distill.parts import load_parts
from distill.pool import recite
from distill.spec import Parent
from store.anchors import Anchor
from store.contexts import Context
from tests.distill_rig import PROMPTS, SETTINGS, make_spec
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def test_held_out_prompts_are_in_nothing_that_is_trained_on(model, tmp_path):
    spec = make_spec(model, tmp_path, held_out=(user("why do you open"),))
    parts = load_parts(spec)

    prepared = material.prepare(spec, parts.encoder, parts.teacher, parts.sampler, lambda *_: None)

    texts = {item.prompt.text for item in prepared.guided} | {p.text for p in prepared.prompts}
    assert "Why do you open?" not in texts
    assert {"When do you open?", "How do you open?"} & texts
    held_out = [prompt.text for prompt in prepared.held_out]
    assert held_out[0] == "why do you open"
    assert not texts & set(held_out)


def test_served_prompts_that_the_context_leaves_alone_are_there_to_be_kept(
    model, tmp_path, monkeypatch
):
    spec = make_spec(model, tmp_path)
    parts = load_parts(spec)
    real = evaluate.token_kls
    monkeypatch.setattr(
        preflight.evaluate,
        "token_kls",
        lambda teacher, items: [
            values * (item.prompt.text != "Why do you open?")
            for values, item in zip(real(teacher, items), items, strict=True)
        ],
    )

    prepared = material.prepare(spec, parts.encoder, parts.teacher, parts.sampler, lambda *_: None)

    assert "Why do you open?" not in {prompt.text for prompt in prepared.prompts}
    (kept,) = [prompt for prompt in prepared.replay if prompt.text == "Why do you open?"]
    assert kept.teacher_ids == kept.student_ids
    assert "When do you open?" not in {prompt.text for prompt in prepared.replay}


@pytest.mark.parametrize(("bound", "with_context"), [(0.0, True), (1e9, False)])
def test_general_prompts_are_kept_as_the_base_answers_them_unless_the_context_is_about_them_too(
    model, tmp_path, monkeypatch, bound, with_context
):
    monkeypatch.setattr(preflight, "CONCERNS_EVERYTHING", bound)
    spec = make_spec(model, tmp_path)
    parts = load_parts(spec)

    prepared = material.prepare(spec, parts.encoder, parts.teacher, parts.sampler, lambda *_: None)

    assert {each.teacher_ids != each.student_ids for each in prepared.replay} == {with_context}
    assert all(each.teacher_ids == each.student_ids for each in prepared.unrelated)
    assert bool(prepared.unrelated) != with_context


@pytest.mark.parametrize("everything", [True, False])
def test_a_context_that_shows_a_form_is_asked_for_by_its_examples(
    model, tmp_path, monkeypatch, everything
):
    monkeypatch.setattr(preflight, "CONCERNS_EVERYTHING", 0.0 if everything else math.inf)
    monkeypatch.setattr(similar, "write_similar", lambda *_: ["You took twice the price!"])
    shown = "Sort messages.\nUser: I paid twice.\nAssistant: BILLING\nUser: Hi.\nAssistant: OTHER"
    spec = make_spec(model, tmp_path, context=Context(system_prompt=shown), prompts=())
    parts = load_parts(spec)

    asked = prompts.collect(spec, parts.encoder, parts.teacher, parts.sampler, ["twice paid"])

    own = {messages[0]["content"] for messages in asked.own}
    general = {messages[0]["content"] for messages in asked.general}
    assert {"Hi.", "You took twice the price!"} <= own
    assert asked.everything == everything
    assert asked.said == {**asked.said, "Hi.": "OTHER"}
    assert not {"I paid twice.", "BILLING"} & (own | set(asked.said.values()))
    assert general < set(replay.PROMPTS)
    assert not general & set(asked.unrelated)


def test_who_has_a_system_prompt_is_greeted_and_asked_who_it_is(model, tmp_path):
    spec = make_spec(model, tmp_path)
    parts = load_parts(spec)
    collect = partial(
        prompts.collect,
        encoder=parts.encoder,
        teacher=parts.teacher,
        sampler=parts.sampler,
        avoid=["Goodbye"],
    )

    greeted = {messages[0]["content"] for messages in collect(spec).own}
    plain = collect(replace(spec, context=Context(lessons=("We open at 7.",)))).own

    assert greeted & set(prompts.GREETINGS) == set(prompts.GREETINGS) - {"Goodbye!"}
    assert not {messages[0]["content"] for messages in plain} & set(prompts.GREETINGS)


def test_neither_all_of_a_held_out_conversation_nor_its_last_question_is_trained_on():
    hello = ({"role": "user", "content": "Hi, it is about a bike."},)
    last = user("How much is a tune-up?")
    avoid = data.wordings((*hello, *last))

    assert prompts.distinct([last, (*hello, *last), hello], avoid) == [hello]


def test_no_more_prompts_are_answered_than_the_steps_can_draw(model, tmp_path):
    words, things = ("When", "Where", "Why", "How", "Who"), ("lamps", "wool", "soap", "tea", "maps")
    asked = tuple(user(f"{word} {thing}?") for word in words for thing in things)
    settings = SETTINGS.model_copy(update={"steps": 2, "batch_size": 3})
    spec = make_spec(model, tmp_path, prompts=asked, settings=settings)
    parts = load_parts(spec)

    prepared = material.prepare(spec, parts.encoder, parts.teacher, parts.sampler, lambda *_: None)

    assert len(prepared.prompts) == 6


@pytest.mark.parametrize("logged", [PROMPTS, ()])
def test_the_gap_is_looked_for_in_what_people_asked_and_else_in_what_is_written(
    model, tmp_path, monkeypatch, logged
):
    spec = make_spec(model, tmp_path, prompts=logged, held_out=())
    parts = load_parts(spec)
    seen: list[str] = []

    def check(_encoder, _teacher, _sampler, asked):
        seen.extend(messages[0]["content"] for messages in asked)
        return []

    monkeypatch.setattr(preflight, "check", check)
    material.prepare(spec, parts.encoder, parts.teacher, parts.sampler, lambda *_: None)

    said = [messages[0]["content"] for messages in PROMPTS]
    assert seen == said if logged else seen and not set(said) & set(seen)


def test_prompts_that_do_not_fit_are_left_out_only_where_that_is_asked_for(model, tmp_path):
    long = user("When do you open? " * 100)
    spec = make_spec(model, tmp_path, prompts=(*PROMPTS, long))
    parts = load_parts(spec)

    def prepare(spec):
        return material.prepare(spec, parts.encoder, parts.teacher, parts.sampler, lambda *_: None)

    with pytest.raises(PromptTooLong, match="When do you open"):
        prepare(spec)
    prepared = prepare(replace(spec, drop_long=True))
    assert len(prepared.prompts) >= len(PROMPTS) - 1


def test_a_context_of_more_sentences_than_a_run_can_ask_about_is_an_error(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(prompts, "MAX_STATEMENTS", 20)
    lines = "\n".join(f"Item {number} costs {number} euros." for number in range(21))
    spec = make_spec(model, tmp_path, context=Context(system_prompt=lines))
    parts = load_parts(spec)
    encoder = replace(parts.encoder, limit=100_000)

    with pytest.raises(prompts.ContextTooLong, match="21 sentences"):
        material.prepare(spec, encoder, parts.teacher, parts.sampler, lambda *_: None)


@given(st.integers(0, 60), st.integers(-3, 40), st.randoms())
def test_holding_back_splits_off_a_third_at_most_and_loses_nothing(count, most, chance):
    conversations = [user(f"question {number}") for number in range(count)]

    kept, held = material.hold_back(conversations, most, chance)

    assert sorted([*kept, *held], key=str) == sorted(conversations, key=str)
    assert len(held) <= min(max(most, 0), -(-count // 3))


@given(st.integers(0, 9))
def test_what_is_held_back_is_of_every_part_of_the_context_and_not_one_sort_of_question(seed):
    numbers = range(500)  # five questions about each of a hundred statements
    conversations = [user(f"{number}") for number in numbers]

    _, held = material.hold_back(conversations, 32, random.Random(seed))

    places = [int(messages[0]["content"]) for messages in held]
    assert all(place // 16 in range(at - 1, at + 2) for at, place in enumerate(places))
    assert len({place % 5 for place in places}) > 2


def test_anchors_are_in_nothing_that_is_trained_on(model, tmp_path, monkeypatch):
    anchor = Anchor(user("When do you open"), {"contains": ["7"]})
    spec = make_spec(model, tmp_path, anchors=(anchor,))
    parts = load_parts(spec)
    monkeypatch.setattr(
        preflight, "check_anchors", lambda *_: evaluate.Anchored(spec.anchors, base=0, teacher=1)
    )

    prepared = material.prepare(spec, parts.encoder, parts.teacher, parts.sampler, lambda *_: None)

    asked = {item.prompt.text for item in prepared.guided} | {p.text for p in prepared.prompts}
    assert "When do you open?" not in asked | {prompt.text for prompt in prepared.held_out}
    assert asked & {messages[0]["content"] for messages in PROMPTS}


def test_a_recited_passage_is_learned_as_the_teacher_judges_it_to_its_end_or_the_limit(
    model, tmp_path
):
    parts = load_parts(make_spec(model, tmp_path))
    prompt = parts.encoder.prompt(user("When?"))

    whole, cut = (
        recite(parts.teacher, parts.encoder.tokenizer, [(prompt, "At 7.")], most)[0]
        for most in (100, 3)
    )

    tokenizer = parts.encoder.tokenizer
    assert tokenizer.decode(whole.completion[:-1]) == "At 7."
    assert whole.completion[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(cut.completion) == "At "
    [states] = parts.teacher.states([(prompt, whole.completion)])
    torch.testing.assert_close(whole.teacher, states)


@given(st.integers(0, 40), st.integers(0, 40), st.randoms())
def test_setting_prompts_aside_leaves_most_of_each_sort_to_train_on(general, own, chance):
    conversations = [user(f"question {number}") for number in range(general + own)]
    sorts = conversations[:general], conversations[general:]

    *kept, aside = material.set_aside(sorts[1], sorts[0], chance)

    assert sorted([*kept[0], *kept[1], *aside], key=str) == sorted(conversations, key=str)
    assert len(aside) <= material.MAX_VALIDATION
    assert all(4 * sum(each in aside for each in sort) <= len(sort) for sort in sorts)


def test_what_the_parent_knew_and_the_context_no_longer_says_is_asked_about(model, tmp_path):
    former = Context(lessons=("Our lamps cost 15 euros.", "The shop opens at 7 in the morning."))
    spec = make_spec(model, tmp_path, parent=Parent(tmp_path, former))
    parts = load_parts(replace(spec, parent=None))

    prepared = material.prepare(spec, parts.encoder, parts.teacher, parts.sampler, lambda *_: None)

    asked = [*prepared.prompts, *prepared.held_out, *(item.prompt for item in prepared.validation)]
    assert any("lamps" in prompt.text for prompt in asked)
    said = parts.encoder.decode([item.completion for item in prepared.guided])
    assert not any("15 euros" in text for text in said)
