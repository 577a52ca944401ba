# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several test files."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# The same examples at every run: what fails in one place fails in all.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small comparisons on one thread: torch's own thread pool is slow where other processes use the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
