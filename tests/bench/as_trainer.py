"""Imported before torch, lets this process use threads and memory as the trainer does.

OpenMP and torch read `distill.__main__.ENVIRONMENT` once. An engine that the benchmark starts does
not inherit it: it runs as it does in service.
"""

import os

from distill.__main__ import ENVIRONMENT

added = ENVIRONMENT.keys() - os.environ
os.environ.update(ENVIRONMENT | os.environ)

import torch  # noqa: E402 - after its variables

torch.empty(1)  # the first allocation reads its setting
for name in added:
    del os.environ[name]
