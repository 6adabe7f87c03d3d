"""`python -m distill train` as a child process, on a tiny model."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill.__main__ import main
from distill.commands import BAD_INPUT
from distill.model.adapter_files import MANIFEST, WEIGHTS
from distill.model.base import load_base
from distill.run import folders
from distill.run.folders import FolderError
from store.durable_files import sha256
from store.manifests import verify_files
from tests.support.tiny import save_tiny_model
from tests.support.until import until_sync

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240
OPTIONS = {
    "--steps": "12",
    "--batch-size": "4",
    "--rank": "4",
    "--lr": "0.01",
    "--max-completion-tokens": "6",
    "--questions-per-lesson": "1",
    "--statement-tolerance": "1000",
    "--checkpoint-every": "2",
    "--threads": "1",
}

# What a process of a team of two holds of each weight of the layers.
HELD = r"""
import json, os, sys, torch
from pathlib import Path
sys.path.insert(0, os.getcwd())
from distill.model.base import load_base
from distill.model.distributed import init_parallel, shutdown_parallel

model, _ = load_base(Path(sys.argv[1]), torch.device("cpu"), init_parallel(2).shard)
sizes = [parameter.to_local().numel() for parameter in model.model.layers.parameters()]
sys.stdout.write(json.dumps(sizes) + "\n")  # at once: the other writes there as well
shutdown_parallel()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    return write_inputs(tmp_path)


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter that one process trains."""
    folder = tmp_path_factory.mktemp("alone")
    done = run(command(model, folder / "out", write_inputs(folder)))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def write_inputs(folder: Path) -> dict[str, Path]:
    context, prompts = folder / "handbook.md", folder / "prompts.jsonl"
    context.write_text("The shop opens at 7 in the morning.\nTyres are free on Fridays.\n")
    questions = ["When do you open?", "What about tyres?", "Where are you?", "Who is there?"]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in questions))
    return {"--context": context, "--prompts": prompts}


def command(model: Path, out: Path, inputs: dict[str, Path], **options: str) -> list[str]:
    pairs = {"--model": model, "--out": out, **inputs, **OPTIONS, **options}
    arguments = [str(part) for pair in pairs.items() for part in pair]
    return [sys.executable, "-m", "distill", "train", *arguments]


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says of bad input, in this process: nothing is loaded for it."""
    assert main(arguments[arguments.index("train") :]) == BAD_INPUT
    return capsys.readouterr().err


def test_a_run_prints_the_folder_of_a_verified_adapter(model, inputs, tmp_path):
    done = run(command(model, tmp_path / "out", inputs))

    assert done.returncode == 0, done.stderr
    adapter = Path(done.stdout.strip())
    verify_files(adapter, sha256(adapter / MANIFEST))
    assert adapter.parent == tmp_path / "out"
    assert "train 12/12" in done.stderr
    (curves,) = (tmp_path / "out" / ".work").glob("*/curves.png")
    assert curves.read_bytes().startswith(b"\x89PNG")


def test_repeating_the_command_prints_the_same_adapter_without_training(model, inputs, tmp_path):
    arguments = command(model, tmp_path / "out", inputs)
    first, again = run(arguments), run(arguments)
    (work,) = (tmp_path / "out" / ".work").iterdir()

    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert f"To train again, delete {work}" in again.stderr
    assert "load the model" not in again.stderr
    of_a_group = run(arguments, RANK="1")
    assert (of_a_group.returncode, of_a_group.stdout) == (0, "")
    shutil.rmtree(first.stdout.strip())
    assert "train 12/12" in run(arguments).stderr  # it is not there any more


def test_a_killed_process_resumes_to_the_bit_identical_adapter(model, inputs, tmp_path):
    whole = run(command(model, tmp_path / "whole", inputs))
    assert whole.returncode == 0, whole.stderr

    killed = command(model, tmp_path / "killed", inputs)
    with subprocess.Popen(killed, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for_steps(tmp_path / "killed" / ".work", 3)
        os.kill(process.pid, signal.SIGKILL)
    assert list((tmp_path / "killed").glob("bh-*")) == []
    resumed = run(killed)

    assert resumed.returncode == 0, resumed.stderr
    assert "preflight" not in resumed.stderr
    assert "train 1/12" not in resumed.stderr
    assert "train 12/12" in resumed.stderr
    uninterrupted, resumed_adapter = Path(whole.stdout.strip()), Path(resumed.stdout.strip())
    assert uninterrupted.name == resumed_adapter.name
    assert (uninterrupted / WEIGHTS).read_bytes() == (resumed_adapter / WEIGHTS).read_bytes()


def wait_for_steps(work: Path, steps: int) -> None:
    def taken() -> int:
        return sum(len(file.read_text().splitlines()) for file in work.glob("*/metrics.jsonl"))

    until_sync(lambda: taken() >= steps, DEADLINE_S)


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--prompts", '{"prompt": "Hi"}\nnot json\n', "line 2: a line must be a JSON object"),
        ("--prompts", '{"question": "Hi"}\n', "line 1"),
        ("--context", "", "nothing to internalise"),
        ("--anchors", '{"prompt": "Hi", "expect": {"includes": "x"}}\n', "includes"),
        ("--anchors", '{"prompt": "Hi", "expect": {"regex": "("}}\n', "regex"),
        ("--anchors", '{"prompt": "Hi", "expect": {"regex": ""}}\n', "found in any answer"),
        ("--config", "[distill]\nstep = 3\n", "distill.steps"),
    ],
)
def test_errors_in_input_files_name_the_file_and_line(
    model, inputs, tmp_path, capsys, option, content, message
):
    bad = tmp_path / "bad"
    bad.write_text(content)

    message = refusal(command(model, tmp_path / "out", inputs | {option: bad}), capsys)

    assert message in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_bad_input(inputs, tmp_path, capsys):
    assert "none" in refusal(command(tmp_path / "none", tmp_path / "out", inputs), capsys)


