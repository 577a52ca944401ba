# SPDX-License-Identifier: Apache-2.0
"""rnnfast: recurrent networks at hardware speed for PyTorch."""

from rnnfast import ops
from rnnfast.explain import Explanation, explain
from rnnfast.modules import LSTM
from rnnfast.version import __version__

__all__ = ["LSTM", "Explanation", "__version__", "explain", "ops"]
