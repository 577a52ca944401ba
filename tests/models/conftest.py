# SPDX-License-Identifier: Apache-2.0
"""All of these tests are small: one thread, a fixed seed."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def small(one_thread: None) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
