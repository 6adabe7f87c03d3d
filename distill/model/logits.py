"""Logits: hidden states times the output head, which student and teacher share.

They are accumulated in fp32 for any dtype of the weights: a bf16 logit of 20 is off by up to 0.06,
and a divergence is the difference of many such values.

On the CPU, operand order matters. The BLAS in PyTorch repacks one operand of every product; for a
few dozen states and a vocabulary, `head @ states.T` takes half the time of `states @ head.T`, with
the same result up to rounding.
"""

import torch
from torch import Tensor


def logits(states: Tensor, head: Tensor) -> Tensor:
    """Return Float[N, V] logits in fp32, or in float64 for float64 states.

    Args:
        states: Float[N, D], hidden states before the output head.
        head: Float[V, D], the output head.
    """
    if states.is_cuda and states.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(states, head.T, out_dtype=torch.float32)
    wide = torch.promote_types(states.dtype, torch.float32)
    states, head = states.to(wide), head.to(wide)
    return (head @ states.T).T.contiguous() if states.is_cpu else states @ head.T
