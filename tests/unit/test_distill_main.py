"""The trainer's command line: what it reads, what it prints, and what its exit codes mean."""

import json
from dataclasses import fields

import pytest

from distill import commands, train
from distill.__main__ import main
from distill.evaluate.candidate import Evaluation
from distill.evaluate.measure import Anchored
from distill.model.encoder import user
from store import input_files
from store.anchors import Anchor
from tests.support.tiny import save_tiny_model


def arguments(tmp_path, model) -> list[str]:
    context = tmp_path / "handbook.md"
    context.write_text("The shop opens at 7.")
    places = {"--model": model, "--context": context, "--out": tmp_path / "out"}
    return ["train", *(str(part) for pair in places.items() for part in pair)]


def test_the_traceback_of_a_crash_is_written_to_the_log(tmp_path, monkeypatch, capsys):
    def crash(*_):
        raise ZeroDivisionError("of some tensor")

    monkeypatch.setattr(train, "run", crash)

    model = save_tiny_model(tmp_path / "model")
    assert main(arguments(tmp_path, model)) == commands.FAILED
    said = capsys.readouterr().err
    assert 'in crash\n    raise ZeroDivisionError("of some tensor")' in said
    assert said.endswith("failed: ZeroDivisionError: of some tensor\n")


def test_a_corrupt_model_is_bad_input(tmp_path, capsys):
    model = save_tiny_model(tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"half")

    assert main(arguments(tmp_path, model)) == commands.BAD_INPUT
    assert str(model) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("", "There is no folder"),
        ("config.json", "has no config.json"),
        ("tokenizer*", "has no tokenizer files"),
    ],
)
def test_a_folder_without_a_model_is_bad_input_and_the_error_names_what_is_missing(
    tmp_path, capsys, missing, said
):
    model = tmp_path / "none" if not missing else save_tiny_model(tmp_path / "model")
    for path in model.glob(missing or "*"):
        path.unlink()

    assert main(arguments(tmp_path, model)) == commands.BAD_INPUT
    assert said in capsys.readouterr().err


def test_a_context_that_does_not_fit_the_model_is_bad_input_and_the_error_states_the_limit(
    tmp_path, capsys
):
    asked = arguments(tmp_path, save_tiny_model(tmp_path / "model"))
    (tmp_path / "handbook.md").write_text("The shop opens at 7. " * 500)

    assert main(asked) == commands.BAD_INPUT
    assert "The context has 10" in capsys.readouterr().err


def test_the_old_name_of_an_option_is_accepted_with_a_warning(tmp_path, monkeypatch, caplog):
    specs = []
    monkeypatch.setattr(train, "run", lambda spec, _: specs.append(spec))
    model = save_tiny_model(tmp_path / "model")

    assert main([*arguments(tmp_path, model), "--guided-share", "0.5"]) == commands.DONE

    assert specs[0].settings.teacher_share == 0.5
    assert "use --teacher-share" in caplog.text


def test_sampling_in_an_engine_without_a_url_is_bad_input(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BYHEART_DISTILL__SAMPLER", "engine")

    assert main(arguments(tmp_path, tmp_path)) == commands.BAD_INPUT
    assert "engine.urls" in capsys.readouterr().err


def test_checkpoints_are_removed_once_the_adapter_is_published(tmp_path):
    small = ["--steps", "2", "--batch-size", "2", "--rank", "4", "--max-completion-tokens", "4"]
    small += ["--questions-per-lesson", "1", "--threads", "1", "--statement-tolerance", "1000"]
    model = save_tiny_model(tmp_path / "model")

    assert main([*arguments(tmp_path, model), *small]) == commands.DONE

    (work,) = (tmp_path / "out" / ".work").iterdir()
    left = {path.name for path in work.iterdir()}
    assert left == {"metrics.jsonl", "curves.png", commands.PUBLISHED}


def evaluation(**values) -> Evaluation:
    numbers = dict.fromkeys([field.name for field in fields(Evaluation)], 0)
    tokens = {"whole": 120, "residual": 30, "nothing": 0}
    frontier = [
        {"context": name, "prompt_tokens": count, "right": 9, "total": 10}
        for name, count in tokens.items()
    ]
    statements = [{"learned": True}, {"learned": True}, {"learned": False}]
    more = {"anchors": {"total": 0}, "checks": [], "frontier": frontier, "statements": statements}
    return Evaluation(**numbers | more | values)


def test_the_summary_says_how_many_statements_and_tokens_must_stay_in_the_prompt():
    lines = list(commands.summary(evaluation()))

    assert lines[1:5] == [
        "statements learned 2 of 3: 30 of the context's 120 tokens must stay in the prompt "
        "(residual.md)",
        "  whole (120 tokens) in front: 9 of 10 right",
        "  residual (30 tokens) in front: 9 of 10 right",
        "  nothing (0 tokens) in front: 9 of 10 right",
    ]


def test_the_summary_names_anchors_that_only_the_teacher_passes_and_counts_the_others():
    asked = [
        Anchor(user(text), {"contains": [wanted]})
        for text, wanted in (("When?", "7"), ("Who?", "Ann"), ("Where?", "Ely"))
    ]
    anchored = Anchored(tuple(asked), ("", "", ""), ("At 7.", "Ann.", "Here."))
    counts = {"total": 3, "base": 0, "teacher": 2, "candidate": 1}
    checks = anchored.checks(["At 9.", "It is Ann.", "There."])

    lines = list(commands.summary(evaluation(anchors=counts, checks=checks)))

    assert lines[-3:] == [
        "anchors passed: 0 base, 2 teacher, 1 candidate of 3",
        "  teacher only: 'When?' -> 'At 9.'",
        "  1 failed by the teacher too: see `checks` in evaluation.json",
    ]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_a_line_of_json_may_contain_unicode_line_separators(tmp_path, separator):
    path = tmp_path / "prompts.jsonl"
    text = f"one{separator}other"
    line = json.dumps({"prompt": text}, ensure_ascii=False)
    path.write_text(f"{line}\r\n\n{line}", encoding="utf-8")

    assert [messages[0]["content"] for messages in input_files.read_prompts(path)] == [text, text]
