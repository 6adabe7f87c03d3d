"""Loads the base model and proves that this trainer supports it.

The trainer packs sequences behind a cached prefix (`packing.py`), computes logits from hidden
states with the output head alone, and puts the context into a system message. That is correct for
full attention (Llama, Qwen2, Qwen3, Phi without sliding windows, Granite without scaled logits,
mixtures of experts) and wrong for sliding windows, recurrent layers, scaled or capped logits and
chat templates without system messages. An unsupported base is rejected at load: training it would
give an adapter that answers differently from what was evaluated.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from distill.model import decoding, packing
from distill.model.decoding import DecodeBatch, SharedPrefix
from distill.model.student import linear_names
from store.durable_files import sha256

PREFIX = (11, 7, 23, 5, 17, 3)
SEQUENCES = (
    ((*PREFIX, 19, 13), (8, 21, 6, 15)),
    ((*PREFIX, 4, 9, 22, 10, 16, 12, 20, 14), (18, 5, 7)),
)
TOLERANCE = 1e-3
# RoPE types whose angles depend on the length of the text.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
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
PROBE_TEXT = "Be brief."


class ModelError(Exception):
    """The model folder cannot be used; the message says why."""


def load_base(
    folder: Path, device: torch.device, shard: Callable[[PreTrainedModel], None] | None = None
) -> tuple[PreTrainedModel, Any]:
    """Load the frozen base and its tokenizer.

    On the CPU the weights are fp32, which is exact for bf16 weights and many times faster on CPUs
    without bf16 arithmetic.

    Args:
        folder: The model folder.
        device: The target device.
        shard: Shards the model in place before it moves to the device.

    Raises:
        ModelError: The folder holds no causal language model, or one that cannot be trained here.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}; a model folder is needed.")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"Cannot load a model from {folder}: {error}") from error
    model = model.requires_grad_(False).eval()
    if shard:
        shard(model)
    model = model.to(device)
    check_template(tokenizer)
    check_layers(model)
    try:
        check_packing(model)
        check_decoding(model)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(
            f"Models of the kind {type(model).__name__} are not supported: packed sequences and "
            f"cached prefixes do not run through it ({error})."
        ) from error
    return model, tokenizer


def base_sha256(folder: Path) -> str:
    """Return the identity of a base: SHA-256 over `sha256sum` lines of its files, sorted by name.

    Weights, configurations, tokenizer and chat template count (`BASE_FILES`); other files do not.
    """
    matching = {path for pattern in BASE_FILES for path in folder.glob(pattern)}
    files = [path for path in matching if path.is_file()]
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def stop_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401
    """Return the stop tokens of the tokenizer and of the generation config."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset({*ids, tokenizer.eos_token_id} - {None})


def max_positions(model: PreTrainedModel) -> int:
    """Return the maximum tokens of a text, also for multimodal models.

    With a length-dependent RoPE, return the length up to which its angles are constant; beyond it,
    cached keys would be wrong.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in LENGTH_DEPENDENT_ROPE:
        return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
    return int(config.max_position_embeddings)


def check_template(tokenizer: Any) -> None:  # noqa: ANN401
    """Check that the chat template renders a system message.

    Raises:
        ModelError: There is no chat template, or it rejects or drops a system message.
    """
    if not tokenizer.chat_template:
        raise ModelError("The tokenizer has no chat template.")
    conversation = [{"role": "system", "content": PROBE_TEXT}, {"role": "user", "content": "Hi"}]
    try:
        rendered = tokenizer.apply_chat_template(conversation, tokenize=False)
    except TemplateError as error:
        raise ModelError(
            f"The chat template rejects a system message ({error}), which holds the "
            "context. Use a model or a template that accepts one."
        ) from error
    if PROBE_TEXT not in rendered:
        raise ModelError("The chat template drops the system message, which holds the context.")


def check_layers(model: PreTrainedModel) -> None:
    """Check that every layer attends to the whole text.

    Raises:
        ModelError: A layer does not; the message names its kind. Or there is no linear layer for an
            adapter.
    """
    if not linear_names(model):
        raise ModelError(
            f"Models of the kind {type(model).__name__} are not supported: they have no linear "
            "layers for an adapter to sit on."
        )
    for layer in DynamicCache(config=model.config).layers:
        window = getattr(layer, "sliding_window", None)
        if window is not None and window < max_positions(model):
            raise ModelError(
                f"Attention in a window of {window} tokens is not supported: this model's layers "
                "do not see the whole text."
            )
        if window is None and type(layer) is not DynamicLayer:
            raise ModelError(
                f"Layers of the kind {type(layer).__name__} are not supported: only attention over "
                "the whole text is."
            )


def check_packing(model: PreTrainedModel) -> None:
    """Prove on a few tokens that packed sequences get the logits of unpacked ones.

    Raises:
        ModelError: The logits differ; the message names the cause.
    """
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        reference = torch.cat([_logits(model, *sequence) for sequence in SEQUENCES])
        through_head = [packing.completion_states(model, [pair], ()) for pair in SEQUENCES]
        cache = packing.prefix_cache(model, PREFIX)
        # Twice, to check that the first pass restores the cache.
        packed = [packing.completion_states(model, SEQUENCES, PREFIX, cache) for _ in range(2)]
    if not is_close(torch.cat(through_head) @ head.T, reference):
        raise ModelError(
            "A scaled, capped or biased output is not supported: hidden states through the output "
            "head are not this model's logits."
        )
    if not all(is_close(states @ head.T, reference) for states in packed):
        raise ModelError(
            "This model's attention or positions are not supported: sequences in one row behind a "
            "cached prefix do not get the logits of unpacked ones."
        )


def check_decoding(model: PreTrainedModel) -> None:
    """Prove on a few tokens that batched decoding gives the logits of the ordinary forward pass.

    Raises:
        ModelError: The logits differ.
    """
    head = model.get_output_embeddings().weight
    model.set_attn_implementation(decoding.ATTENTION_NAME)
    prompts = [prompt for prompt, _ in SEQUENCES]
    with torch.no_grad():
        batch = DecodeBatch(model, prompts, SharedPrefix.compute(model, PREFIX), max_new_tokens=1)
        states = [batch.prefill(), batch.decode([completion[0] for _, completion in SEQUENCES])]
        reference = [_logits(model, prompt, completion[:2]) for prompt, completion in SEQUENCES]
    if not is_close(torch.stack(states, 1) @ head.T, torch.stack(reference)):
        raise ModelError(
            "This model's attention is not supported: batched decoding does not give the logits of "
            "the ordinary forward pass."
        )


def _logits(
    model: PreTrainedModel, prompt: packing.TokenIds, completion: packing.TokenIds
) -> Tensor:
    """Return Float[C, V], the logits of the completion by the ordinary forward pass."""
    ids = torch.tensor([prompt + completion], device=model.device)
    logits: Tensor = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return logits


def is_close(actual: Tensor, expected: Tensor) -> bool:
    """Whether logits are equal up to the device's rounding."""
    scale = TOLERANCE if actual.device.type == "cpu" else 50 * TOLERANCE
    difference = (actual.float() - expected.float()).abs().max()
    return bool(difference <= scale * (1 + expected.abs().max()))
