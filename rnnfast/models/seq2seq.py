# SPDX-License-Identifier: Apache-2.0
"""From one sequence to another that is not aligned with it: encoder, decoder, attention."""

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnfast.init import Init
from rnnfast.models.base import Model, recurrent, register
from rnnfast.models.search import Hypotheses, beam_search, select
from rnnfast.models.sequences import Lengths, check_lengths, each_step, mask_of, pack, unpack
from rnnfast.models.stepping import evaluating

__all__ = ["ATTENTIONS", "Seq2Seq"]

ATTENTIONS = ("dot", "general")


class Memory(NamedTuple):
    """The encoder's states [S, B, H], what they are compared with (W_a applied), and where they are real [S, B]."""

    states: Tensor
    keys: Tensor
    inside: Tensor


@register
class Seq2Seq(Model):
    """Encoder-decoder (I. Sutskever et al. 2014; K. Cho et al. 2014) with Luong's attention (T. Luong, H. Pham, C.
    Manning, "Effective approaches to attention-based neural machine translation", 2015).

    The encoder reads the source, the decoder starts from its last state and writes the target symbol by symbol::

        e_1 .. e_S = encoder(source),   h_u = decoder(target_{u-1}, h_{u-1})
        a_u = softmax_s(h_u . e_s)  ("dot")   or   softmax_s(h_u . W_a e_s)  ("general")
        P(target_u | ...) = softmax(V tanh(W_c [sum_s a_us e_s; h_u]) + b)

    The attention's result is not fed back into the decoder, so in training the decoder runs over the whole target in
    one scan, and attention is computed after it, as two batched products.

    A bidirectional encoder has H/2 units in each direction, so that its states are the decoder's size.

    Args:
        source_symbols, target_symbols: sizes of the vocabularies.
        start, end: target symbols that the model puts before and after each target. Targets are given without them.
        embedding: features of a symbol's embedding, of source and target.
        hidden: H, units of each layer; even for a bidirectional encoder.
        layers: stacked layers of encoder and of decoder.
        dropout: on the embeddings, between the layers, and before the output.
        cell: "rnn", "rnn_relu", "irnn", "lstm" or "gru".
        backend: "rnnfast", or "torch".
        bidirectional: of the encoder.
        bias: whether the recurrent layers have biases.
        attention: "dot", "general", or None: the decoder knows the encoder's last state only.
        init: of encoder and decoder, each: a name of :mod:`rnnfast.init`, a pair (name, value), or a function.

    Shapes:
        source [S, B], target [U, B] int64, lengths [B]. Target lengths may be 0.

    Raises:
        ValueError: start or end outside the target's vocabulary, or the same; an odd H of a bidirectional encoder; an
            unknown attention, cell or backend.
    """

    kind: ClassVar[str] = "seq2seq"

    def __init__(
        self,
        source_symbols: int,
        target_symbols: int,
        *,
        start: int,
        end: int,
        embedding: int = 128,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.2,
        cell: str = "lstm",
        backend: str = "rnnfast",
        bidirectional: bool = True,
        bias: bool = True,
        attention: str | None = "general",
        init: Init = None,
    ) -> None:
        super().__init__(
            {
                "source_symbols": source_symbols,
                "target_symbols": target_symbols,
                "start": start,
                "end": end,
                "embedding": embedding,
                "hidden": hidden,
                "layers": layers,
                "dropout": dropout,
                "cell": cell,
                "backend": backend,
                "bidirectional": bidirectional,
                "bias": bias,
                "attention": attention,
            }
        )
        if not (0 <= start < target_symbols and 0 <= end < target_symbols) or start == end:
            raise ValueError(
                f"Seq2Seq: start, end: expected two target symbols below {target_symbols}, got {start} and {end}"
            )
        if bidirectional and hidden % 2:
            raise ValueError(f"Seq2Seq: hidden: expected an even number for a bidirectional encoder, got {hidden}")
        if attention is not None and attention not in ATTENTIONS:
            raise ValueError(f"Seq2Seq: attention: expected 'dot', 'general' or None, got {attention!r}")
        self.start, self.end = start, end
        self.directions = 2 if bidirectional else 1
        options: dict[str, Any] = {"backend": backend, "bias": bias, "dropout": dropout, "init": init}
        self.source_embedding = nn.Embedding(source_symbols, embedding)
        self.target_embedding = nn.Embedding(target_symbols, embedding)
        self.encoder = recurrent(
            cell, embedding, hidden // self.directions, layers, bidirectional=bidirectional, **options
        )
        self.decoder = recurrent(cell, embedding, hidden, layers, **options)
        self.attention = attention
        if attention == "general":
            self.score = nn.Linear(hidden, hidden, bias=False)  # W_a
        if attention is not None:
            self.combine = nn.Linear(2 * hidden, hidden, bias=False)  # W_c
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, target_symbols)

    def forward(
        self, source: Tensor, target: Tensor, source_lengths: Lengths = None, target_lengths: Lengths = None
    ) -> tuple[Tensor, Tensor | None]:
        """Teacher forcing: the logits of each target symbol, and of the end after them, given those before.

        Returns:
            Logits [U+1, B, target_symbols] (meaningless in a sample's padding); attention [U+1, B, S], or None.
        """
        y, weights, _, _ = self._teach(source, target, source_lengths, target_lengths)
        return self.output(self.dropout(y)), weights

    def loss(
        self, source: Tensor, target: Tensor, source_lengths: Lengths = None, target_lengths: Lengths = None
    ) -> Tensor:
        """Mean of -log P in nats over all target symbols, the ends included."""
        rows, _ = self._negative_log_likelihood(source, target, source_lengths, target_lengths)
        return rows.mean()

    def log_prob(
        self, source: Tensor, target: Tensor, source_lengths: Lengths = None, target_lengths: Lengths = None
    ) -> Tensor:
        """log P(target, end | source) of each sample [B], in nats; differentiable, in the mode the model is in."""
        rows, sample = self._negative_log_likelihood(source, target, source_lengths, target_lengths)
        return rows.new_zeros(source.shape[1]).index_add(0, sample, -rows)

    def greedy(self, source: Tensor, source_lengths: Lengths = None, max_length: int = 50) -> Hypotheses:
        """The most probable symbol at each step: beam search of size 1."""
        return self.beam(source, source_lengths, 1, max_length)

    def beam(
        self,
        source: Tensor,
        source_lengths: Lengths = None,
        size: int = 5,
        max_length: int = 50,
        length_penalty: float = 0.0,
    ) -> Hypotheses:
        """The most probable targets found by beam search, all samples and hypotheses of a step together.

        Args:
            source, source_lengths: [S, B], [B].
            size: hypotheses kept for each sample.
            max_length: most symbols of a target; then it ends.
            length_penalty: alpha: hypotheses of n symbols, the end included, are ranked by log P / n**alpha (Y. Wu et
                al. 2016 in its simplest form). 0: by log P, which favours short ones.

        Returns:
            For each sample, best first: symbols [B, K, U] (`end` after each one's last), their lengths [B, K], and log
            P [B, K] (-inf where fewer than K targets are possible). K = size.

        Raises:
            ValueError: size or max_length less than 1.
        """
        if size < 1 or max_length < 1:
            raise ValueError(f"Seq2Seq.beam: size, max_length: expected at least 1, got {size} and {max_length}")

        def step(symbols: Tensor, state: Any) -> tuple[Tensor, Any]:
            """Log-probabilities [B*K, V] after symbols [B*K]. To the attention a sample's hypotheses are steps."""
            y, state = self.decoder(self.target_embedding(symbols)[None], state)
            y = self._attend(y.view(batch, size, -1).transpose(0, 1), memory)[0]
            return self.output(y.transpose(0, 1).flatten(0, 1)).log_softmax(-1), state

        with evaluating(self):
            memory, state = self._encode(source, source_lengths)
            batch = source.shape[1]
            row = torch.arange(batch, device=source.device).repeat_interleave(size)
            start = source.new_full((batch,), self.start)
            return beam_search(step, select(state, row), start, size, self.end, max_length, length_penalty)

    def _encode(self, source: Tensor, lengths: Lengths) -> tuple[Memory, Any]:
        """What attention looks at, and the decoder's first state [layers, B, H]."""
        steps, checked = pack("Seq2Seq: source", source, lengths, 2)
        y, state = self.encoder(each_step(lambda s: self.dropout(self.source_embedding(s)), steps))
        state = tuple(map(self._joined, state)) if isinstance(state, tuple) else self._joined(state)
        keys = each_step(self.score, y) if self.attention == "general" else y
        inside = mask_of(checked, len(source), source.shape[1], source.device)
        return Memory(unpack(y, len(source)), unpack(keys, len(source)), inside), state

    def _joined(self, h: Tensor) -> Tensor:
        """[L*D, B, H/D] -> [L, B, H]: the directions side by side."""
        if self.directions == 1:
            return h
        return h.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2).contiguous()

    def _teach(
        self, source: Tensor, target: Tensor, source_lengths: Lengths, target_lengths: Lengths
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """The decoder given (start, target): what the output layer reads [U+1, B, H], and the attention; the symbols it
        shall say, (target, end) [U+1, B], and where they are real."""
        memory, state = self._encode(source, source_lengths)
        if target.dim() != 2 or target.shape[1] != source.shape[1]:
            raise ValueError(
                f"Seq2Seq: target: expected [U, {source.shape[1]}], as many samples as source, got {list(target.shape)}"
            )
        steps, batch = target.shape
        lengths = check_lengths("Seq2Seq: target", target_lengths, steps, batch, least=0)
        lengths = None if lengths is None else lengths + 1  # with the end
        before = torch.cat([target.new_full((1, batch), self.start), target])
        wanted = torch.cat([target, target.new_full((1, batch), self.end)])
        if lengths is not None:
            wanted = wanted.scatter(0, lengths[None].to(target.device) - 1, self.end)
        given, _ = pack("Seq2Seq: target", before, lengths, 2)
        y, _ = self.decoder(each_step(lambda s: self.dropout(self.target_embedding(s)), given), state)
        y, weights = self._attend(unpack(y, steps + 1), memory)
        return y, weights, wanted, mask_of(lengths, steps + 1, batch, target.device)

    def _attend(self, y: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """y [U, B, H] with what it finds in the memory -> [U, B, H], and where it looked [U, B, S]."""
        if self.attention is None:
            return y, None
        scores = torch.bmm(y.transpose(0, 1), memory.keys.permute(1, 2, 0))  # [B, U, S]
        weights = scores.masked_fill(~memory.inside.t()[:, None], -torch.inf).softmax(-1)
        context = torch.bmm(weights, memory.states.transpose(0, 1)).transpose(0, 1)
        return torch.tanh(self.combine(torch.cat([context, y], -1))), weights.transpose(0, 1)

    def _negative_log_likelihood(
        self, source: Tensor, target: Tensor, source_lengths: Lengths, target_lengths: Lengths
    ) -> tuple[Tensor, Tensor]:
        """-log P of every target symbol that is real [N], and the sample that each belongs to [N]."""
        y, _, wanted, inside = self._teach(source, target, source_lengths, target_lengths)
        logits = self.output(self.dropout(y[inside]))
        return F.cross_entropy(logits, wanted[inside], reduction="none"), inside.nonzero()[:, 1]
