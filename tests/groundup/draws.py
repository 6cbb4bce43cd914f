"""Random tensors from a seed, for tests that draw their inputs."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

few = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**31 - 1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)
