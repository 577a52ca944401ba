# SPDX-License-Identifier: Apache-2.0
"""NumPy float64 references of every cell, by the name of its op. They say what is right."""

from tests.reference import common
from tests.reference.common import FREE, Array, Cell, Control, Layer, ScanGradients, Weights
from tests.reference.elman import Elman
from tests.reference.gru import Gru
from tests.reference.lstm import Lstm

__all__ = ["CELLS", "Array", "Control", "Layer", "ScanGradients", "Weights", "layer_backward", "layer_forward"]

CELLS: dict[str, Cell] = {
    "lstm": Lstm(),
    "gru": Gru(),
    "rnn_tanh": Elman("tanh"),
    "rnn_relu": Elman("relu"),
    "rnn_sigmoid": Elman("sigmoid"),
}


def layer_forward(cell: str, x: Array, h0: Array, c0: Array, weights: list[Weights], batch_sizes: list[int]) -> Layer:
    """One layer of the named cell, all its directions. x [N, I], h0 [D, B, P], c0 [D, B, H] (unused where no c)."""
    return common.layer_forward(CELLS[cell], x, h0, c0, weights, batch_sizes)


def layer_backward(
    cell: str,
    grad_y: Array,
    grad_h_n: Array,
    grad_c_n: Array,
    x: Array,
    weights: list[Weights],
    layer: Layer,
    batch_sizes: list[int],
    control: Control = FREE,
) -> list[ScanGradients]:
    """BPTT: the gradients of each direction; dL/dx is the sum of theirs."""
    return common.layer_backward(CELLS[cell], grad_y, grad_h_n, grad_c_n, x, weights, layer, batch_sizes, control)
