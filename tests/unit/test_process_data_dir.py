"""Values that last: the same at every start, and never silently another."""

from pathlib import Path

import pytest

from agent.process.data_dir import SecretCorrupt, load_or_create_secret


def test_a_value_is_the_same_at_every_start(tmp_path: Path) -> None:
    assert load_or_create_secret(tmp_path / "new" / "pepper") == load_or_create_secret(
        tmp_path / "new" / "pepper"
    )
    assert load_or_create_secret(tmp_path / "pepper") != load_or_create_secret(
        tmp_path / "new" / "pepper"
    )
    assert (tmp_path / "pepper").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("left", ["", "0" * 63, "words"])
def test_a_spoiled_value_is_told(tmp_path: Path, left: str) -> None:
    (tmp_path / "pepper").write_text(left)
    with pytest.raises(SecretCorrupt, match="Restore it"):
        load_or_create_secret(tmp_path / "pepper")
