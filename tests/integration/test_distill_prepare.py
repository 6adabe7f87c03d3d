"""What a run trains on, what it keeps apart, and what it asks about, on a tiny model."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from distill.data import collect, prepare, similar_prompts
from distill.data.collect import Question
from distill.evaluate import general_prompts, measure, preflight
from distill.model.encoder import PromptTooLong, prompt_texts, user
from distill.model.trajectories import Trajectory
from distill.roles import load_roles
from distill.spec import Parent
from store.anchors import Anchor
from store.contexts import Context
from tests.support.tiny import save_tiny_model
from tests.support.tiny_run import PROMPTS, SETTINGS, make_spec


def text_of(question: Question) -> str:
    return question.messages[-1]["content"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def test_held_out_prompts_are_in_nothing_that_is_trained_on(model, tmp_path):
    spec = make_spec(model, tmp_path, held_out=(user("why do you open"),))
    roles = load_roles(spec)

    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )

    texts = {item.prompt.text for item in prepared.teacher_sampled} | {
        p.text for p in prepared.prompts
    }
    assert "Why do you open?" not in texts
    assert {"When do you open?", "How do you open?"} & texts
    held_out = [prompt.text for prompt in prepared.held_out]
    assert held_out[0] == "why do you open"
    assert not texts & set(held_out)


def test_served_prompts_that_the_context_leaves_alone_are_there_to_be_kept(
    model, tmp_path, monkeypatch
):
    spec = make_spec(model, tmp_path)
    roles = load_roles(spec)
    real = measure.token_kls
    monkeypatch.setattr(
        measure,
        "token_kls",
        lambda teacher, items: [
            values * (item.prompt.text != "Why do you open?")
            for values, item in zip(real(teacher, items), items, strict=True)
        ],
    )

    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )

    assert "Why do you open?" not in {prompt.text for prompt in prepared.prompts}
    (kept,) = [prompt for prompt in prepared.replay if prompt.text == "Why do you open?"]
    assert kept.teacher_ids == kept.student_ids
    assert "When do you open?" not in {prompt.text for prompt in prepared.replay}


@pytest.mark.parametrize(("bound", "with_context"), [(0.0, True), (1e9, False)])
def test_general_prompts_are_kept_as_the_base_answers_them_unless_the_context_is_about_them_too(
    model, tmp_path, monkeypatch, bound, with_context
):
    monkeypatch.setattr(preflight, "general_threshold", lambda _: bound)
    spec = make_spec(model, tmp_path)
    roles = load_roles(spec)

    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )

    for general in (prepared.replay, prepared.unrelated):
        assert {each.teacher_ids != each.student_ids for each in general} == {with_context}


@pytest.mark.parametrize("everything", [True, False])
def test_a_context_that_shows_a_form_is_asked_for_by_its_examples(
    model, tmp_path, monkeypatch, everything
):
    monkeypatch.setattr(preflight, "general_threshold", lambda _: 0.0 if everything else math.inf)
    monkeypatch.setattr(similar_prompts, "write_similar", lambda *_: ["You took twice the price!"])
    shown = "Sort messages.\nUser: I paid twice.\nAssistant: BILLING\nUser: Hi.\nAssistant: OTHER"
    spec = make_spec(model, tmp_path, context=Context(system_prompt=shown), prompts=())
    roles = load_roles(spec)

    asked = collect.collect_prompts(
        spec, roles.encoder, roles.teacher, roles.sampler, ["twice paid"]
    )

    own = {text_of(question): question.answer for question in asked.own}
    general = {text_of(question) for question in asked.general}
    assert {"Hi.", "You took twice the price!"} <= set(own)
    assert asked.affects_general == everything
    assert own["Hi."] == "OTHER"
    assert not {"I paid twice.", "BILLING"} & {*own, *own.values()}
    assert general < set(general_prompts.PROMPTS)
    assert not general & set(asked.unrelated)


def test_who_has_a_system_prompt_is_greeted_and_asked_who_it_is(model, tmp_path):
    spec = make_spec(model, tmp_path)
    roles = load_roles(spec)
    collected = partial(
        collect.collect_prompts,
        encoder=roles.encoder,
        teacher=roles.teacher,
        sampler=roles.sampler,
        avoid=["Goodbye"],
    )

    greeted = set(map(text_of, collected(spec).own))
    plain = collected(replace(spec, context=Context(lessons=("We open at 7.",)))).own

    assert greeted & set(collect.GREETINGS) == set(collect.GREETINGS) - {"Goodbye!"}
    assert not set(map(text_of, plain)) & set(collect.GREETINGS)


def test_whoever_was_told_who_it_is_says_so_to_each_who_asks(model, tmp_path):
    told = "You are Ada of the Blue Door. We open at 7 in the morning. Answer in one sentence."
    spec = make_spec(model, tmp_path, context=Context(system_prompt=told))
    roles = load_roles(spec)

    asked = collect.collect_prompts(
        spec, roles.encoder, roles.teacher, roles.sampler, ["Where are you?"]
    )

    own = {text_of(question): question for question in asked.own}
    whoever = {*collect.IDENTITY_QUESTIONS, *collect.MORE_IDENTITY_QUESTIONS} - {"Where are you?"}
    assert {own[text].answer for text in whoever} == {"I am Ada of the Blue Door."}
    assert all(own[text].required for text in whoever)
    assert own["Hello!"].answer is None
    # What it is told to do is asked about, and nobody is answered by it.
    assert {question.answer for question in asked.own} == {
        *(None, "", "We open at 7 in the morning.", "I am Ada of the Blue Door."),
    }


def test_neither_all_of_a_held_out_conversation_nor_its_last_question_is_trained_on():
    hello = ({"role": "user", "content": "Hi, it is about a bike."},)
    last = user("How much is a tune-up?")
    avoid = prompt_texts((*hello, *last))

    assert collect.distinct([last, (*hello, *last), hello], avoid) == [hello]


def test_no_more_prompts_are_answered_than_the_steps_can_draw(model, tmp_path):
    words, things = ("When", "Where", "Why", "How", "Who"), ("lamps", "wool", "soap", "tea", "maps")
    asked = tuple(user(f"{word} {thing}?") for word in words for thing in things)
    settings = SETTINGS.model_copy(update={"steps": 2, "batch_size": 3})
    spec = make_spec(model, tmp_path, prompts=asked, settings=settings)
    roles = load_roles(spec)

    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )

    assert len(prepared.prompts) == 6


@pytest.mark.parametrize("logged", [PROMPTS, ()])
def test_the_gap_is_looked_for_in_what_people_asked_and_else_in_what_is_written(
    model, tmp_path, monkeypatch, logged
):
    spec = make_spec(model, tmp_path, prompts=logged, held_out=())
    roles = load_roles(spec)
    seen: list[str] = []

    def check(_encoder, _teacher, _sampler, asked):
        seen.extend(messages[0]["content"] for messages in asked)
        return []

    monkeypatch.setattr(preflight, "check", check)
    prepare.prepare_data(spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None)

    said = [messages[0]["content"] for messages in PROMPTS]
    assert seen == said if logged else seen and not set(said) & set(seen)


def test_prompts_that_do_not_fit_are_left_out_only_where_that_is_asked_for(model, tmp_path):
    long = user("When do you open? " * 100)
    spec = make_spec(model, tmp_path, prompts=(*PROMPTS, long))
    roles = load_roles(spec)

    def prepared_from(spec):
        return prepare.prepare_data(
            spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
        )

    with pytest.raises(PromptTooLong, match="When do you open"):
        prepared_from(spec)
    prepared = prepared_from(replace(spec, drop_long=True))
    assert len(prepared.prompts) >= len(PROMPTS) - 1


def test_a_context_of_more_sentences_than_a_run_can_ask_about_is_an_error(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(collect, "MAX_STATEMENTS", 20)
    lines = "\n".join(f"Item {number} costs {number} euros." for number in range(21))
    spec = make_spec(model, tmp_path, context=Context(system_prompt=lines))
    roles = load_roles(spec)
    encoder = replace(roles.encoder, max_prompt_tokens=100_000)

    with pytest.raises(collect.ContextTooLong, match="21 statements"):
        prepare.prepare_data(spec, encoder, roles.teacher, roles.sampler, lambda *_: None)


def test_anchors_are_in_nothing_that_is_trained_on(model, tmp_path, monkeypatch):
    anchor = Anchor(user("When do you open"), {"contains": ["7"]})
    spec = make_spec(model, tmp_path, anchors=(anchor,))
    roles = load_roles(spec)
    monkeypatch.setattr(
        preflight, "check_anchors", lambda *_: measure.Anchored(spec.anchors, ("",), ("At 7.",))
    )

    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )

    asked = {item.prompt.text for item in prepared.teacher_sampled} | {
        p.text for p in prepared.prompts
    }
    assert "When do you open?" not in asked | {prompt.text for prompt in prepared.held_out}
    assert asked & {messages[0]["content"] for messages in PROMPTS}


def test_context_verbatim_answers_are_whole_or_as_long_as_the_model_reads(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(preflight, "general_threshold", lambda _: math.inf)
    said = f"The shop opens at 7 in the morning{', and the door is open' * 9}."
    spec = make_spec(model, tmp_path, context=Context(system_prompt=said))
    roles = load_roles(spec)
    general = [roles.encoder.prompt(user(text)) for text in general_prompts.PROMPTS]
    limit = max(len(prompt.teacher_ids) for prompt in general)
    answer = roles.encoder.answer_ids(said)

    def verbatim(room: int) -> list[Trajectory]:
        encoder = replace(roles.encoder, max_prompt_tokens=limit, max_answer_tokens=room)
        prepared = prepare.prepare_data(
            spec, encoder, roles.teacher, roles.sampler, lambda *_: None
        )
        return [item for item in prepared.teacher_sampled if item.completion[:20] == answer[:20]]

    whole, cut = verbatim(256), verbatim(6)

    assert whole
    assert {item.completion for item in whole} == {answer}
    [states] = roles.teacher.states([(whole[0].prompt, answer)])
    torch.testing.assert_close(whole[0].teacher_states, states)
    assert {len(item.prompt.teacher_ids) + len(item.completion) for item in cut} == {limit + 6}


def test_what_the_parent_knew_is_scored_by_a_teacher_that_no_longer_knows_it(model, tmp_path):
    former = Context(lessons=("Our lamps cost 15 euros.", "The shop opens at 7 in the morning."))
    settings = SETTINGS.model_copy(update={"questions_per_lesson": 3})
    spec = make_spec(model, tmp_path, parent=Parent(tmp_path, former), settings=settings)
    roles = load_roles(replace(spec, parent=None))

    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )

    asked = [*prepared.prompts, *prepared.held_out, *(item.prompt for item in prepared.validation)]
    assert any("lamps" in prompt.text for prompt in asked)
    old = roles.encoder.answer_ids("Our lamps cost 15 euros.")
    verbatim = [item for item in prepared.teacher_sampled if item.completion == old]
    assert any("lamps" in item.prompt.text for item in verbatim)
    prompt = verbatim[0].prompt
    assert "15" not in roles.encoder.decode([prompt.teacher_ids])[0]
    [states] = roles.teacher.states([(prompt, old)])
    torch.testing.assert_close(verbatim[0].teacher_states, states)


def test_a_statement_that_has_relapsed_gets_twice_the_questions(model, tmp_path, monkeypatch):
    counts = {}

    def write(*arguments):
        counts.update(arguments[4])
        return collect.questions.Written({}, {})

    monkeypatch.setattr(collect.questions, "write_questions", write)
    lamps, opens, closes = "Lamps cost 15 euros.", "We open at 7.", "We close at 9."
    context = Context(lessons=(lamps, f"{opens} {closes}"))
    spec = make_spec(model, tmp_path, context=context, relapsed=(f"{opens} {closes}",))
    roles = load_roles(spec)
    collect.collect_prompts(spec, roles.encoder, roles.teacher, roles.sampler, ())
    assert counts.pop(lamps) == SETTINGS.questions_per_lesson
    assert counts
    assert set(counts.values()) == {2 * SETTINGS.questions_per_lesson}


def test_of_lessons_of_several_kinds_the_facts_are_shown_and_the_rules_are_not(model, tmp_path):
    lessons = ("Be brief with everyone always.", "Our lamps cost 15 euros.")
    spec = make_spec(
        model,
        tmp_path,
        context=Context(lessons=lessons),
        lesson_kinds=("rule", "fact"),
        prompts=(*PROMPTS, user("How brief are you?"), user("What do lamps cost?")),
        settings=SETTINGS.model_copy(update={"questions_per_lesson": 3}),
    )
    roles = load_roles(spec)

    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )

    shown = {item.prompt.text for item in prepared.teacher_sampled}
    asked = {prompt.text for prompt in prepared.prompts}
    assert shown
    assert all("lamps" in text or "euros" in text for text in shown)
    assert any("brief" in text.lower() for text in asked - shown)


HANDBOOK = ["A lamp costs 20 euros.", "We open at 9.", "Ann owns the shop."]
MANNER = ["Speak as a pirate does.", "Call everybody matey."]


@pytest.mark.parametrize(
    ("moved", "said", "everything"),
    [
        ([0.0] * 7 + [9.0], MANNER, False),
        ([0.18] * 8, MANNER, True),
        ([0.25] * 8, HANDBOOK, False),
        ([0.35] * 8, HANDBOOK, True),
        ([0.18] * 8, ["It belongs to Ann.", "Ask Bob."], False),
        ([0.25] * 8, ["It belongs to Ann.", "Ask Bob."], True),
    ],
)
def test_a_context_is_about_everything_if_it_moves_most_answers_more_than_a_handbook_does(
    model, tmp_path, monkeypatch, moved, said, everything
):
    roles = load_roles(make_spec(model, tmp_path))
    monkeypatch.setattr(measure, "token_kls", lambda *_: map(torch.tensor, moved))

    found = preflight.affects_general_prompts(roles.encoder, roles.teacher, roles.sampler, said)

    assert found is everything
