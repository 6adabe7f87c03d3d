"""The model of a run: one frozen copy of the base weights, and the LoRA adapter being trained.

With the adapter on, it is the student; with the adapter off, it is the teacher (`teacher.py`).
The adapter sits on every linear layer ("LoRA without regret": attention alone learns less), keeps
fp32 master weights, and has no dropout: a step's trajectories are the only noise. Where experts are
one stacked tensor and no linear layers, as in mixtures of experts, they stay as they are.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from distill.model import packing

Tokenizer = Any


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

    def __init__(
        self, base: PreTrainedModel, rank: int, alpha: int, seed: int, recompute: bool = False
    ) -> None:
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
        self.recomputed: list[torch.nn.Module] = []
        if recompute:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            parts = self.model.modules()
            self.recomputed = [
                part for part in parts if isinstance(part, GradientCheckpointingLayer)
            ]

    def parameters(self) -> list[torch.nn.Parameter]:
        """The adapter's weights, in a fixed order."""
        return [parameter for parameter in self.peft.parameters() if parameter.requires_grad]

    @property
    def head(self) -> Tensor:
        """Float[V, D], the output head; frozen and shared by student and teacher."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight

    @contextmanager
    def adapter_disabled(self) -> Iterator[PreTrainedModel]:
        """The pristine base, without gradients, inside the block."""
        with self.peft.disable_adapter(), torch.no_grad():
            yield self.model

    def states(self, sequences: list[tuple[packing.TokenIds, packing.TokenIds]]) -> Tensor:
        """Float[N, D]: hidden states predicting the completions, with the adapter on."""
        prefix = packing.common_prefix([prompt for prompt, _ in sequences])
        with self._recomputing(), self._in_base_precision():
            return packing.completion_states(self.model, sequences, prefix)

    def _in_base_precision(self) -> AbstractContextManager[object]:
        """The adapter's weights are fp32, and without this so would be each layer's kept inputs."""
        if self.model.dtype == torch.float32:
            return nullcontext()
        cast: AbstractContextManager[object] = torch.autocast(
            self.model.device.type, self.model.dtype
        )
        return cast

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Layers check this flag of their own; what is in them stays in evaluation, undropped."""
        for layer in self.recomputed:
            layer.training = torch.is_grad_enabled()
        try:
            yield
        finally:
            for layer in self.recomputed:
                layer.training = False
