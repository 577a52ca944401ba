# SPDX-License-Identifier: Apache-2.0
"""A recurrent language model: P(x_{t+1} | x_1 .. x_t) = softmax(V h_t)."""

import torch
from torch import Tensor, nn

from rnnfast.modules import LSTM

State = tuple[Tensor, Tensor]


class LanguageModel(nn.Module):
    """Embedding, LSTM, linear layer to the next symbol's logits (Mikolov et al. 2010; Graves 2013).

    Args:
        symbols: size of the vocabulary.
        hidden: H, units of each layer.
        layers: stacked LSTM layers.
        embedding: features of a symbol's embedding.
        dropout: probability, in training, of zeroing features of the embedding, between layers and before the output.
        rnn: the class of the recurrent module, with torch.nn.LSTM's interface.
    """

    def __init__(
        self,
        symbols: int,
        hidden: int = 256,
        layers: int = 1,
        embedding: int = 128,
        dropout: float = 0.2,
        rnn: type[nn.Module] = LSTM,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.rnn = rnn(embedding, hidden, layers, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, symbols)

    def forward(self, symbols: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits [T, B, symbols] for symbols [T, B] (int64), and the state to go on from."""
        y, state = self.rnn(self.dropout(self.embedding(symbols)), state)
        return self.output(self.dropout(y)), state

    @torch.no_grad()
    def sample(self, prompt: Tensor, length: int, temperature: float, generator: torch.Generator) -> Tensor:
        """Draws `length` symbols after prompt [T], one at a time with the state carried along."""
        was_training = self.training
        self.eval()
        logits, state = self(prompt[:, None])
        drawn = []
        for _ in range(length):
            probabilities = torch.softmax(logits[-1, 0] / temperature, 0)
            symbol = torch.multinomial(probabilities, 1, generator=generator)
            drawn.append(symbol)
            logits, state = self(symbol[:, None], state)
        self.train(was_training)
        return torch.cat(drawn) if drawn else prompt[:0]
