"""`EVERY_DEVICE`: runs a test on the CPU, and on a GPU if there is one (`pytest -m gpu`)."""

import pytest
import torch

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    ],
)
EVERY_DEVICE = pytest.mark.parametrize("device", ["cpu", CUDA])
