"""Writes a LoRA adapter in PEFT's format, which vLLM loads, and canonical JSON for hashing."""

import json
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from distill.model.student import Student

WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"


def write_adapter(folder: Path, student: Student, base_name: str) -> None:
    """Write the student's current adapter in PEFT's format, without a manifest."""
    _write_weights(folder / WEIGHTS, student)
    (folder / CONFIG).write_bytes(canonical(_adapter_config(student, base_name)))


def _write_weights(path: Path, student: Student) -> None:
    weights = get_peft_model_state_dict(student.peft)
    save_file({name: weights[name].cpu().contiguous() for name in sorted(weights)}, path)


def _adapter_config(student: Student, base_name: str) -> dict[str, Any]:
    """Return PEFT's configuration without values that differ between machines."""
    config = student.peft.peft_config["default"].to_dict()
    config |= {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    return json.loads(json.dumps(config, default=str))  # type: ignore[no-any-return]


def canonical(value: object) -> bytes:
    """Return the canonical JSON encoding of a value, for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
