# SPDX-License-Identifier: Apache-2.0
"""Truncated BPTT over long streams: the state is carried from chunk to chunk, the gradient is not."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnfast.demo.text import Corpus, streams
from rnnfast.models import LanguageModel
from rnnfast.runs import InputError

LN2 = math.log(2)
CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers; a resumed run must have the same."""

    seed: int = 0
    steps: int = 1800
    batch: int = 32
    chunk: int = 64  # T of one update, in characters
    hidden: int = 256
    layers: int = 1
    embedding: int = 64
    dropout: float = 0.2
    learning_rate: float = 5e-3
    clip: float = 1.0
    evaluate_every: int = 200


@dataclass
class Progress:
    """How far a run is, and its record."""

    step: int = 0
    seconds: float = 0.0
    best_bits: float = math.inf
    loss_bits: list[float] = field(default_factory=list)  # each update
    gradient_norm: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)  # (step, bits per character)


def learning_rate(step: int, s: Settings) -> float:
    """A short warm-up, then half a cosine down to a twentieth."""
    warm_up = min(50, max(1, s.steps // 20))
    if step < warm_up:
        return s.learning_rate * (step + 1) / warm_up
    done = (step - warm_up) / max(1, s.steps - warm_up)
    return s.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Trainer:
    """One run: model, optimizer, streams and state. `advance` makes one update."""

    def __init__(self, corpus: Corpus, settings: Settings) -> None:
        self.corpus, self.settings = corpus, settings
        self.progress = Progress()
        torch.manual_seed(settings.seed)
        self.model = LanguageModel(
            corpus.symbols, settings.hidden, settings.layers, settings.embedding, settings.dropout
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.learning_rate)
        self.streams = streams(corpus.train, settings.batch)
        if self.streams.shape[0] < 2:
            raise InputError(
                f"--batch {settings.batch}: expected at most {corpus.train.numel() // 2} streams for this text"
            )
        self.position = 0
        self.state: tuple[Tensor, Tensor] | None = None
        self.best: dict[str, Tensor] = {}

    def chunk(self) -> tuple[Tensor, Tensor]:
        """The next [T, B] symbols and their successors; at the end of the streams it starts over."""
        if self.position + 2 > self.streams.shape[0]:
            self.position, self.state = 0, None
        end = min(self.position + self.settings.chunk, self.streams.shape[0] - 1)
        x, target = self.streams[self.position : end], self.streams[self.position + 1 : end + 1]
        self.position = end
        return x, target

    def advance(self) -> float:
        """One update; returns its loss in bits per character."""
        started = time.perf_counter()
        s, p = self.settings, self.progress
        self.model.train()
        x, target = self.chunk()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(p.step, s)
        logits, state = self.model(x, self.state)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip)
        self.optimizer.step()
        self.state = (state[0].detach(), state[1].detach())
        bits = loss.item() / LN2
        p.loss_bits.append(bits)
        p.gradient_norm.append(norm.item())
        p.step += 1
        p.seconds += time.perf_counter() - started
        return bits

    def evaluate(self) -> float:
        """Bits per character on the held-out text, read once from front to back; keeps the best model."""
        bits = held_out_bits(self.model, self.corpus.held_out)
        self.progress.held_out.append((self.progress.step, bits))
        if bits < self.progress.best_bits:
            self.progress.best_bits = bits
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        return bits

    def run(self, on_step: Callable[["Trainer", float], None], deadline: float = math.inf) -> bool:
        """Trains to the last step, or until `time.monotonic()` passes the deadline; says whether it got to the end."""
        s, p = self.settings, self.progress
        while p.step < s.steps and time.monotonic() < deadline:
            bits = self.advance()
            if p.step % s.evaluate_every == 0 or p.step == s.steps:
                self.evaluate()
            on_step(self, bits)
        if not p.held_out or p.held_out[-1][0] != p.step:
            self.evaluate()
        return p.step >= s.steps

    def save(self, path: Path) -> None:
        """Writes all that a resumed run needs to give the same numbers; whole or not at all."""
        data = {
            "version": CHECKPOINT_VERSION,
            "settings": asdict(self.settings),
            "progress": asdict(self.progress),
            "characters": self.corpus.characters,
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "position": self.position,
            "state": list(self.state) if self.state else None,
            "random": torch.get_rng_state(),
        }
        partial = path.with_suffix(".partial")
        torch.save(data, partial)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path, corpus: Corpus) -> "Trainer":
        """Goes on from a checkpoint, on the same text."""
        data = read_checkpoint(path)
        if data["characters"] != corpus.characters:
            raise InputError(f"--resume {path.parent}: this run was trained on another text")
        trainer = cls(corpus, Settings(**data["settings"]))
        progress = dict(data["progress"])
        progress["held_out"] = [(int(step), float(bits)) for step, bits in progress["held_out"]]
        trainer.progress = Progress(**progress)
        trainer.model.load_state_dict(data["model"])
        trainer.best = data["best"]
        trainer.optimizer.load_state_dict(data["optimizer"])
        trainer.position = data["position"]
        trainer.state = tuple(data["state"]) if data["state"] else None
        torch.set_rng_state(data["random"])
        return trainer


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content. Executes nothing of it (weights_only)."""
    try:
        data = torch.load(path, weights_only=True)
        if data["version"] != CHECKPOINT_VERSION:
            raise KeyError(f"version {data['version']}")
        return dict(data)
    except FileNotFoundError:
        raise InputError(f"--resume {path.parent}: there is no checkpoint in this folder") from None
    except Exception as error:
        # Whatever a damaged file makes the reader raise, the user can do one thing about it.
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"--resume {path.parent}: the checkpoint cannot be read ({reason})") from None


@torch.no_grad()
def held_out_bits(model: LanguageModel, symbols: Tensor, chunk: int = 512) -> float:
    """Bits per character of a text read once from front to back in one stream, state carried along."""
    was_training = model.training
    model.eval()
    total, state = 0.0, None
    for begin in range(0, symbols.numel() - 1, chunk):
        target = symbols[begin + 1 : begin + 1 + chunk]
        logits, state = model(symbols[begin : begin + target.numel(), None], state)
        total += F.cross_entropy(logits[:, 0], target, reduction="sum").item()
    model.train(was_training)
    return total / LN2 / (symbols.numel() - 1)
