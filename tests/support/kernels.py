"""Where tests of Triton's kernels run: on a GPU, or without one in Triton's interpreter, which is on the CPU.

``TRITON_INTERPRET=1 pytest tests/training/cuda`` runs them there.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
CUDA = torch.device("cuda")
DEVICE = torch.device("cpu") if INTERPRETED else CUDA

on_gpu_only = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
needs_kernels = [
    pytest.mark.cuda,
    pytest.mark.skipif(not (torch.cuda.is_available() or INTERPRETED), reason="PyTorch sees no GPU"),
]
"""The marks of a file of such tests."""
