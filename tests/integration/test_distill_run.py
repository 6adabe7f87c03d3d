"""The training loop on a tiny model: it learns, resumes bit-identically, and stops when it must."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill import guards, loss, steps, train
from distill.data import prepare
from distill.evaluate import measure
from distill.evaluate.preflight import NothingToLearn
from distill.loss import FORWARD
from distill.model.encoder import Prompt, user
from distill.model.student import Student
from distill.model.teacher import Teacher
from distill.model.trajectories import Trajectory
from distill.progress import PLAN, RESUME
from distill.roles import ParentMismatch, load_roles
from distill.run.checkpoint import Checkpoints
from distill.settings import TrainerSettings
from distill.spec import Parent
from store.anchors import Anchor
from store.contexts import Context
from store.manifests import AdapterCorrupt
from tests.support.tiny import save_tiny_model, tiny_model
from tests.support.tiny_run import SETTINGS, make_spec, silent


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def killed_after(step: int):
    def report(stage: str, done: int, *_: object) -> None:
        if stage == "train" and done == step:
            raise Killed

    return report


def test_a_run_publishes_its_curves_and_measurements(model, tmp_path):
    outcome = train.run(make_spec(model, tmp_path), silent)

    assert [line["step"] for line in outcome.curves] == list(range(6))
    assert {path.name for path in outcome.adapter.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "evaluation.json",
        "residual.md",
        "frontier.png",
        "manifest.json",
        "metrics.jsonl",
    }
    assert "teacher_sampled_divergence" in outcome.curves[0]
    assert "teacher_sampled_divergence" not in outcome.curves[-1]
    assert "on_policy_divergence" in outcome.curves[-1]


@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_killed_run_resumes_to_the_bit_identical_adapter(model, tmp_path, step):
    whole = train.run(make_spec(model, tmp_path / "whole"), silent)

    with pytest.raises(Killed):
        train.run(make_spec(model, tmp_path / "killed"), killed_after(step))
    reported: list[tuple[str, int]] = []
    resumed = train.run(
        make_spec(model, tmp_path / "killed"), lambda *report: reported.append(report[:2])
    )

    assert resumed.adapter.name == whole.adapter.name
    assert resumed.curves == whole.curves
    resumed_from = step - 1 - (step - 1) % SETTINGS.checkpoint_every
    assert [done for stage, done in reported if stage == "train"] == list(
        range(resumed_from + 1, 7)
    )
    stages = {stage for stage, _ in reported if not stage.startswith("measure")}
    assert stages == {"load the model", PLAN, "train", *([RESUME] if resumed_from else [])}


def test_scores_from_a_checkpoint_are_moved_to_the_models_device(monkeypatch):
    student = Student(tiny_model(), rank=4, alpha=8, seed=0)
    student.model.to("meta")  # as an accelerator: no tensor of it may meet one of the CPU
    prompt = Prompt("Hi", (5, 6), (4, 5, 6), (4,))
    devices: list[tuple[str, str]] = []

    def divergence(states, teacher, *_):
        devices.append((states.device.type, teacher.device.type))
        scores = torch.zeros(len(states))
        return torch.zeros((), requires_grad=True), scores, scores

    monkeypatch.setattr(loss, "divergence", divergence)
    trajectory = Trajectory(prompt, (7, 2), torch.zeros(2, 32))
    steps.accumulate_gradients(
        student, [trajectory], FORWARD, lambda lengths: torch.ones(sum(lengths))
    )
    measure.token_kls(Teacher(student), [trajectory])

    assert devices == [("meta", "meta")] * 2


def test_another_seed_gives_another_adapter(model, tmp_path):
    first = train.run(make_spec(model, tmp_path), silent)
    settings = SETTINGS.model_copy(update={"seed": 1})

    second = train.run(make_spec(model, tmp_path, settings=settings), silent)

    assert first.adapter.name != second.adapter.name


@pytest.mark.parametrize(("trained", "measured"), [(6, 30), (30, 6)])
def test_the_maximum_prompt_leaves_room_for_the_longest_answer(model, tmp_path, trained, measured):
    settings = SETTINGS.model_copy(
        update={"max_completion_tokens": trained, "max_answer_tokens": measured}
    )

    roles = load_roles(make_spec(model, tmp_path, settings=settings))

    assert roles.encoder.max_prompt_tokens == 1024 - 30


def test_without_a_context_there_is_nothing_to_learn(model, tmp_path):
    with pytest.raises(NothingToLearn, match="empty"):
        train.run(make_spec(model, tmp_path, context=Context()), silent)


def test_a_context_that_improves_no_anchor_ends_the_run(model, tmp_path):
    anchors = (Anchor(user("When?"), {"contains": ["no tiny model says this"]}),)

    with pytest.raises(NothingToLearn, match="0 of 1 anchors"):
        train.run(make_spec(model, tmp_path, anchors=anchors), silent)


def test_anchors_that_the_base_passes_end_the_run(model, tmp_path):
    anchors = (Anchor(user("When?"), {"regex": "^"}),)

    with pytest.raises(NothingToLearn, match="Add anchors that need the context"):
        train.run(make_spec(model, tmp_path, anchors=anchors), silent)


def test_a_loss_that_is_not_finite_ends_the_run():
    with pytest.raises(guards.Diverged, match="Step 4: teacher_sampled_divergence"):
        guards.check_finite(4, {"teacher_sampled_divergence": float("nan"), "grad_norm": 1.0})


def test_the_teacher_share_is_scaled_by_the_share_of_lessons_that_are_not_rules(model, tmp_path):
    lessons = Context(lessons=("Begin with Aye.", "We open at 7."))

    rules = make_spec(model, tmp_path, context=lessons, lesson_kinds=("rule", "rule"))
    mixed = make_spec(model, tmp_path, context=lessons, lesson_kinds=("rule", "fact"))

    assert rules.effective_settings().teacher_share == 0
    assert mixed.effective_settings().teacher_share == 0.5 * SETTINGS.teacher_share


def test_longer_contexts_get_more_steps_unless_steps_is_set(model, tmp_path):
    by_itself = make_spec(model, tmp_path, settings=TrainerSettings(steps_per_lesson=10))
    explicit = make_spec(model, tmp_path, settings=TrainerSettings(steps=7))

    assert [by_itself.resolved_settings(n).steps for n in (1, 12, 40)] == [120, 120, 400]
    assert explicit.resolved_settings(40).steps == 7


@pytest.mark.parametrize(("device", "suits"), [("cpu", (64, 96, 8)), ("cuda", (256, 512, 1))])
def test_defaults_depend_on_the_device_and_explicit_settings_are_kept(
    model, tmp_path, device, suits
):
    names = ("max_completion_tokens", "max_answer_tokens", "refresh_every")
    left_open = (
        make_spec(model, tmp_path, settings=TrainerSettings()).with_device_defaults(device).settings
    )
    explicit = TrainerSettings(max_completion_tokens=5, max_answer_tokens=6, refresh_every=7)

    assert tuple(getattr(left_open, name) for name in names) == suits
    assert (
        make_spec(model, tmp_path, settings=explicit).with_device_defaults(device).settings
        == explicit
    )


def test_an_answer_length_between_teacher_and_base_has_ratio_1():
    assert measure.length_ratio(30, teacher=20, base=40) == 1
    assert measure.length_ratio(80, teacher=20, base=40) == 2
    assert measure.length_ratio(10, teacher=20, base=40) == 0.5


def test_the_learning_rate_warms_up_and_decays():
    factors = [steps.lr_factor(step, warmup=4, steps=20) for step in range(20)]

    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert max(factors) == pytest.approx(1.0)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[-1] < 0.15


@pytest.mark.parametrize(
    ("teacher_share", "kl"), [(1.0, "teacher_sampled_divergence"), (0.0, "on_policy_divergence")]
)
def test_teacher_sampled_or_on_policy_trajectories_alone_close_the_gap_on_held_out_prompts(
    model, tmp_path, teacher_share, kl
):
    words = ("When", "Where", "Why", "How", "Who", "What")
    things = ("lamps", "chairs", "wool", "soap", "bread", "tea", "shoes", "maps", "rugs")
    questions = [user(f"{word} {thing}?") for word in words for thing in things]
    settings = SETTINGS.model_copy(
        update={
            "steps": 60,
            "batch_size": 8,
            "rank": 16,
            "alpha": 32,
            "replay_share": 0.0,
            "on_policy_tail": 0.0,
            "teacher_share": teacher_share,
            "max_completion_tokens": 4,
            "max_answer_tokens": 4,
            "questions_per_lesson": 0,
        }
    )
    held_out = questions[::5]
    prompts = tuple(messages for messages in questions if messages not in held_out)
    spec = make_spec(model, tmp_path, settings=settings, prompts=prompts, held_out=tuple(held_out))

    outcome = train.run(spec, silent)

    assert all(kl in line for line in outcome.curves)
    questions = [each["questions"] for each in outcome.evaluation.statements]
    assert outcome.evaluation.held_out == len(held_out) + sum(map(len, questions))
    assert outcome.evaluation.gap_closed > 0.3


def test_a_run_keeps_its_best_purely_on_policy_step_by_validation(model, tmp_path, monkeypatch):
    words = ("When", "Why", "Where", "How", "Who", "What")
    questions = tuple(
        user(f"{word} {what}?") for word in words for what in ("do you open", "is it")
    )
    settings = SETTINGS.model_copy(update={"validate_every": 1, "on_policy_tail": 0.5})
    spec = make_spec(model, tmp_path, prompts=questions, settings=settings)
    worst_last = iter([0.2, 0.3, 0.4])
    real = measure.student_kl
    seen: list[list[torch.Tensor]] = []

    def validation(teacher, trajectories):
        seen.append([parameter.detach().clone() for parameter in teacher.student.parameters()])
        return next(worst_last, None) or real(teacher, trajectories)

    roles = load_roles(spec)
    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )
    assert prepared.validation
    aside = {item.prompt.text for item in prepared.validation}
    assert not aside & {prompt.text for prompt in prepared.prompts}
    monkeypatch.setattr(measure, "student_kl", validation)

    curves = steps.train(settings, roles, prepared, Checkpoints(spec.work, "run"), silent)

    assert [line["step"] for line in curves if "validation" in line] == [3, 4, 5]
    assert all(map(torch.equal, roles.student.parameters(), seen[0]))


def test_validation_is_rare_while_trajectories_are_teacher_sampled():
    settings = SETTINGS.model_copy(update={"validate_every": 5, "steps": 50})

    measured = [step for step in range(50) if steps.validation_is_due(step, settings, pure_from=42)]

    assert measured == [19, 39, 44, 49]


def test_a_run_ends_early_once_on_policy_training_stops_improving(model, tmp_path, monkeypatch):
    settings = SETTINGS.model_copy(
        update={"teacher_share": 0.0, "validate_every": 1, "patience": 2, "steps": 20}
    )
    spec = make_spec(model, tmp_path, settings=settings)
    roles = load_roles(spec)
    prepared = prepare.prepare_data(
        spec, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )
    values = iter([0.5, 0.4, *[0.6] * 18])
    monkeypatch.setattr(measure, "student_kl", lambda *_: next(values))

    curves = steps.train(settings, roles, prepared, Checkpoints(spec.work, "run"), silent)

    assert [line["step"] for line in curves] == [0, 1, 2, 3]


def test_a_run_from_its_parent_starts_with_the_parents_weights(model, tmp_path):
    first = make_spec(model, tmp_path)
    adapter = train.run(first, silent).adapter
    again = replace(first, parent=Parent(adapter, first.context), work=tmp_path / "again")

    roles = load_roles(again)

    prepared = prepare.prepare_data(
        again, roles.encoder, roles.teacher, roles.sampler, lambda *_: None
    )
    fresh = measure.base_kl(roles.teacher, prepared.teacher_sampled)
    assert measure.student_kl(roles.teacher, prepared.teacher_sampled) < 0.9 * fresh
    outcome = train.run(again, silent)
    manifest = json.loads((outcome.adapter / "manifest.json").read_text())
    assert manifest["parent"] == adapter.name


@pytest.mark.parametrize(
    ("change", "reason"), [({"rank": 2}, "another rank"), ({"alpha": 2}, "another alpha")]
)
def test_a_parent_of_another_rank_or_alpha_is_rejected_before_training(
    model, tmp_path, change, reason
):
    spec = make_spec(model, tmp_path)
    parent = Parent(train.run(spec, silent).adapter, spec.context)
    changed = SETTINGS.model_copy(update=change)

    with pytest.raises(ParentMismatch, match=reason):
        load_roles(replace(spec, settings=changed, parent=parent))


def test_a_parent_that_is_not_an_intact_adapter_is_rejected(model, tmp_path):
    spec = make_spec(model, tmp_path)
    folder = train.run(spec, silent).adapter
    with pytest.raises(ParentMismatch, match="not an adapter folder"):
        load_roles(replace(spec, parent=Parent(tmp_path, spec.context)))
    (folder / "adapter_model.safetensors").write_bytes(b"broken")

    with pytest.raises(AdapterCorrupt):
        load_roles(replace(spec, parent=Parent(folder, spec.context)))
