# SPDX-License-Identifier: Apache-2.0
"""A recurrent language model: P(x_{t+1} | x_1 .. x_t) = softmax(V h_t)."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnfast.init import Init
from rnnfast.models.base import Model, recurrent, register
from rnnfast.models.sampling import check_sampling, draw
from rnnfast.models.sequences import Lengths, Steps, check_lengths, each_step, mask_of, pack, rows, unpack
from rnnfast.models.stepping import Stepper, evaluating

__all__ = ["LanguageModel"]


@register
class LanguageModel(Model):
    """Embedding, stacked recurrent layers, linear layer to the next symbol's logits (T. Mikolov et al. 2010; A. Graves,
    "Generating sequences with recurrent neural networks", 2013)::

        h_t = f(U x_t + W h_{t-1} + b),    P(x_{t+1} | x_1 .. x_t) = softmax(V h_t + c)

    `cell="rnn", bias=False, embedding=None` leaves the three matrices U, V, W of the textbook and nothing else.

    Args:
        symbols: size of the vocabulary.
        hidden: H, units of each layer.
        layers: stacked recurrent layers.
        embedding: E, features of a symbol's embedding; None: symbols enter as one-hot vectors.
        dropout: probability, in training, of zeroing features of the embedding, between layers and before the output.
        cell: "rnn", "rnn_relu", "irnn", "lstm" or "gru".
        backend: "rnnfast", or "torch" for the same net on torch.nn's layers.
        bias: whether the recurrent layers and the output have biases.
        tied: the output shares the embedding's matrix (Press and Wolf 2017; Inan et al. 2017); where H is not E, a
            linear layer without bias lies between.
        cutoffs: borders of the classes of torch's adaptive softmax (Grave et al. 2017), for large vocabularies whose
            symbols are ordered by frequency; None: the full softmax.
        init: of the recurrent module: a name of :mod:`rnnfast.init`, a pair (name, value), or a function of it.

    Shapes:
        symbols [T, B] int64, states as torch.nn's of the cell, logits [T, B, symbols].

    Raises:
        ValueError: tied together with cutoffs or without an embedding; unknown cell or backend.
    """

    kind: ClassVar[str] = "lm"

    def __init__(
        self,
        symbols: int,
        hidden: int = 256,
        layers: int = 1,
        embedding: int | None = 128,
        dropout: float = 0.2,
        *,
        cell: str = "lstm",
        backend: str = "rnnfast",
        bias: bool = True,
        tied: bool = False,
        cutoffs: Sequence[int] | None = None,
        init: Init = None,
    ) -> None:
        super().__init__(
            {
                "symbols": symbols,
                "hidden": hidden,
                "layers": layers,
                "embedding": embedding,
                "dropout": dropout,
                "cell": cell,
                "backend": backend,
                "bias": bias,
                "tied": tied,
                "cutoffs": None if cutoffs is None else list(cutoffs),
            }
        )
        if tied and (cutoffs is not None or embedding is None):
            raise ValueError("LanguageModel: tied: expected an embedding and the full softmax (no cutoffs) to tie")
        self.symbols = symbols
        self.embedding = nn.Embedding(symbols, embedding) if embedding is not None else None
        self.rnn = recurrent(
            cell, embedding or symbols, hidden, layers, backend=backend, bias=bias, dropout=dropout, init=init
        )
        self.dropout = nn.Dropout(dropout)
        self.bridge: nn.Linear | None = None
        self.output: nn.Linear | nn.AdaptiveLogSoftmaxWithLoss
        if cutoffs is not None:
            self.output = nn.AdaptiveLogSoftmaxWithLoss(hidden, symbols, cutoffs, head_bias=bias)
        elif tied and self.embedding is not None:
            size = self.embedding.embedding_dim
            self.bridge = None if size == hidden else nn.Linear(hidden, size, bias=False)
            self.output = nn.Linear(size, symbols, bias=bias)
            self.output.weight = self.embedding.weight
        else:
            self.output = nn.Linear(hidden, symbols, bias=bias)

    def forward(self, symbols: Tensor, state: Any = None, lengths: Lengths = None) -> tuple[Tensor, Any]:
        """Logits [T, B, symbols] of the next symbol for symbols [T, B], and the state to go on from.

        With cutoffs the logits are log-probabilities.
        """
        y, state = self._features(pack("LanguageModel", symbols, lengths, 2)[0], state)
        return self._logits(unpack(y, symbols.shape[0])), state

    def loss(self, symbols: Tensor, target: Tensor, state: Any = None, lengths: Lengths = None) -> tuple[Tensor, Any]:
        """Mean of -log P(target) in nats over all steps that are not padding, and the state to go on from.

        Args:
            symbols, target: [T, B], target the successors of symbols.
            state: that of the chunk before (detach it: truncated BPTT), or None.
            lengths: [B].
        """
        if target.shape != symbols.shape:
            raise ValueError(
                f"LanguageModel.loss: target: expected {list(symbols.shape)} like symbols, got {list(target.shape)}"
            )
        y, state = self._features(pack("LanguageModel.loss", symbols, lengths, 2)[0], state)
        wanted = pack("LanguageModel.loss", target, lengths, 2)[0]
        return self._negative_log_likelihood(rows(y), rows(wanted)).mean(), state

    def log_prob(self, symbols: Tensor, lengths: Lengths = None, start: int | None = None) -> Tensor:
        """log P of whole sequences, [B], in nats; differentiable, in the mode (training or eval) that the model is in.

        Args:
            symbols: [T, B].
            lengths: [B].
            start: the symbol that stood before each sequence's first in training (an end of sentence, say). None: the
                first symbol is given, and the result is log P(x_2 .. x_T | x_1).
        """
        return self._scores("LanguageModel.log_prob", symbols, lengths, start, symbols.shape[0])[0]

    def perplexity(self, symbols: Tensor, lengths: Lengths = None, start: int | None = None, chunk: int = 512) -> float:
        """exp of the mean of -log P over all predicted symbols; its log2 is bits a symbol. In eval mode.

        Args:
            symbols, lengths, start: as for log_prob.
            chunk: steps computed at once, so that memory does not grow with T.
        """
        with evaluating(self):
            score, count = self._scores("LanguageModel.perplexity", symbols, lengths, start, chunk)
            if count == 0:
                raise ValueError("LanguageModel.perplexity: symbols: expected something to predict, got single symbols")
            nats = -score.sum().item() / count
            return math.exp(nats) if nats < 700 else math.inf  # beyond, a float overflows

    def generate(
        self,
        prompt: Tensor,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws `length` symbols after prompt [T] or [T, B]: [length] or [length, B]. See :meth:`stream`."""
        symbols = islice(self.stream(prompt, temperature, top_k, top_p, generator), length)
        return torch.stack([prompt[0], *symbols])[1:]  # prompt[0]: for length 0

    def stream(
        self,
        prompt: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Draws symbol after symbol, without end, each as soon as it is asked for, through :class:`rnnfast.Stream`.

        Args:
            prompt: [T] or [T, B] symbols that come first, T at least 1.
            temperature: below 1 the probable becomes more so; 0 always takes the most probable symbol.
            top_k, top_p: draw among the k most probable, or the fewest that hold probability p.
            generator: of the random numbers.

        Returns:
            An iterator of symbols, each [] for prompt [T] and [B] for prompt [T, B].

        Raises:
            ValueError: an empty prompt; temperature, top_k or top_p out of range.
        """
        check_sampling("LanguageModel.stream", temperature, top_k, top_p)
        if prompt.dim() not in (1, 2) or prompt.numel() == 0:
            raise ValueError(
                f"LanguageModel.stream: prompt: expected [T] or [T, B], T at least 1, got {list(prompt.shape)}"
            )
        return self._drawn(prompt, temperature, top_k, top_p, generator)

    @torch.no_grad()
    def _drawn(
        self,
        prompt: Tensor,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        generator: torch.Generator | None,
    ) -> Iterator[Tensor]:
        """The symbols of stream(). Dropout has no part here, whatever mode the model is in."""
        batch = prompt if prompt.dim() == 2 else prompt[:, None]
        stepper = Stepper(self.rnn, batch.shape[1])
        y = stepper(self._embed(batch))[-1]
        while True:
            symbol = draw(self._logits(self._bridged(y)), temperature, top_k, top_p, generator)
            yield symbol if prompt.dim() == 2 else symbol[0]
            y = stepper(self._embed(symbol))

    def _embed(self, symbols: Tensor) -> Tensor:
        """[...] -> [..., E], or one-hot vectors."""
        if self.embedding is not None:
            return self.embedding(symbols)
        return F.one_hot(symbols, self.symbols).to(next(self.rnn.parameters()).dtype)

    def _bridged(self, y: Tensor) -> Tensor:
        return y if self.bridge is None else self.bridge(y)

    def _features(self, symbols: Steps, state: Any) -> tuple[Steps, Any]:
        """What the output layer reads, for each step, and the state."""
        y, state = self.rnn(each_step(lambda s: self.dropout(self._embed(s)), symbols), state)
        return each_step(lambda v: self.dropout(self._bridged(v)), y), state

    def _logits(self, y: Tensor) -> Tensor:
        """[..., features] -> [..., symbols]."""
        if isinstance(self.output, nn.AdaptiveLogSoftmaxWithLoss):
            return self.output.log_prob(y.flatten(0, -2)).unflatten(0, y.shape[:-1])
        return self.output(y)

    def _negative_log_likelihood(self, y: Tensor, target: Tensor) -> Tensor:
        """-log P(target), [N], for rows y [N, features]."""
        if isinstance(self.output, nn.AdaptiveLogSoftmaxWithLoss):
            return -self.output(y, target).output
        return F.cross_entropy(self.output(y), target, reduction="none")

    def _scores(self, who: str, symbols: Tensor, lengths: Lengths, start: int | None, chunk: int) -> tuple[Tensor, int]:
        """log P of each sequence [B], and the number of symbols predicted in all. Chunks carry the state along.

        Nothing flows from later steps to earlier ones, so padding may run along: its symbols are made harmless, and its
        rows are left out before the output layer.
        """
        pack(who, symbols, lengths, 2)  # for its checks
        steps, batch = symbols.shape
        checked = check_lengths(who, lengths, steps, batch)
        inside = mask_of(checked, steps, batch, symbols.device)
        symbols = symbols.masked_fill(~inside, 0)
        if start is not None:
            before = torch.cat([symbols.new_full((1, batch), start), symbols[:-1]])
        else:
            before, symbols, inside = symbols[:-1], symbols[1:], inside[1:]
        score = symbols.new_zeros(batch, dtype=next(self.parameters()).dtype)
        state = None
        for begin in range(0, len(before), chunk):
            part = slice(begin, begin + chunk)
            y, state = self._features(before[part], state)
            loss = self._negative_log_likelihood(unpack(y, chunk)[inside[part]], symbols[part][inside[part]])
            score = score.index_add(0, inside[part].nonzero()[:, 1], -loss)
        return score, int(inside.sum())
