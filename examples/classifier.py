# SPDX-License-Identifier: Apache-2.0
"""Classify sequences by what came first: a recurrent net against a sum of its inputs, which cannot know."""

import torch
from torch import Tensor

from rnnfast.models import SequenceClassifier

STEPS = 30


def samples(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a pulse on each of two channels; class 1 where the second channel's comes first. Unequal lengths."""
    lengths = torch.randint(STEPS // 2, STEPS + 1, (count,))
    x = 0.1 * torch.randn(STEPS, count, 2)
    classes = torch.randint(2, (count,))
    for b in range(count):
        early, late = sorted(torch.randperm(int(lengths[b]))[:2].tolist())
        x[early, b, classes[b]] += 1
        x[late, b, 1 - classes[b]] += 1
    return x, lengths, classes


def accuracy(cell: str, updates: int) -> float:
    """Of a model with this cell, on samples that it has not seen."""
    torch.manual_seed(0)
    model = SequenceClassifier(2, features=2, hidden=32, cell=cell)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(updates):
        x, lengths, classes = samples(64)
        optimizer.zero_grad()
        model.loss(x, classes, lengths).backward()
        optimizer.step()
    x, lengths, classes = samples(500)
    predicted, _ = model.predict(x, lengths)
    return (predicted == classes).float().mean().item()


def main(updates: int = 150) -> float:
    print(f"sum of the inputs: {accuracy('none', updates):.1%} right (it is blind to order: a coin does as well)")
    result = accuracy("gru", updates)
    print(f"GRU:               {result:.1%} right")
    return result


if __name__ == "__main__":
    main()
