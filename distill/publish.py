"""The adapter folder: the whole contract between training and serving.

A folder `bh-<base8>-<sha12>` appears by rename, complete, and never changes:

    adapter_model.safetensors, adapter_config.json   LoRA in PEFT's format, as vLLM loads it
    metrics.jsonl                                    training curves, one line a step
    evaluation.json                                  what `evaluate.py` measured
    manifest.json                                    below

`manifest.json` is JSON with sorted keys and no spaces (`canonical`), no trailing line end:

    format          1
    files           {file name: SHA-256 of the file}, every other file of the folder
    base            {"name": ..., "sha256": `base_sha256` of the model folder}
    context_sha256  hash of the context that was internalised (store.contexts.Context.hash)
    data_sha256     hash of the prompts, held-out prompts and anchors that the run was given
    settings        the settings of the run
    run             identifier of the run, or null where the trainer worked alone
    parent          name of the adapter that the run started from, or null for the base
    probe           [{"prompt_ids", "completion_ids", "student", "base"}]: the
                    log-probability, in nats, that the trained student and the base give each
                    completion token. A server that answers like neither serves something else.

The name vouches for the manifest (base8 is the start of base.sha256, sha12 the start of the SHA-256
of manifest.json), and the manifest vouches for every other file (`store.manifests.verify_files`).
Times and machine names are not in it: a run that is done again on the same machine with as many
threads gives the same name. Other processors and thread counts round otherwise. Another run gives
another name, so that what was rejected or rolled back can be trained again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from distill import atomic
from distill.student import Student

WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"
BASE_FILES = (
    "*.safetensors",
    "pytorch_model*.bin",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
)


@dataclass(frozen=True)
class Probe:
    """One completion, and how the trained student and the base judge its tokens."""

    prompt_ids: list[int]
    completion_ids: list[int]
    student: list[float]
    base: list[float]


@dataclass(frozen=True)
class Lineage:
    """Where an adapter comes from."""

    base_name: str
    base_sha256: str
    context_sha256: str
    data_sha256: str
    settings: dict[str, Any]
    run: str | None
    parent: str | None


def publish(
    out: Path,
    student: Student,
    lineage: Lineage,
    probes: Sequence[Probe],
    documents: dict[str, bytes],
) -> Path:
    """Write the adapter under its content-addressed name, atomically, and return the folder.

    Args:
        out: Folder of all adapters.
        student: Holds the trained adapter.
        lineage: Where it comes from.
        probes: For the server's identity check.
        documents: Other files to put in the folder: curves and measurements.
    """
    with atomic.staging(out) as folder:
        write_adapter(folder, student, lineage.base_name)
        for name, content in documents.items():
            (folder / name).write_bytes(content)
        manifest = canonical(_manifest(folder, lineage, probes))
        (folder / MANIFEST).write_bytes(manifest)
        target = out / adapter_name(lineage.base_sha256, manifest)
        atomic.settle(folder, target)
    return target


def write_adapter(folder: Path, student: Student, base_name: str) -> None:
    """Write the adapter as it is now, in PEFT's format, without a manifest."""
    _write_weights(folder / WEIGHTS, student)
    (folder / CONFIG).write_bytes(canonical(_adapter_config(student, base_name)))


def _write_weights(path: Path, student: Student) -> None:
    weights = get_peft_model_state_dict(student.peft)
    save_file({name: weights[name].cpu().contiguous() for name in sorted(weights)}, path)


def _adapter_config(student: Student, base_name: str) -> dict[str, Any]:
    """PEFT's own configuration, without anything that differs between machines."""
    config = student.peft.peft_config["default"].to_dict()
    config |= {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    return json.loads(json.dumps(config, default=str))  # type: ignore[no-any-return]


def _manifest(folder: Path, lineage: Lineage, probes: Sequence[Probe]) -> dict[str, Any]:
    return {
        "format": 1,
        "files": {path.name: atomic.sha256(path) for path in sorted(folder.iterdir())},
        "base": {"name": lineage.base_name, "sha256": lineage.base_sha256},
        "context_sha256": lineage.context_sha256,
        "data_sha256": lineage.data_sha256,
        "settings": lineage.settings,
        "run": lineage.run,
        "parent": lineage.parent,
        "probe": [asdict(probe) for probe in probes],
    }


def adapter_name(base_sha256: str, manifest: bytes) -> str:
    """The folder name that this manifest must have."""
    return f"bh-{base_sha256[:8]}-{hashlib.sha256(manifest).hexdigest()[:12]}"


def canonical(value: object) -> bytes:
    """The one JSON encoding of a value that hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def base_sha256(folder: Path) -> str:
    """The identity of a base model: SHA-256 over `sha256sum` lines of its files, sorted by name.

    Weights, configurations, tokenizer and chat template count (`BASE_FILES`); other files do not.
    """
    matching = {path for pattern in BASE_FILES for path in folder.glob(pattern)}
    files = [path for path in matching if path.is_file()]
    lines = [f"{atomic.sha256(path)}  {path.name}\n" for path in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
