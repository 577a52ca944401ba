# SPDX-License-Identifier: Apache-2.0
"""A label for each step of a sequence, as it comes or when all is known; and an intent for the whole."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnfast.init import Init
from rnnfast.models.base import Model, recurrent, register
from rnnfast.models.crf import LinearChainCRF
from rnnfast.models.inputs import Reader
from rnnfast.models.sequences import Lengths, Steps, each_step, mask_of, pack, rows, unpack
from rnnfast.models.slots import api_call
from rnnfast.models.spelling import SpellingEncoder, spell
from rnnfast.models.stepping import Stepper, evaluating

__all__ = ["SequenceTagger", "TaggerStream", "Tagging"]

Spelling = tuple[Tensor, Tensor]  # characters [T, B, C] and each word's length [T, B]


class Tagging(NamedTuple):
    """labels [T, B], 0 in the padding; intents [B], or None of a model without."""

    labels: Tensor
    intents: Tensor | None


@register
class SequenceTagger(Model):
    """Labels each step of symbols [T, B] or of real-valued frames [T, B, F] (speech, sensors).

    Unidirectional, the label of step t depends on steps 1 to t only, and :meth:`stream` answers each step as it comes;
    bidirectional it also sees what follows (A. Graves, J. Schmidhuber 2005). With a CRF on top, neighbouring labels are
    judged together (Z. Huang, W. Xu, K. Yu 2015). With `intents` a second output classifies the whole sequence from the
    states in which the last layer ends (B. Liu, I. Lane 2016): slot filling.

    Args:
        labels: K, number of labels.
        symbols: size of the vocabulary, for input [T, B]; or
        features: F, for input [T, B, F]. Exactly one of both.
        embedding: features of a symbol's embedding.
        hidden: H, units of each layer and direction.
        layers: stacked recurrent layers.
        dropout: on the embedding, between the layers, and before the outputs.
        cell: "rnn", "rnn_relu", "irnn", "lstm", "gru", or "none": each step is labelled from its own input alone.
        backend: "rnnfast", or "torch".
        bidirectional: each layer also reads from the end.
        bias: whether the recurrent layers have biases.
        crf: a linear-chain CRF instead of a softmax for each step.
        characters: size of the characters' vocabulary: features of each word's spelling are put beside its embedding,
            by a bidirectional net over its characters; None: without.
        character_embedding, character_hidden: sizes of that net.
        intents: number of intents, or None.
        init: of the recurrent module: a name of :mod:`rnnfast.init`, a pair (name, value), or a function of it.

    Raises:
        ValueError: both or none of symbols and features; intents of cell "none"; an unknown cell or backend.
    """

    kind: ClassVar[str] = "tag"

    def __init__(
        self,
        labels: int,
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
        crf: bool = False,
        characters: int | None = None,
        character_embedding: int = 32,
        character_hidden: int = 32,
        intents: int | None = None,
        init: Init = None,
    ) -> None:
        super().__init__(
            {
                "labels": labels,
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
                "crf": crf,
                "characters": characters,
                "character_embedding": character_embedding,
                "character_hidden": character_hidden,
                "intents": intents,
            }
        )
        if cell == "none" and intents is not None:
            raise ValueError(
                "SequenceTagger: intents: cell 'none' has no state of the whole sequence to tell them from"
            )
        self.reader = Reader("SequenceTagger", symbols, features, embedding, dropout)
        size = self.reader.size
        self.spelling: SpellingEncoder | None = None
        if characters is not None:
            letters = "lstm" if cell == "none" else cell
            self.spelling = SpellingEncoder(characters, character_embedding, character_hidden, letters, backend)
            size += self.spelling.size
        self.bidirectional = bidirectional
        self.rnn: nn.Module | None = None
        if cell != "none":
            options: dict[str, Any] = {"backend": backend, "bias": bias, "dropout": dropout, "init": init}
            self.rnn = recurrent(cell, size, hidden, layers, bidirectional=bidirectional, **options)
            size = hidden * (2 if bidirectional else 1)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, labels)
        self.crf = LinearChainCRF(labels) if crf else None
        self.intents = None if intents is None else nn.Linear(size, intents)

    def forward(
        self, x: Tensor, lengths: Lengths = None, spelling: Spelling | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores of each step's labels, and of the intents.

        Args:
            x: [T, B] or [T, B, F].
            lengths: [B], or None.
            spelling: of a model with `characters`: their ids [T, B, C], and each word's length [T, B].

        Returns:
            Emissions [T, B, labels], 0 in the padding: the logits, or what the CRF adds its transitions to. Logits of
            the intents [B, intents], or None.
        """
        emissions, intents = self._scores("SequenceTagger", x, lengths, spelling)[:2]
        return unpack(emissions, len(x)), intents

    def loss(
        self,
        x: Tensor,
        target: Tensor,
        lengths: Lengths = None,
        spelling: Spelling | None = None,
        intents: Tensor | None = None,
    ) -> Tensor:
        """-log P in nats: of the labels, divided by the number of steps, plus the mean over samples of the intents'.

        Args:
            x, lengths, spelling: as for forward.
            target: [T, B] int64.
            intents: [B] int64, of a model that has them.
        """
        who = "SequenceTagger.loss"
        if target.shape != x.shape[:2]:
            raise ValueError(f"{who}: target: expected {list(x.shape[:2])}, got {list(target.shape)}")
        if (self.intents is None) != (intents is None):
            expected = "none: the model has no intents" if self.intents is None else "the samples' intents [B]"
            raise ValueError(f"{who}: intents: expected {expected}")
        emissions, logits, checked = self._scores(who, x, lengths, spelling)
        if self.crf is None:
            loss = F.cross_entropy(rows(emissions), rows(pack(who, target, lengths, 2)[0]))
        else:
            mask = mask_of(checked, len(x), x.shape[1], x.device)
            loss = -self.crf.log_prob(unpack(emissions, len(x)), target, mask).sum() / mask.sum()
        return loss if logits is None or intents is None else loss + F.cross_entropy(logits, intents)

    def predict(self, x: Tensor, lengths: Lengths = None, spelling: Spelling | None = None) -> Tagging:
        """The most probable label of each step (with a CRF: the most probable sequence), and the intents."""
        with evaluating(self):
            emissions, intents, checked = self._scores("SequenceTagger.predict", x, lengths, spelling)
            dense = unpack(emissions, len(x))
            mask = mask_of(checked, len(x), x.shape[1], x.device)
            if self.crf is not None:
                labels = self.crf.decode(dense, mask)[0]
            else:
                labels = dense.argmax(-1).masked_fill(~mask, 0)
            return Tagging(labels, None if intents is None else intents.argmax(-1))

    def understand(self, words: Sequence[str]) -> dict[str, Any]:
        """A sentence as a call: {"intent": "flight", "slots": {"toloc.city_name": "denver"}}.

        `vocabulary` must hold "words" and "labels" (BIO), and where the model has them "intents" and "characters".

        Raises:
            KeyError: the vocabulary lacks one of those.
            ValueError: no words.
        """
        if not words:
            raise ValueError("SequenceTagger.understand: words: expected at least one")
        spelling = None
        if self.spelling is not None:
            ids, lengths = spell([words], self.vocabulary["characters"])
            spelling = (ids.to(self.output.weight.device), lengths.to(self.output.weight.device))
        x = torch.tensor(self.vocabulary["words"].encode(words), device=self.output.weight.device)[:, None]
        labels, intents = self.predict(x, None, spelling)
        intent = None if intents is None else self.vocabulary["intents"].decode(intents.tolist())[0]
        return api_call(words, self.vocabulary["labels"].decode(labels[:, 0].tolist()), intent)

    def stream(self, batch_size: int = 1) -> "TaggerStream":
        """Answers each step as it comes; the state stays inside. The weights are a snapshot.

        Raises:
            ValueError: the model is bidirectional or has a CRF: both decide on a step only when all have been seen.
        """
        return TaggerStream(self, batch_size)

    def _inputs(self, who: str, x: Steps, spelling: tuple[Tensor, Tensor] | None, drop: bool) -> Steps:
        """Embeddings or frames, beside them the features of the spelling. spelling: of the steps of x in a row."""
        if (self.spelling is None) != (spelling is None):
            expected = "none: the model has no characters" if self.spelling is None else "(characters, lengths)"
            raise ValueError(f"{who}: spelling: expected {expected}")
        read = self.reader if drop else self.reader.read
        if self.spelling is None or spelling is None:
            return each_step(read, x)
        features = self.spelling(*spelling)
        features = self.reader.dropout(features) if drop else features

        def beside(v: Tensor) -> Tensor:
            first = read(v)
            return torch.cat([first, features.view(*first.shape[:-1], -1)], -1)

        return each_step(beside, x)

    def _scores(
        self, who: str, x: Tensor, lengths: Lengths, spelling: Spelling | None
    ) -> tuple[Steps, Tensor | None, Tensor | None]:
        """Emissions of each step, the intents' logits, and the lengths."""
        steps, checked = pack(who, x, lengths, self.reader.dims)
        letters = None
        if spelling is not None:
            ids, counts = spelling
            fits = ids.dim() == 3 and ids.shape[:2] == counts.shape == x.shape[:2]
            if self.spelling is not None and not fits:
                raise ValueError(
                    f"{who}: spelling: expected characters [{len(x)}, {x.shape[1]}, C] and lengths "
                    f"{list(x.shape[:2])}, got {list(ids.shape)} and {list(counts.shape)}"
                )
            letters = (rows(pack(who, ids, lengths, 3)[0]), rows(pack(who, counts, lengths, 2)[0]))
        steps = self._inputs(who, steps, letters, drop=True)
        intents = None
        if self.rnn is not None:
            steps, state = self.rnn(steps)
            if self.intents is not None:
                h = state[0] if isinstance(state, tuple) else state  # [L*D, B, H]
                whole = torch.cat([h[-2], h[-1]], -1) if self.bidirectional else h[-1]
                intents = self.intents(self.dropout(whole))
        return each_step(lambda v: self.output(self.dropout(v)), steps), intents, checked


