# SPDX-License-Identifier: Apache-2.0
"""Batches of sequences of about the same length, padded."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnfast.tasks.settings import generator

POOL = 20  # batches whose sequences are sorted together


def by_length(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of all sequences in batches: shuffled, then sorted by length within pools of 20 batches, so that little
    is padded and the order is still a random one."""
    random = generator(seed, epoch)
    order: list[int] = torch.randperm(len(lengths), generator=random).tolist()
    batches = []
    for begin in range(0, len(order), batch * POOL):
        pool = sorted(order[begin : begin + batch * POOL], key=lambda i: lengths[i])
        batches += [pool[i : i + batch] for i in range(0, len(pool), batch)]
    return [batches[i] for i in torch.randperm(len(batches), generator=random).tolist()]


def in_order(lengths: Sequence[int], batch: int) -> list[list[int]]:
    """Indices in batches from the longest to the shortest, for evaluation."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i : i + batch] for i in range(0, len(order), batch)]


def pad_symbols(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Sequences of ids as [T, B] int64, zeros in the padding, and lengths [B]."""
    lengths = torch.tensor([len(s) for s in sequences])
    padded = torch.zeros(int(lengths.max()), len(sequences), dtype=torch.int64)
    for column, sequence in enumerate(sequences):
        padded[: len(sequence), column] = torch.as_tensor(sequence)
    return padded, lengths


def pad_series(series: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Series [T_i, F] as [T, B, F] and lengths [B]."""
    lengths = torch.tensor([len(s) for s in series])
    return torch.nn.utils.rnn.pad_sequence(list(series)), lengths


def by_budget(lengths: Sequence[int], steps: int) -> list[list[int]]:
    """Indices from the longest to the shortest in batches of at most so many steps, padding counted, and of at least
    one sequence."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= steps:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
