# SPDX-License-Identifier: Apache-2.0
"""From a sentence to a call: slot filling with an intent. And online: labels of sensor frames as they come."""

import json
import random

import torch
from torch.nn.utils.rnn import pad_sequence

from rnnfast.models import SequenceTagger, Vocabulary, spell

CITIES = ["boston", "denver", "dallas", "atlanta", "oakland", "baltimore", "pittsburgh", "philadelphia"]
DAYS = ["monday", "tuesday", "friday", "tomorrow"]
PATTERNS = [  # {slot} is filled in; what comes before the colon is the intent
    "flight: flights from {from} to {to} {day}",
    "flight: show me flights to {to} from {from}",
    "fare: how much is a ticket from {from} to {to}",
    "fare: {day} fares to {to}",
    "ground: how do i get to {to} from the airport on {day}",
]


def sentence() -> tuple[list[str], list[str], str]:
    """Words, their BIO labels, and the intent."""
    intent, _, pattern = random.choice(PATTERNS).partition(": ")
    words, labels = [], []
    for word in pattern.split():
        slot = word.strip("{}")
        words.append(random.choice(DAYS if slot == "day" else CITIES) if "{" in word else word)
        labels.append(f"B-{slot}" if "{" in word else "O")
    return words, labels, intent


def understand(updates: int) -> SequenceTagger:
    """Trains a bidirectional tagger with a CRF, spelling features and an intent."""
    words, labels, intents = zip(*(sentence() for _ in range(200)), strict=True)
    vocabulary = {
        "words": Vocabulary.build(words),
        "labels": Vocabulary.build(labels, padding=None, unknown=None),
        "intents": Vocabulary.build([intents], padding=None, unknown=None),
        "characters": Vocabulary.build(w for s in words for w in s),
    }
    model = SequenceTagger(
        len(vocabulary["labels"]),
        symbols=len(vocabulary["words"]),
        characters=len(vocabulary["characters"]),
        intents=len(vocabulary["intents"]),
        hidden=32,
        bidirectional=True,
        crf=True,
        dropout=0.2,
    )
    model.vocabulary = vocabulary
    lengths = [len(s) for s in words]
    x = pad_sequence([torch.tensor(vocabulary["words"].encode(s)) for s in words])  # [T, B]
    target = pad_sequence([torch.tensor(vocabulary["labels"].encode(s)) for s in labels])
    intent = torch.tensor(vocabulary["intents"].encode(intents))
    spelling = spell(words, vocabulary["characters"])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(updates):
        optimizer.zero_grad()
        model.loss(x, target, lengths, spelling, intent).backward()
        optimizer.step()
    return model


def main(updates: int = 40) -> dict:
    torch.manual_seed(0)
    random.seed(0)
    model = understand(updates)
    for text in ("flights from boston to denver tomorrow", "how much is a ticket from dallas to philadelphia"):
        call = model.understand(text.split())
        print(text, "\n   ", json.dumps(call))

    # A machine that hums louder and louder: is it still well? Asked at every frame, nothing of the future known.
    online = SequenceTagger(2, features=1, hidden=16, cell="gru")
    optimizer = torch.optim.Adam(online.parameters(), 2e-2)
    for _ in range(updates):
        loud = torch.randint(5, 25, (32,))
        wrong = (torch.arange(30)[:, None] >= loud).long()  # [T, B]
        frames = torch.randn(30, 32, 1) * (1 + 2 * wrong[..., None])
        optimizer.zero_grad()
        online.loss(frames, wrong).backward()
        optimizer.step()
    stream = online.stream()
    for t in range(30):
        label = stream(torch.randn(1, 1) * (3 if t >= 15 else 1)).argmax(-1)
        print("!" if label else ".", end="")
    print("   (louder from the middle on)")
    return call


if __name__ == "__main__":
    main()
