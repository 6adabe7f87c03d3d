"""On-policy context distillation: from a context and prompts to a published LoRA adapter.

Start with `train.py`, a whole run from top to bottom, then `steps.py`, the training loop, and
`loss.py`, the divergences. `model/packing.py` is the forward pass that student and teacher share.
Serving meets this package only in the adapter folder that `run/publish.py` writes.
"""