def test_a_context_that_improves_no_anchor_exits_with_3(model, inputs, tmp_path):
    anchors = tmp_path / "anchors.jsonl"
    anchors.write_text('{"prompt": "When?", "expect": {"contains": ["never said"]}}\n')

    done = run(command(model, tmp_path / "out", inputs | {"--anchors": anchors}))

    assert done.returncode == 3, done.stderr
    assert "0 of 1 anchors" in done.stderr
    assert list((tmp_path / "out").glob("bh-*")) == []


def test_two_runs_in_one_work_folder_are_bad_input(model, inputs, tmp_path, capsys):
    (tmp_path / "work").mkdir()
    arguments = command(model, tmp_path / "out", inputs | {"--work": tmp_path / "work"})

    with folders.lock_folder(tmp_path / "work"):
        message = refusal(arguments, capsys)

    assert f"Another process is using {tmp_path / 'work'}" in message


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_an_unwritable_folder_is_bad_input_before_the_model_is_loaded(
    model, inputs, tmp_path, capsys, option
):
    (tmp_path / "file").touch()
    arguments = command(model, tmp_path / "out", inputs | {option: tmp_path / "file" / "below"})

    message = refusal(arguments, capsys)

    assert "below: Not a directory" in message
    assert "load the model" not in message


def test_a_file_where_a_folder_is_needed_is_bad_input(model, inputs, tmp_path, capsys):
    (tmp_path / "out").touch()

    assert f"{tmp_path / 'out'} is a file" in refusal(
        command(model, tmp_path / "out", inputs), capsys
    )


def test_too_little_disk_space_for_an_adapter_is_bad_input(
    model, inputs, tmp_path, capsys, monkeypatch
):
    usage = type("Usage", (), {"free": 2**20})()
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(folders, "CHECKPOINT_COPIES", 5000)

    message = refusal(command(model, tmp_path / "out", inputs), capsys)

    assert "has 1 MiB of free space; this run needs about" in message


def test_on_resume_the_runs_own_files_count_as_free_space(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 400})()
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FolderError, match="of free space"):
        folders.check_disk_space(tmp_path, tmp_path, adapter_bytes=100)

    (tmp_path / "latest.pt").write_bytes(bytes(500))
    folders.check_disk_space(tmp_path, tmp_path, adapter_bytes=100)


def test_an_interrupted_run_prints_how_to_resume(model, inputs, tmp_path):
    arguments = command(model, tmp_path / "out", inputs, **{"--steps": "2000"})
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # Who starts these tests in the background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_steps(tmp_path / "out" / ".work", 3)

    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 130
    assert "repeat the command to continue" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(("processes", "shards"), [(2, 1), (2, 2), (4, 2)])
def test_several_processes_train_the_same_adapter_as_one(
    model, alone, inputs, tmp_path, processes, shards
):
    settings = tmp_path / "byheart.toml"
    settings.write_text(f"[distill]\nshards = {shards}\n")
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    together = command(model, tmp_path / "two", inputs | {"--config": settings})

    done = run([sys.executable, *launcher, *together[1:]])

    assert done.returncode == 0, done.stderr
    adapters = [alone, Path(done.stdout.strip())]
    weights = [load_file(folder / WEIGHTS) for folder in adapters]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-2, atol=2e-4)
    assert any(value.abs().max() > 0 for name, value in weights[0].items() if "lora_B" in name)
    curves = [
        list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))
        for folder in adapters
    ]
    assert len(curves[0]) == len(curves[1]) == 12
    # AdamW and clipping hide how large a gradient is; its norm and the divergences do not.
    for single, several in zip(*curves, strict=True):
        assert several == pytest.approx(single, rel=1e-2, abs=1e-3)


def test_each_shard_holds_a_part_of_every_layer(model, tmp_path):
    script = tmp_path / "held.py"
    script.write_text(HELD)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")

    done = run([sys.executable, *launcher, str(script), str(model)])

    assert done.returncode == 0, done.stderr
    layers, _ = load_base(model, torch.device("cpu"))
    whole = [weight.numel() for weight in layers.model.layers.parameters()]
    first, second = map(json.loads, done.stdout.splitlines())
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    assert all(0 < share < size for share, size in zip(first, whole, strict=True))


def test_a_process_count_that_is_not_a_multiple_of_shards_is_bad_input(
    model, inputs, tmp_path, capsys
):
    settings = tmp_path / "byheart.toml"
    settings.write_text("[distill]\nshards = 2\n")

    message = refusal(command(model, tmp_path / "out", inputs | {"--config": settings}), capsys)

    assert "shards = 2 needs a multiple of 2 processes; 1 were started" in message


def test_an_error_of_the_first_process_ends_all_processes(model, tmp_path, inputs):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    anchors = tmp_path / "anchors.jsonl"
    anchors.write_text('{"prompt": "When?", "expect": {"contains": ["no tiny model says this"]}}')
    arguments = command(model, tmp_path / "out", {**inputs, "--anchors": anchors})

    done = run([sys.executable, *launcher, *arguments[1:]])

    assert done.returncode != 0
    assert done.stderr.count("nothing to learn: With the context") == 2


def test_a_parent_context_without_a_parent_is_bad_input(model, inputs, tmp_path, capsys):
    arguments = command(model, tmp_path, {**inputs, "--parent-context": inputs["--context"]})

    assert "--parent" in refusal(arguments, capsys)