class TaggerStream:
    """What :meth:`SequenceTagger.stream` gives: `s(x, spelling=None)` labels what has come.

    x [B] or [B, F] is one step -> log-probabilities [B, labels]; x [T, B] or [T, B, F] is a chunk of steps ->
    [T, B, labels]. spelling, of a model with characters: ids [.., C] and lengths, the dimensions before as x's.
    """

    def __init__(self, tagger: SequenceTagger, batch_size: int) -> None:
        for why, so in (("is bidirectional", tagger.bidirectional), ("has a CRF", tagger.crf is not None)):
            if so:
                raise ValueError(
                    f"SequenceTagger.stream: expected a unidirectional model without CRF, got one that {why}: "
                    "it labels a step only when the whole sequence is known"
                )
        self._tagger = tagger
        self._batch_size = batch_size
        self._stepper = None if tagger.rnn is None else Stepper(tagger.rnn, batch_size)

    def __call__(self, x: Tensor, spelling: Spelling | None = None) -> Tensor:
        """See the class."""
        tagger, dims = self._tagger, self._tagger.reader.dims
        if x.dim() not in (dims - 1, dims) or x.shape[x.dim() - dims + 1] != self._batch_size:
            raise ValueError(
                f"SequenceTagger.stream: input: expected one step or a chunk of {self._batch_size} samples, "
                f"got {list(x.shape)}"
            )
        with torch.no_grad():
            letters = None if spelling is None else (spelling[0].flatten(0, -2), spelling[1].flatten())
            y: Any = tagger._inputs("SequenceTagger.stream", x, letters, drop=False)
            return tagger.output(y if self._stepper is None else self._stepper(y)).log_softmax(-1)

    def reset(self) -> None:
        """A new sequence begins."""
        if self._stepper is not None:
            self._stepper.reset()
