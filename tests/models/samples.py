# SPDX-License-Identifier: Apache-2.0
"""A small model of each kind in several configurations, and something to run it on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnnfast.models import Forecaster, LanguageModel, Model, Seq2Seq, SequenceClassifier, SequenceTagger

MODELS: dict[str, Callable[..., Model]] = {
    "lm-lstm": lambda **o: LanguageModel(7, 6, 2, 5, **o),
    "lm-textbook": lambda **o: LanguageModel(7, 6, 1, None, 0.0, cell="rnn", bias=False, **o),
    "lm-tied": lambda **o: LanguageModel(7, 6, 1, 6, cell="gru", tied=True, **o),
    "lm-tied-bridge": lambda **o: LanguageModel(7, 6, 1, 4, cell="gru", tied=True, **o),
    "lm-adaptive": lambda **o: LanguageModel(7, 6, 1, 4, cutoffs=[4], **o),
    "classify-last": lambda **o: SequenceClassifier(3, features=4, hidden=5, layers=2, cell="irnn", **o),
    "classify-both-ways": lambda **o: SequenceClassifier(3, symbols=7, embedding=4, hidden=5, bidirectional=True, **o),
    "classify-mean": lambda **o: SequenceClassifier(3, features=4, hidden=5, aggregation="mean", **o),
    "classify-max": lambda **o: SequenceClassifier(3, features=4, hidden=5, cell="rnn_relu", aggregation="max", **o),
    "classify-sum": lambda **o: SequenceClassifier(3, features=4, hidden=5, cell="gru", aggregation="sum", **o),
    "classify-attention": lambda **o: SequenceClassifier(3, symbols=7, hidden=5, aggregation="attention", **o),
    "classify-none": lambda **o: SequenceClassifier(3, symbols=7, embedding=4, cell="none", **o),
    "tag-frames": lambda **o: SequenceTagger(3, features=4, hidden=5, cell="rnn", **o),
    "tag-none": lambda **o: SequenceTagger(3, symbols=7, cell="none", **o),
    "tag-crf": lambda **o: SequenceTagger(3, symbols=7, hidden=5, bidirectional=True, crf=True, dropout=0.3, **o),
    "tag-slots": lambda **o: SequenceTagger(3, symbols=7, hidden=5, layers=2, bidirectional=True, characters=9,
                                            character_hidden=3, character_embedding=4, intents=2, **o),
    "tag-online-slots": lambda **o: SequenceTagger(3, symbols=7, hidden=5, characters=9, character_hidden=3, intents=2,
                                                   cell="gru", **o),
    "seq2seq-general": lambda **o: Seq2Seq(7, 5, start=0, end=1, hidden=6, embedding=4, layers=2, **o),
    "seq2seq-dot": lambda **o: Seq2Seq(7, 5, start=0, end=1, hidden=6, embedding=4, cell="gru", attention="dot", **o),
    "seq2seq-plain": lambda **o: Seq2Seq(7, 5, start=3, end=2, hidden=5, bidirectional=False, attention=None, **o),
    "forecast-gaussian": lambda **o: Forecaster(3, features=4, targets=2, hidden=5, layers=2, **o),
    "forecast-quantiles": lambda **o: Forecaster(2, features=4, hidden=5, output="quantiles", cell="gru", residual=True,
                                                 **o),
}  # fmt: skip


class Batch:
    """Inputs that fit the model, padded with zeros: x [T, B] or [T, B, 4], lengths, and a target of each kind."""

    def __init__(self, model: Model, steps: int = 6, lengths: list[int] | None = None, seed: int = 1) -> None:
        g = torch.Generator().manual_seed(seed)
        self.lengths = [steps, 2, steps - 1] if lengths is None else lengths
        batch = len(self.lengths)
        self.model = model
        config = model.config()
        if config.get("features") is not None:
            self.x = torch.randn(steps, batch, config["features"], generator=g).to(next(model.parameters()).dtype)
        else:
            self.x = torch.randint(7, (steps, batch), generator=g)
        self.next = torch.randint(7, (steps, batch), generator=g)
        self.labels = torch.randint(3, (steps, batch), generator=g)
        self.classes = torch.randint(3, (batch,), generator=g)
        self.intents = torch.randint(2, (batch,), generator=g)
        self.target = torch.randint(5, (4, batch), generator=g)
        self.target_lengths = [b * 3 % 5 for b in range(batch)]
        self.spelling: tuple[Tensor, Tensor] | None = None
        if config.get("characters") is not None:
            self.spelling = (
                torch.randint(9, (steps, batch, 5), generator=g),
                torch.randint(1, 6, (steps, batch), generator=g),
            )

    def inside(self) -> Tensor:
        """[T, B]: where there is a step."""
        return torch.arange(len(self.x))[:, None] < torch.tensor(self.lengths)

    def loss(self, model: Model | None = None) -> Tensor:
        m: Any = model or self.model
        if m.kind == "lm":
            return m.loss(self.x, self.next, None, self.lengths)[0]
        if m.kind == "classify":
            return m.loss(self.x, self.classes, self.lengths)
        if m.kind == "tag":
            intents = None if m.intents is None else self.intents
            return m.loss(self.x, self.labels, self.lengths, self.spelling, intents)
        if m.kind == "seq2seq":
            return m.loss(self.x, self.target, self.lengths, self.target_lengths)
        return m.loss(self.x, self.lengths)

    def outputs(self, model: Model | None = None) -> list[Tensor]:
        """Everything that the model says of the samples, the padding left out."""
        m: Any = model or self.model
        inside = self.inside()
        if m.kind == "lm":
            return [m(self.x, None, self.lengths)[0][inside], m.log_prob(self.x, self.lengths, start=0)]
        if m.kind == "classify":
            return [m(self.x, self.lengths), *m.predict(self.x, self.lengths)]
        if m.kind == "tag":
            emissions, intents = m(self.x, self.lengths, self.spelling)
            labels = m.predict(self.x, self.lengths, self.spelling).labels
            return [emissions[inside], labels[inside], *([] if intents is None else [intents])]
        if m.kind == "seq2seq":
            score = m.log_prob(self.x, self.target, self.lengths, self.target_lengths)
            return [score, *m.beam(self.x, self.lengths, size=3, max_length=4)]
        whole, last = m(self.x, self.lengths), m.forecast(self.x, self.lengths)
        return [whole.median[inside], last.median, last.quantile(0.9)]
