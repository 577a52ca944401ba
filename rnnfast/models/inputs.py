# SPDX-License-Identifier: Apache-2.0
"""How a step enters a net: a symbol by its embedding, real values as they are."""

from torch import Tensor, nn

__all__ = ["Reader"]


class Reader(nn.Module):
    """Symbols [...] to embeddings [..., E], or frames [..., F] unchanged; then dropout (of embeddings only).

    Args:
        who: the model's name, for messages.
        symbols: size of the vocabulary, or None.
        features: F, or None. Exactly one of both.
        embedding: E.
        dropout: of the embedding's features.

    Raises:
        ValueError: both or none of symbols and features.
    """

    def __init__(self, who: str, symbols: int | None, features: int | None, embedding: int, dropout: float) -> None:
        super().__init__()
        if (symbols is None) == (features is None):
            raise ValueError(
                f"{who}: expected either symbols (a vocabulary's size) or features (of real values), "
                f"got symbols={symbols}, features={features}"
            )
        self.embedding = None if symbols is None else nn.Embedding(symbols, embedding)
        self.dropout = nn.Dropout(dropout)
        self.size = embedding if features is None else features
        self.dims = 2 if features is None else 3  # of a batch: [T, B] or [T, B, F]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x if self.embedding is None else self.dropout(self.embedding(x))

    def read(self, x: Tensor) -> Tensor:
        """Without dropout, whatever mode the model is in."""
        return x if self.embedding is None else self.embedding(x)
