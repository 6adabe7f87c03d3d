"""Values that last: the same at every start, and never silently another."""

from pathlib import Path

import pytest

from agent.process.data_dir import Spoiled, lasting


def test_a_value_is_the_same_at_every_start(tmp_path: Path) -> None:
    assert lasting(tmp_path / "new" / "pepper") == lasting(tmp_path / "new" / "pepper")
    assert lasting(tmp_path / "pepper") != lasting(tmp_path / "new" / "pepper")
    assert (tmp_path / "pepper").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("left", ["", "0" * 63, "words"])
def test_a_spoiled_value_is_told(tmp_path: Path, left: str) -> None:
    (tmp_path / "pepper").write_text(left)
    with pytest.raises(Spoiled, match="restore it"):
        lasting(tmp_path / "pepper")
