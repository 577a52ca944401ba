# SPDX-License-Identifier: Apache-2.0
"""Encoder and decoder with attention: numbers in words to digits. Input and output are not aligned."""

import random

import torch
from torch.nn.utils.rnn import pad_sequence

from rnnfast.models import Seq2Seq, Vocabulary

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(n: int) -> list[str]:
    """507: five hundred seven."""
    if n < 20:
        return [ONES[n]]
    if n < 100:
        return [TENS[n // 10 - 2], *(in_words(n % 10) if n % 10 else [])]
    return [ONES[n // 100], "hundred", *(in_words(n % 100) if n % 100 else [])]


def main(updates: int = 300) -> float:
    torch.manual_seed(0)
    random.seed(0)
    numbers = random.sample(range(1000), 1000)
    train, test = numbers[:800], numbers[800:]
    source = Vocabulary.build((in_words(n) for n in numbers), padding=None, unknown=None)
    target = Vocabulary.build((str(n) for n in numbers), padding=None, unknown=None, special=("<s>", "</s>"))
    words = {n: torch.tensor(source.encode(in_words(n))) for n in numbers}
    digits = {n: torch.tensor(target.encode(str(n))) for n in numbers}

    model = Seq2Seq(len(source), len(target), start=target["<s>"], end=target["</s>"], embedding=32, hidden=64)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(updates):
        batch = random.sample(train, 64)
        x, y = [words[n] for n in batch], [digits[n] for n in batch]
        loss = model.loss(pad_sequence(x), pad_sequence(y), [len(s) for s in x], [len(s) for s in y])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    x = [words[n] for n in test]
    found = model.beam(pad_sequence(x), [len(s) for s in x], size=4, max_length=5)
    read = [
        "".join(target.decode(s[:length])) for s, length in zip(found.symbols[:, 0], found.lengths[:, 0], strict=True)
    ]
    for n, digit in list(zip(test, read, strict=True))[:4]:
        print(f"{' '.join(in_words(n)):28} -> {digit}")
    right = sum(str(n) == digit for n, digit in zip(test, read, strict=True)) / len(test)
    print(f"{right:.1%} of {len(test)} numbers that it has not seen are right")
    return right


if __name__ == "__main__":
    main()
