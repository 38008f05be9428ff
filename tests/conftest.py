"""What every test runs under: no network, one thread, a fixed seed, reproducible property tests, Triton interpreted."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # which Triton has to know when it is first imported

import pytest
from hypothesis import settings

pytest_plugins = ["tests.local_hub.fixtures"]

settings.register_profile("stable", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("stable")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
