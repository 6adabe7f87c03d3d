"""The model of a run: one frozen copy of the base weights, and the LoRA adapter being trained.

With the adapter on, it is the student; with the adapter off, it is the teacher (`teacher.py`).
The adapter sits on every linear layer ("LoRA without regret": attention alone learns less), keeps
fp32 master weights, and has no dropout: a step's trajectories are the only noise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from distill import packing

Tokenizer = Any


class ModelError(Exception):
    """The model folder cannot be used; the message says why."""


def load_base(folder: Path, device: torch.device) -> tuple[PreTrainedModel, Tokenizer]:
    """Load the frozen base and its tokenizer.

    On a CPU without bf16 arithmetic fp32 is many times faster, and exact for bf16 weights.

    Raises:
        ModelError: The folder holds no causal language model, or one without chat template.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot load a model from {folder}: {error}") from error
    if not tokenizer.chat_template:
        raise ModelError(f"The tokenizer in {folder} has no chat template.")
    model.requires_grad_(False)
    return model.to(device).eval(), tokenizer


def stop_ids(model: PreTrainedModel, tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that end an answer: those of the tokenizer and of the generation settings."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return frozenset({*several, tokenizer.eos_token_id} - {None})


def linear_names(base: PreTrainedModel) -> list[str]:
    """Names of all linear layers except the output head, as every layer of the model calls them."""
    head = base.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return sorted(names)


class Student:
    """The base with its adapter, and the switch between the two."""

    def __init__(self, base: PreTrainedModel, rank: int, alpha: int, seed: int) -> None:
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=linear_names(base),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.peft: PeftModel = get_peft_model(base, config)
        for parameter in self.parameters():
            parameter.data = parameter.data.float()
        self.model: PreTrainedModel = self.peft.get_base_model()

    def parameters(self) -> list[torch.nn.Parameter]:
        """The adapter's weights, in a fixed order."""
        return [parameter for parameter in self.peft.parameters() if parameter.requires_grad]

    @property
    def head(self) -> Tensor:
        """Float[V, D], the output head; frozen and shared by student and teacher."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight

    @contextmanager
    def adapter_off(self) -> Iterator[PreTrainedModel]:
        """The pristine base, without gradients, inside the block."""
        with self.peft.disable_adapter(), torch.no_grad():
            yield self.model

    def states(self, sequences: list[tuple[packing.Ids, packing.Ids]]) -> Tensor:
        """Float[N, D]: hidden states predicting the completions, with the adapter on."""
        prefix = packing.common_prefix([prompt for prompt, _ in sequences])
        return packing.completion_states(self.model, sequences, prefix)
