# SPDX-License-Identifier: Apache-2.0
"""What distinguishes the cells, as far as Python has to know it. A new cell adds one line here."""

from dataclasses import dataclass

__all__ = ["CELLS", "ELMAN", "MODES", "CellSpec"]


@dataclass(frozen=True)
class CellSpec:
    """One cell: how its op is called, and how torch.nn names it."""

    name: str  # the op is rnnfast::<name>_layer
    mode: str  # torch.nn's `mode` attribute
    label: str  # the torch.nn class that has it, for messages
    gates: int  # G: rows of the weights are G*H
    saved: int  # S: training keeps S*H values a row (0: the output is enough)
    has_cell: bool  # whether there is a second state c
    nonlinearity: str | None = None  # of the Elman cells
    torch_name: str | None = None  # torch._VF.<torch_name>, torch._VF.<torch_name>_cell, or None where torch has none
    autocast_promotes: bool = False  # under autocast the layer returns its state's dtype instead of autocast's
    gate_names: tuple[str, ...] = ("h",)  # the blocks of H rows of weights and biases; an Elman cell's is no gate
    keeper: str | None = None  # the gate that keeps the state: open, it lets the error signal back past the matrices


CELLS: dict[str, CellSpec] = {
    spec.name: spec
    for spec in (
        CellSpec(
            "lstm",
            "LSTM",
            "LSTM",
            gates=4,
            saved=4,
            has_cell=True,
            torch_name="lstm",
            gate_names=("i", "f", "g", "o"),
            keeper="f",
        ),
        CellSpec(
            "gru",
            "GRU",
            "GRU",
            gates=3,
            saved=4,
            has_cell=False,
            torch_name="gru",
            autocast_promotes=True,
            gate_names=("r", "z", "n"),
            keeper="z",
        ),
        CellSpec("rnn_tanh", "RNN_TANH", "RNN", 1, 0, False, nonlinearity="tanh", torch_name="rnn_tanh"),
        CellSpec("rnn_relu", "RNN_RELU", "RNN", 1, 0, False, nonlinearity="relu", torch_name="rnn_relu"),
        CellSpec("rnn_sigmoid", "RNN_SIGMOID", "RNN", 1, 0, False, nonlinearity="sigmoid"),
    )
}

MODES: dict[str, CellSpec] = {spec.mode: spec for spec in CELLS.values()}

ELMAN: dict[str, CellSpec] = {spec.nonlinearity: spec for spec in CELLS.values() if spec.nonlinearity is not None}
