# SPDX-License-Identifier: Apache-2.0
"""A character language model: train it on a text, save it, and let it write, one character at a time."""

import math
from itertools import islice
from pathlib import Path
from pydoc_data.topics import topics
from tempfile import TemporaryDirectory

import torch

import rnnfast
from rnnfast.models import LanguageModel, Vocabulary

BATCH, STEPS = 16, 48  # streams side by side, and steps of each update


def main(updates: int = 300) -> float:
    torch.manual_seed(0)
    text = "\n".join(topics[name] for name in ("if", "for", "while", "try", "with", "function", "class"))
    vocabulary = Vocabulary.build([text], padding=None)
    symbols = torch.tensor(vocabulary.encode(text))
    held_out = symbols[-2000:]
    n = (len(symbols) - 2000) // BATCH
    streams = symbols[: n * BATCH].view(BATCH, n).t()  # [n, BATCH], each column a piece of the text

    model = LanguageModel(len(vocabulary), hidden=128, embedding=32, dropout=0.1)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    state, at = None, 0
    for _ in range(updates):
        if at + STEPS + 1 > n:
            state, at = None, 0
        loss, state = model.loss(streams[at : at + STEPS], streams[at + 1 : at + STEPS + 1], state)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state = tuple(s.detach() for s in state)  # truncated BPTT: the state goes on, the gradient does not
        at += STEPS
    bits = math.log2(model.perplexity(held_out[:, None]))
    print(f"{bits:.2f} bits per character on text it has not seen (untrained: {math.log2(len(vocabulary)):.2f})\n")

    with TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.pt", {"characters": vocabulary}, {"bits": bits})
        model = rnnfast.models.load(Path(folder) / "model.pt")
    characters = model.vocabulary["characters"]
    prompt = "The "
    print(prompt, end="")
    for symbol in islice(model.stream(torch.tensor(characters.encode(prompt)), temperature=0.7, top_p=0.95), 200):
        print(characters.symbols[symbol], end="", flush=True)
    print()
    return bits


if __name__ == "__main__":
    main()
