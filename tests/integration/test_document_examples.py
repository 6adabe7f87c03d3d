"""The Python examples of TRAINER.md run as they are, but with a tiny model and few steps."""

from pathlib import Path

import pytest

from tests.support.documents import blocks
from tests.support.tiny import save_tiny_model
from tests.support.tiny_run import PROMPTS, SETTINGS

RUN, LOSS = blocks(Path("TRAINER.md"), "python")


def test_the_example_of_the_loss_gives_a_gradient():
    names: dict[str, object] = {}
    exec(LOSS, names)
    assert names["student"].grad.abs().sum() > 0


def test_the_example_of_a_run_publishes_an_adapter(tmp_path, monkeypatch):
    save_tiny_model(tmp_path / "model")
    (tmp_path / "policy.md").write_text("The shop opens at 7 in the morning.\n")
    monkeypatch.chdir(tmp_path)
    code = RUN.replace("prompts=()", "prompts=PROMPTS").replace("TrainerSettings()", "SETTINGS")
    assert code.count("PROMPTS") == code.count("SETTINGS") == 1
    names: dict[str, object] = {"PROMPTS": PROMPTS, "SETTINGS": SETTINGS}
    exec(code, names)
    assert (names["outcome"].adapter / "manifest.json").is_file()


@pytest.mark.parametrize("code", [RUN, LOSS])
def test_an_example_imports_what_it_uses(code):
    compile(code, "TRAINER.md", "exec")
