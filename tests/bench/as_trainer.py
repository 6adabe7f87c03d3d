"""Imported before torch, lets this process wait for its threads as the trainer does.

OpenMP reads the setting of `distill/__main__.py` when torch is loaded. An engine that the benchmark
starts does not inherit it: it waits as it does in service.
"""

import os

if "GOMP_SPINCOUNT" not in os.environ:
    os.environ["GOMP_SPINCOUNT"] = "1000"
    import torch  # noqa: F401

    del os.environ["GOMP_SPINCOUNT"]
