"""The adapter folder: the files that training hands to serving.

A folder `bh-<base8>-<sha12>` appears complete, by an atomic rename, and never changes:

    adapter_model.safetensors, adapter_config.json   LoRA in PEFT's format, as vLLM loads it
    metrics.jsonl                                    training curves, one line per step
    evaluation.json                                  measurements of `evaluate/candidate.py`
    residual.md                                      what must stay in the prompt; may be empty
    frontier.png                                     right answers by tokens in the prompt
    manifest.json                                    below

`manifest.json` is JSON with sorted keys and no spaces (`canonical`), no trailing line end:

    format          1
    files           {file name: SHA-256 of the file}, every other file of the folder
    base            {"name": ..., "sha256": `base_sha256` of the model folder}
    context_sha256  hash of the distilled context (store.contexts.Context.hash)
    data_sha256     hash of the prompts, held-out prompts and anchors of the run
    settings        the settings of the run
    run             identifier of the run, or null without a database
    parent          name of the parent adapter, or null
    probe           [{"prompt_ids", "completion_ids", "student", "base"}]: the
                    log-probability, in nats, that the trained student and the base give each
                    completion token; a server that matches neither serves something else.

The name authenticates the manifest (base8 is the start of base.sha256, sha12 the start of the
SHA-256 of manifest.json), and the manifest authenticates every other file
(`store.manifests.verify_files`). It holds no times and no machine names: repeating a run on the
same machine with the same thread count gives the same name. Other processors and thread counts
round differently. Another run gives another name, so a rejected or rolled-back adapter can be
trained again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.evaluate.probe import Probe
from distill.model.adapter_files import MANIFEST, canonical, write_adapter
from distill.model.student import Student
from store import durable_files


@dataclass(frozen=True)
class Lineage:
    """The origin of an adapter."""

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
        lineage: Its origin.
        probes: For the identity check of the engine.
        documents: Further files of the folder: curves and measurements.
    """
    with durable_files.staging(out) as folder:
        write_adapter(folder, student, lineage.base_name)
        for name, content in documents.items():
            (folder / name).write_bytes(content)
        manifest = canonical(_manifest(folder, lineage, probes))
        (folder / MANIFEST).write_bytes(manifest)
        target = out / adapter_name(lineage.base_sha256, manifest)
        durable_files.publish(folder, target)
    return target


def _manifest(folder: Path, lineage: Lineage, probes: Sequence[Probe]) -> dict[str, Any]:
    return {
        "format": 1,
        "files": {path.name: durable_files.sha256(path) for path in sorted(folder.iterdir())},
        "base": {"name": lineage.base_name, "sha256": lineage.base_sha256},
        "context_sha256": lineage.context_sha256,
        "data_sha256": lineage.data_sha256,
        "settings": lineage.settings,
        "run": lineage.run,
        "parent": lineage.parent,
        "probe": [asdict(probe) for probe in probes],
    }


def adapter_name(base_sha256: str, manifest: bytes) -> str:
    """Return the folder name for this manifest."""
    return f"bh-{base_sha256[:8]}-{hashlib.sha256(manifest).hexdigest()[:12]}"
