"""Triton's kernels are interpreted where there is no GPU; this has to be said before they are defined."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
