# SPDX-License-Identifier: Apache-2.0
"""Reads a sequence, aggregates what it has read to one vector, and classifies that."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnfast.init import Init
from rnnfast.models.base import Model, recurrent, register
from rnnfast.models.inputs import Reader
from rnnfast.models.sequences import Lengths, Steps, each_step, mask_of, pack, unpack
from rnnfast.models.stepping import evaluating

__all__ = ["AGGREGATIONS", "SequenceClassifier"]

AGGREGATIONS = ("last", "mean", "sum", "max", "attention")


@register
class SequenceClassifier(Model):
    """A class for each sequence: recurrent layers, an aggregation over time, a fully connected layer to the logits.

    The aggregation s of the last layer's outputs y_1 .. y_T (T the sample's own length):

    - "last": the state after the last step; of a bidirectional net both directions' last states (the reverse one's
      stands at step 1);
    - "mean", "sum", "max": over the steps;
    - "attention": sum_t a_t y_t with a = softmax_t(v . tanh(W y_t + b)) (Z. Yang et al., "Hierarchical attention
      networks for document classification", 2016).

    `cell="none"` leaves the recurrent layers out: the inputs (embeddings or frames) are aggregated as they are. Their
    order then plays no part: the baseline that shows what reading in order is worth.

    Args:
        classes: K, number of classes.
        symbols: size of the vocabulary, for input [T, B] of symbols; or
        features: F, for input [T, B, F] of real values. Exactly one of both.
        embedding: features of a symbol's embedding.
        hidden: H, units of each layer and direction.
        layers: stacked recurrent layers.
        dropout: on the embedding, between the layers, and before the fully connected layer.
        cell: "rnn", "rnn_relu", "irnn", "lstm", "gru", or "none".
        backend: "rnnfast", or "torch".
        bidirectional: each layer also reads from the end.
        bias: whether the recurrent layers have biases.
        aggregation: None: "last", and for `cell="none"`, which has no last state, "sum".
        init: of the recurrent module: a name of :mod:`rnnfast.init`, a pair (name, value), or a function of it.

    Raises:
        ValueError: both or none of symbols and features; an unknown aggregation, cell or backend; "last" of "none".
    """

    kind: ClassVar[str] = "classify"

    def __init__(
        self,
        classes: int,
        *,
        symbols: int | None = None,
        features: int | None = None,
        embedding: int = 128,
        hidden: int = 128,
        layers: int = 1,
        dropout: float = 0.0,
        cell: str = "lstm",
        backend: str = "rnnfast",
        bidirectional: bool = False,
        bias: bool = True,
        aggregation: str | None = None,
        init: Init = None,
    ) -> None:
        if aggregation is None:
            aggregation = "sum" if cell == "none" else "last"
        super().__init__(
            {
                "classes": classes,
                "symbols": symbols,
                "features": features,
                "embedding": embedding,
                "hidden": hidden,
                "layers": layers,
                "dropout": dropout,
                "cell": cell,
                "backend": backend,
                "bidirectional": bidirectional,
                "bias": bias,
                "aggregation": aggregation,
            }
        )
        if aggregation not in AGGREGATIONS:
            raise ValueError(
                f"SequenceClassifier: aggregation: expected one of {', '.join(AGGREGATIONS)}, got {aggregation!r}"
            )
        if cell == "none" and aggregation == "last":
            raise ValueError(
                "SequenceClassifier: aggregation: cell 'none' has no last state; expected another than 'last'"
            )
        self.aggregation = aggregation
        self.reader = Reader("SequenceClassifier", symbols, features, embedding, dropout)
        size = self.reader.size
        self.rnn: nn.Module | None = None
        if cell != "none":
            options: dict[str, Any] = {"backend": backend, "bias": bias, "dropout": dropout, "init": init}
            self.rnn = recurrent(cell, size, hidden, layers, bidirectional=bidirectional, **options)
            size = hidden * (2 if bidirectional else 1)
        self.bidirectional = bidirectional
        if aggregation == "attention":
            self.attention_hidden = nn.Linear(size, size)
            self.attention_score = nn.Linear(size, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, classes)

    def forward(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """Logits [B, classes] for x [T, B] or [T, B, F], lengths [B] or None."""
        steps, checked = pack("SequenceClassifier", x, lengths, self.reader.dims)
        steps = each_step(self.reader, steps)
        if self.rnn is None:
            return self.output(self.dropout(self._aggregate(steps, len(x), checked)))
        steps, state = self.rnn(steps)
        if self.aggregation != "last":
            return self.output(self.dropout(self._aggregate(steps, len(x), checked)))
        h = state[0] if isinstance(state, tuple) else state  # [L*D, B, H]
        return self.output(self.dropout(torch.cat([h[-2], h[-1]], -1) if self.bidirectional else h[-1]))

    def loss(self, x: Tensor, target: Tensor, lengths: Lengths = None) -> Tensor:
        """Mean cross-entropy in nats; target [B] int64."""
        return F.cross_entropy(self(x, lengths), target)

    def predict(self, x: Tensor, lengths: Lengths = None) -> tuple[Tensor, Tensor]:
        """The most probable class of each sample [B], and all probabilities [B, classes]."""
        with evaluating(self):
            probabilities = self(x, lengths).softmax(-1)
            return probabilities.argmax(-1), probabilities

    def attention(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """The weights a_t [T, B] that aggregation "attention" gives each step; 0 in the padding. For pictures.

        Raises:
            ValueError: the model aggregates otherwise.
        """
        if self.aggregation != "attention":
            raise ValueError(f"SequenceClassifier.attention: this model aggregates by {self.aggregation!r}")
        with evaluating(self):
            steps, _ = pack("SequenceClassifier.attention", x, lengths, self.reader.dims)
            steps = each_step(self.reader, steps)
            return self._attention(steps if self.rnn is None else self.rnn(steps)[0], len(x))

    def _attention(self, y: Steps, steps: int) -> Tensor:
        scores = each_step(lambda v: self.attention_score(torch.tanh(self.attention_hidden(v))), y)
        return unpack(scores, steps, -torch.inf)[..., 0].softmax(0)

    def _aggregate(self, y: Steps, steps: int, lengths: Tensor | None) -> Tensor:
        """[T, B, features], packed or not -> [B, features]."""
        if self.aggregation == "max":
            return unpack(y, steps, -torch.inf).amax(0)
        dense = unpack(y, steps)
        if self.aggregation == "attention":
            return (self._attention(y, steps)[..., None] * dense).sum(0)
        total = dense.sum(0)
        if self.aggregation == "sum":
            return total
        return total / mask_of(lengths, steps, dense.shape[1], dense.device).sum(0)[:, None]
