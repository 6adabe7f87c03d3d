"""Adapter folders appear whole, carry their own proof, and hold nothing that vLLM refuses."""

import json

import pytest
from safetensors.torch import load_file

from distill import publish
from distill.publish import DamagedAdapter, Lineage, Probe
from distill.student import Student
from tests.tiny import save_tiny_model, tiny_model

LINEAGE = Lineage("tiny", "ab" * 32, "cd" * 32, "ef" * 32, {"steps": 3}, "run_1", None)
PROBES = [Probe([1, 2], [3], [-0.5], [-2.0])]


@pytest.fixture
def student():
    return Student(tiny_model(), rank=4, alpha=8, seed=0)


@pytest.fixture
def folder(tmp_path, student):
    return publish.publish(tmp_path, student, LINEAGE, PROBES, {"metrics.jsonl": b"{}\n"})


def test_what_is_published_verifies_and_names_its_origin(folder):
    manifest = publish.verify(folder)

    assert folder.name.startswith("bh-abababab-")
    assert manifest["base"] == {"name": "tiny", "sha256": "ab" * 32}
    assert manifest["probe"] == [
        {"prompt_ids": [1, 2], "completion_ids": [3], "student": [-0.5], "base": [-2.0]}
    ]


def test_the_same_adapter_gets_the_same_name_and_stays(folder, student):
    again = publish.publish(folder.parent, student, LINEAGE, PROBES, {"metrics.jsonl": b"{}\n"})

    assert again == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "metrics.jsonl", "manifest.json"]
)
def test_a_flipped_bit_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(DamagedAdapter, match=name):
        publish.verify(folder)


def test_a_renamed_or_enlarged_folder_is_found(folder):
    (folder / "extra.bin").write_bytes(b"")
    with pytest.raises(DamagedAdapter, match="extra"):
        publish.verify(folder)
    (folder / "extra.bin").unlink()
    renamed = folder.rename(folder.with_name("bh-abababab-000000000000"))
    with pytest.raises(DamagedAdapter, match="name"):
        publish.verify(renamed)


def test_the_configuration_holds_no_surprise_for_vllm(folder):
    config = json.loads((folder / "adapter_config.json").read_bytes())

    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"], config["bias"]) == (4, 8, "none")
    assert not any(config[name] for name in ("use_dora", "use_rslora", "modules_to_save"))
    assert config["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert config["base_model_name_or_path"] == "tiny"


def test_all_weights_are_lora_matrices(folder):
    weights = load_file(folder / "adapter_model.safetensors")

    assert len(weights) == 2 * 7 * 2
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in weights)


def test_a_failed_publication_leaves_nothing(tmp_path, student):
    with pytest.raises(IsADirectoryError):
        publish.publish(tmp_path, student, LINEAGE, PROBES, {".": b""})

    assert list(tmp_path.iterdir()) == []


def test_the_base_is_known_by_weights_and_tokenizer(tmp_path):
    one = publish.base_sha256(save_tiny_model(tmp_path / "one", seed=0))
    same = publish.base_sha256(save_tiny_model(tmp_path / "same", seed=0))
    other = publish.base_sha256(save_tiny_model(tmp_path / "other", seed=1))

    assert one == same != other
