"""What `byheart demo` replaces, and what it calls a success."""

from pathlib import Path

import pytest

from agent.cli.demo import CONFIG, DATA, prepare
from agent.cli.errors import InputError
from agent.lock import only_daemon
from config.settings import load


@pytest.mark.parametrize("fast", [False, True])
def test_the_demo_replaces_what_an_earlier_one_left(tmp_path: Path, fast: bool) -> None:
    folder = tmp_path / "demo"
    prepare(folder, fast)
    (folder / "curves.png").touch()
    config = prepare(folder, fast)
    assert not (folder / "curves.png").exists()
    settings = load(config, {})
    assert settings.data_dir == folder / DATA
    assert (settings.distill.steps < 120) is fast


@pytest.mark.parametrize("name", [str(CONFIG), "data.db", "sub/file"])
def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "srv" / name
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(InputError, match="--dir"):
        prepare(tmp_path / "srv", False)
    assert precious.read_text() == "precious"


def test_the_demo_leaves_a_folder_alone_in_which_another_one_runs(tmp_path: Path) -> None:
    config = prepare(tmp_path / "demo", False)
    with only_daemon(tmp_path / "demo" / DATA), pytest.raises(InputError, match="Another demo"):
        prepare(tmp_path / "demo", False)
    assert config.exists()
