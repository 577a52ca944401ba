# SPDX-License-Identifier: Apache-2.0
"""rnnfast: recurrent networks at hardware speed for PyTorch."""

from rnnfast import diagnostics, functional, init, ops
from rnnfast.accelerate import Report, Row, accelerate, accelerated, restore
from rnnfast.cells import GRUCell, LSTMCell, RNNCell
from rnnfast.explain import Explanation, explain
from rnnfast.frozen import Frozen, freeze
from rnnfast.modules import GRU, LSTM, RNN
from rnnfast.stream import Stream
from rnnfast.truncation import tbptt
from rnnfast.version import __version__

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Explanation",
    "Frozen",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Report",
    "Row",
    "Stream",
    "__version__",
    "accelerate",
    "accelerated",
    "diagnostics",
    "explain",
    "freeze",
    "functional",
    "init",
    "ops",
    "restore",
    "tbptt",
]
