# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several test files."""

from collections.abc import Iterator

import pytest
import torch
import torch._functorch.config
from hypothesis import settings

# The same examples at every run: what fails in one place fails in all.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
# torch warns of an op whose outputs share storage, and raises where the variable CI is set: here it always raises.
torch._functorch.config.error_on_custom_op_aliasing = True


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small comparisons on one thread: torch's own thread pool is slow where other processes use the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
