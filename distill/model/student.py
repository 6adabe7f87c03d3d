"""The student: one frozen copy of the base weights with the LoRA adapter that is trained.

With the adapter enabled the model is the student; disabled, it is the teacher (`teacher.py`). The
adapter covers every linear layer ("LoRA without regret": attention alone learns less), keeps fp32
master weights and has no dropout, so trajectories are the only noise of a step. Experts stored as
one stacked tensor, as in mixtures of experts, are not linear layers and get no adapter.
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
    """Return the module names of all linear layers but the output head, for LoRA's targets."""
    head = base.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return sorted(names)


class Student:
    """The base with its adapter, which can be disabled."""

    def __init__(
        self,
        base: PreTrainedModel,
        rank: int,
        alpha: int,
        seed: int,
        gradient_checkpointing: bool = False,
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
        self.checkpointed_layers: list[torch.nn.Module] = []
        if gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            modules = self.model.modules()
            self.checkpointed_layers = [
                module for module in modules if isinstance(module, GradientCheckpointingLayer)
            ]

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return the adapter's weights, in a fixed order."""
        return [parameter for parameter in self.peft.parameters() if parameter.requires_grad]

    @property
    def head(self) -> Tensor:
        """Float[V, D], the frozen output head that student and teacher share."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight

    @contextmanager
    def adapter_disabled(self) -> Iterator[PreTrainedModel]:
        """Yield the base model, without gradients."""
        with self.peft.disable_adapter(), torch.no_grad():
            yield self.model

    def states(self, sequences: list[tuple[packing.TokenIds, packing.TokenIds]]) -> Tensor:
        """Return Float[N, D], the hidden states that predict the completions, adapter enabled."""
        prefix = packing.common_prefix([prompt for prompt, _ in sequences])
        with self._gradient_checkpointing(), self._in_base_precision():
            return packing.completion_states(self.model, sequences, prefix)

    def _in_base_precision(self) -> AbstractContextManager[object]:
        """Autocast to the base's dtype; the fp32 adapter would make saved activations fp32."""
        if self.model.dtype == torch.float32:
            return nullcontext()
        cast: AbstractContextManager[object] = torch.autocast(
            self.model.device.type, self.model.dtype
        )
        return cast

    @contextmanager
    def _gradient_checkpointing(self) -> Iterator[None]:
        """Set the layers' training flag, which enables checkpointing; submodules stay in eval."""
        for layer in self.checkpointed_layers:
            layer.training = torch.is_grad_enabled()
        try:
            yield
        finally:
            for layer in self.checkpointed_layers:
                layer.training = False
