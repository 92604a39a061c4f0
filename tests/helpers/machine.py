"""Marks for tests that need more than a CPU and an interpreter."""

import shutil

import pytest
import torch

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
ON_GPU = pytest.param("cuda", marks=[pytest.mark.cuda, NEEDS_GPU])
"""The parameter "cuda", skipped where there is no GPU."""
