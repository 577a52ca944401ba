# SPDX-License-Identifier: Apache-2.0
"""rnnfast: recurrent networks at hardware speed for PyTorch."""

from rnnfast import functional, ops
from rnnfast.accelerate import accelerate, accelerated, restore
from rnnfast.cells import GRUCell, LSTMCell, RNNCell
from rnnfast.explain import Explanation, explain
from rnnfast.frozen import freeze
from rnnfast.modules import GRU, LSTM, RNN
from rnnfast.version import __version__

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Explanation",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "__version__",
    "accelerate",
    "accelerated",
    "explain",
    "freeze",
    "functional",
    "ops",
    "restore",
]
