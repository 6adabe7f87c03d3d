"""The teacher is the unmodified base, and any change of it is detected."""

import pytest
import torch
from peft.tuners.lora import LoraLayer

from distill.model.answer_end import AnswerTruncator
from distill.model.encoder import Encoder, user
from distill.model.logits import logits
from distill.model.student import Student
from distill.model.teacher import ContaminatedTeacher, Teacher, check_frozen, probe_logits
from distill.model.trajectories import score
from store.contexts import Context
from tests.support.tiny import tiny_model, tiny_tokenizer

CONTEXT = Context(system_prompt="The shop opens at 7 and closes at 3.")


def make_student():
    base = tiny_model()
    return Student(base, rank=4, alpha=8, seed=0), probe_logits(base)


def test_the_check_passes_a_fresh_student_and_leaves_it_unchanged():
    student, pristine = make_student()
    before = [parameter.clone() for parameter in student.parameters()]

    check_frozen(student, pristine)

    assert all(
        torch.equal(one, other) for one, other in zip(before, student.parameters(), strict=True)
    )


def test_a_changed_base_weight_is_detected():
    student, pristine = make_student()
    with torch.no_grad():
        student.model.model.layers[0].self_attn.q_proj.base_layer.weight.add_(0.1)

    with pytest.raises(ContaminatedTeacher, match="disabled"):
        check_frozen(student, pristine)


def test_an_adapter_that_cannot_be_disabled_is_detected(monkeypatch):
    student, pristine = make_student()
    monkeypatch.setattr(student.peft, "disable_adapter", torch.no_grad)

    with pytest.raises(ContaminatedTeacher, match="disabled"):
        check_frozen(student, pristine)


def test_an_adapter_without_effect_is_detected():
    student, pristine = make_student()
    for module in student.model.modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] = 0.0

    with pytest.raises(ContaminatedTeacher, match="enabled"):
        check_frozen(student, pristine)


def test_training_the_adapter_leaves_the_teacher_unchanged():
    student, pristine = make_student()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_()

    with student.adapter_disabled() as model:
        off = probe_logits(model)

    torch.testing.assert_close(off, pristine)
    assert not torch.allclose(probe_logits(student.model), pristine)


def test_the_teachers_scores_equal_the_bases_on_the_unpacked_prompt():
    student, _ = make_student()
    encoder = Encoder(tiny_tokenizer(), CONTEXT, max_prompt_tokens=500)
    prompts = [encoder.prompt(user(text)) for text in ("When do you open?", "Hi", "And close?")]
    prompts.append(encoder.prompt(user("Hello"), replay=True))
    completions = [(40, 41, 2), (42, 2), (43, 44, 45, 46), (47,)]
    base = tiny_model()
    expected = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([prompt.teacher_ids + completion])
        states = base.base_model(input_ids=ids).last_hidden_state[0]
        expected.append(states[len(prompt.teacher_ids) - 1 : -1])

    teacher = Teacher(student)
    scored = teacher.states(list(zip(prompts, completions, strict=True)))
    again = teacher.states(list(zip(prompts, completions, strict=True)))

    torch.testing.assert_close(scored, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(one, other) for one, other in zip(scored, again, strict=True))
    assert len(teacher.caches) == 2


def test_without_a_reference_state_an_improbable_end_is_not_learned_after_examples():
    student, _ = make_student()
    tokenizer = tiny_tokenizer()
    prompt = Encoder(tokenizer, CONTEXT, max_prompt_tokens=500).prompt(user("When do you open?"))
    said, end = tuple(tokenizer("At seven.")["input_ids"]), tokenizer.eos_token_id
    teacher, alone = Teacher(student, AnswerTruncator(tokenizer, "user")), Teacher(student)

    [refused] = score(teacher, [prompt], [(*said, end)])
    [whole] = score(alone, [prompt], [(*said, end)])

    assert refused.completion == said
    assert torch.equal(refused.teacher_states, whole.teacher_states[:-1])
    assert whole.completion == (*said, end)


@pytest.mark.parametrize("goes_on", ["", "\nUser: And when do you close?"])
def test_the_end_of_a_complete_answer_gets_the_reference_state_where_the_teacher_continues(goes_on):
    student, _ = make_student()
    tokenizer = tiny_tokenizer()
    prompt = Encoder(tokenizer, CONTEXT, max_prompt_tokens=500).prompt(user("When do you open?"))
    said, more = (tuple(tokenizer(text)["input_ids"]) for text in ("At seven.", goes_on))
    end = torch.ones_like(student.head[0])
    teacher = Teacher(student, AnswerTruncator(tokenizer, "user", end))
    whole = (*said, tokenizer.eos_token_id)

    [judged] = score(teacher, [prompt], [(*said, *more) if more else whole], is_complete=not more)
    [alone] = score(Teacher(student), [prompt], [whole])

    assert judged.completion == whole
    torch.testing.assert_close(
        judged.teacher_states, torch.cat([alone.teacher_states[:-1], end[None]])
    )


def test_an_end_that_the_teacher_predicts_is_learned(monkeypatch):
    student, _ = make_student()
    tokenizer = tiny_tokenizer()
    prompt = Encoder(tokenizer, CONTEXT, max_prompt_tokens=500).prompt(user("When do you open?"))
    said = tuple(tokenizer("At seven.")["input_ids"])
    [unended] = score(Teacher(student), [prompt], [(*said, 0)])
    likeliest = int(logits(unended.teacher_states[-1:], student.head).argmax())
    monkeypatch.setattr(AnswerTruncator, "is_eos", lambda _, token: token == likeliest)

    [judged] = score(
        Teacher(student, AnswerTruncator(tokenizer, "user")), [prompt], [(*said, likeliest)]
    )

    assert judged.completion == (*said, likeliest)
