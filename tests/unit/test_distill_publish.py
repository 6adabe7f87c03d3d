"""Adapter folders are complete, can be verified, and have a configuration that vLLM accepts."""

import hashlib
import json

import pytest
from safetensors.torch import load_file

from distill.evaluate.probe import Probe
from distill.model.adapter_files import MANIFEST
from distill.model.base import base_sha256
from distill.model.student import Student
from distill.run import publish
from distill.run.publish import Lineage
from store.durable_files import sha256
from store.manifests import verify_files
from tests.support.tiny import save_tiny_model, tiny_model

LINEAGE = Lineage("tiny", "ab" * 32, "cd" * 32, "ef" * 32, {"steps": 3}, "run_1", None)
PROBES = [Probe([1, 2], [3], [-0.5], [-2.0])]


@pytest.fixture
def student():
    return Student(tiny_model(), rank=4, alpha=8, seed=0)


@pytest.fixture
def folder(tmp_path, student):
    return publish.publish(tmp_path, student, LINEAGE, PROBES, {"metrics.jsonl": b"{}\n"})


def test_a_published_folder_verifies_and_names_its_origin(folder):
    content = (folder / MANIFEST).read_bytes()
    manifest = json.loads(content)

    verify_files(folder, sha256(folder / MANIFEST))
    assert folder.name == f"bh-abababab-{hashlib.sha256(content).hexdigest()[:12]}"
    assert manifest["base"] == {"name": "tiny", "sha256": "ab" * 32}
    assert manifest["probe"] == [
        {"prompt_ids": [1, 2], "completion_ids": [3], "student": [-0.5], "base": [-2.0]}
    ]


def test_publishing_the_same_adapter_again_keeps_its_name_and_folder(folder, student):
    again = publish.publish(folder.parent, student, LINEAGE, PROBES, {"metrics.jsonl": b"{}\n"})

    assert again == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_adapter_configuration_is_one_that_vllm_accepts(folder):
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


def test_the_hash_of_the_base_depends_on_content_and_not_on_its_folder(tmp_path):
    one = base_sha256(save_tiny_model(tmp_path / "one", seed=0))
    same = base_sha256(save_tiny_model(tmp_path / "same", seed=0))
    other = base_sha256(save_tiny_model(tmp_path / "other", seed=1))

    assert one == same != other


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("pytorch_model-00001-of-00002.bin", True),
        ("generation_config.json", True),
        ("tokenizer.model", True),
        ("vocab.json", True),
        ("merges.txt", True),
        ("chat_template.jinja", True),
        ("README.md", False),
        ("SHA256SUMS", False),
        ("training_args.bin", False),
    ],
)
def test_every_file_that_affects_answers_is_part_of_the_bases_hash(tmp_path, name, counts):
    folder = save_tiny_model(tmp_path / "model")
    before = base_sha256(folder)
    (folder / name).write_bytes(b"other")

    assert (base_sha256(folder) != before) is counts
