# SPDX-License-Identifier: Apache-2.0
"""Features of a word's spelling, so that words never seen are not all the same."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from rnnfast.models.base import recurrent
from rnnfast.models.vocabulary import Vocabulary

__all__ = ["SpellingEncoder", "spell"]


class SpellingEncoder(nn.Module):
    """Reads each word's characters in both directions; the two last states are its features (W. Ling et al. 2015; G.
    Lample et al. 2016).

    Args:
        characters: size of the characters' vocabulary.
        embedding: features of a character.
        hidden: units of each direction.
        cell, backend: as :func:`recurrent`.

    Shapes:
        characters [N, C] int64 and lengths [N], 1 to C, of N words -> [N, 2*hidden].
    """

    def __init__(self, characters: int, embedding: int, hidden: int, cell: str, backend: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.rnn = recurrent(cell, embedding, hidden, backend=backend, bidirectional=True)
        self.size = 2 * hidden

    def forward(self, characters: Tensor, lengths: Tensor) -> Tensor:
        """See the class. Each different word is read once."""
        inside = torch.arange(characters.shape[1], device=characters.device) < lengths[:, None]
        spelled = torch.cat([characters.masked_fill(~inside, 0), lengths[:, None]], 1)
        words, place = torch.unique(spelled, dim=0, return_inverse=True)
        steps = pack_padded_sequence(words[:, :-1].t(), words[:, -1].cpu(), enforce_sorted=False)
        state = self.rnn(steps._replace(data=self.embedding(steps.data)))[1]
        h = state[0] if isinstance(state, tuple) else state  # [2, words, hidden]
        return torch.cat([h[0], h[1]], -1)[place]


def spell(sentences: Sequence[Sequence[str]], characters: Vocabulary) -> tuple[Tensor, Tensor]:
    """The characters of a batch of sentences of words: ids [T, B, C] and each word's length [T, B], 0 in the padding.

    Raises:
        ValueError: no sentences, an empty word.
    """
    if not sentences or not any(sentences):
        raise ValueError("spell: sentences: expected at least one word")
    steps = max(map(len, sentences))
    longest = max(len(word) for sentence in sentences for word in sentence)
    ids = torch.zeros(steps, len(sentences), longest, dtype=torch.int64)
    lengths = torch.zeros(steps, len(sentences), dtype=torch.int64)
    for b, sentence in enumerate(sentences):
        for t, word in enumerate(sentence):
            if not word:
                raise ValueError(f"spell: sentences: word {t} of sentence {b} is empty")
            ids[t, b, : len(word)] = torch.tensor(characters.encode(word))
            lengths[t, b] = len(word)
    return ids, lengths
