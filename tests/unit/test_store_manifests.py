"""An adapter's folder verifies only if it is exactly what its manifest lists."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from store.durable_files import sha256
from store.manifests import MANIFEST, AdapterCorrupt, AdapterMissing, verify_files


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "bh-1"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 8)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    files = {path.name: sha256(path) for path in folder.iterdir()}
    (folder / MANIFEST).write_text(json.dumps({"files": files, "base": "abc"}))
    return folder, sha256(folder / MANIFEST)


def test_an_unchanged_folder_verifies(adapter: tuple[Path, str]) -> None:
    verify_files(*adapter)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", MANIFEST])
def test_a_flipped_bit_is_detected(adapter: tuple[Path, str], name: str) -> None:
    path = adapter[0] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(AdapterCorrupt, match=name):
        verify_files(*adapter)


def _link(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    (folder / "adapter_config.json").rename(elsewhere)
    (folder / "adapter_config.json").symlink_to(elsewhere)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "adapter_config.json").unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / "extra.bin").write_bytes(b""),
        lambda folder: (folder / "more").mkdir(),
        lambda folder: (folder / "more").symlink_to("/nowhere"),
        _link,
        lambda folder: (
            folder.rename(folder.parent / "bh-2").parent
            and folder.symlink_to(folder.parent / "bh-2")
        ),
    ],
    ids=["missing", "no manifest", "extra", "folder", "dangling", "link", "folder link"],
)
def test_missing_extra_and_irregular_files_are_detected(
    adapter: tuple[Path, str], change: Callable[[Path], object]
) -> None:
    change(adapter[0])
    with pytest.raises(AdapterCorrupt, match="must not be loaded"):
        verify_files(*adapter)


def test_a_missing_folder_is_distinguished_from_a_changed_one(adapter: tuple[Path, str]) -> None:
    adapter[0].rename(adapter[0].parent / "elsewhere")
    with pytest.raises(AdapterMissing, match="Mount its volume"):
        verify_files(*adapter)


def test_a_manifest_that_was_rewritten_with_its_files_is_detected(
    adapter: tuple[Path, str],
) -> None:
    folder, registered = adapter
    (folder / "adapter_config.json").write_text('{"r": 9}')
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["adapter_config.json"] = sha256(folder / "adapter_config.json")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(AdapterCorrupt, match="not the one that was registered"):
        verify_files(folder, registered)
