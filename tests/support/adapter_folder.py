"""`write_adapter()` and `score()`: an adapter with probes, and a fake vLLM's answers to them."""

import json
from pathlib import Path

from store.durable_files import sha256
from store.manifests import MANIFEST
from tests.support.fake_vllm import FakeVllm

COMPLETION = [11, 12, 13]
BASE = {11: -3.0, 12: -0.5, 13: -6.0}
STUDENT = {11: -0.2, 12: -0.4, 13: -0.1}


def write_adapter(folder: Path) -> str:
    """Write an adapter into the folder; returns the hash of its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    probe = {
        "prompt_ids": [1, 2],
        "completion_ids": COMPLETION,
        "student": [STUDENT[token] for token in COMPLETION],
        "base": [BASE[token] for token in COMPLETION],
    }
    files = {file.name: sha256(file) for file in folder.iterdir()}
    manifest = {"files": files, "base": "smol", "probe": [probe]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return sha256(folder / MANIFEST)


def score(fake: FakeVllm, adapter: dict[int, float], base: dict[int, float]) -> None:
    """Give the fake these log-probabilities (+ 0.01) for adapters and for the base model."""
    fake.score_with(
        lambda model, ids: [
            (base if model == fake.model else adapter).get(token, -1.0) + 0.01 for token in ids
        ]
    )
