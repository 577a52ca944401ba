# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's handwritten digits, read pixel by pixel: 1797 sequences of 64 steps."""

import torch
from torch import Tensor

from rnnfast.tasks.data.files import package


def digits() -> tuple[list[Tensor], list[str]]:
    """Sequences [64, 1] of grey values from 0 to 1, row by row, and their labels "0" to "9".

    Raises:
        InputError: scikit-learn is not installed.
    """
    data = package("sklearn.datasets", "the digits").load_digits()
    images = torch.from_numpy(data.images).float().flatten(1) / 16
    return list(images[:, :, None].unbind(0)), [str(label) for label in data.target]
