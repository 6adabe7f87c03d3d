"""Secrets in the data folder."""

from pathlib import Path

import pytest

from agent.process.data_dir import SecretCorrupt, load_or_create_secret


def test_a_secret_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    assert load_or_create_secret(tmp_path / "new" / "pepper") == load_or_create_secret(
        tmp_path / "new" / "pepper"
    )
    assert load_or_create_secret(tmp_path / "pepper") != load_or_create_secret(
        tmp_path / "new" / "pepper"
    )
    assert (tmp_path / "pepper").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("left", ["", "0" * 63, "words"])
def test_a_corrupt_secret_is_an_error_with_the_remedy(tmp_path: Path, left: str) -> None:
    (tmp_path / "pepper").write_text(left)
    with pytest.raises(SecretCorrupt, match="Restore it"):
        load_or_create_secret(tmp_path / "pepper")
