# SPDX-License-Identifier: Apache-2.0
"""Where a recurrent module or cell, rnnfast's or torch.nn's, keeps its weights: by layer and direction."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from rnnfast.specs import CELLS, ELMAN, MODES, CellSpec

__all__ = ["ScanNames", "class_spec", "scan_names"]


@dataclass(frozen=True)
class ScanNames:
    """The names of the weights of one layer in one direction; None for those that it does not have."""

    layer: int
    reverse: bool
    w_ih: str  # [G*H, I]
    w_hh: str  # [G*H, P]
    b_ih: str | None  # [G*H]
    b_hh: str | None  # [G*H]
    w_hr: str | None  # [P, H]

    def __iter__(self) -> Iterator[str]:
        """The names that there are, in the order of torch.nn's parameters."""
        return (n for n in (self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr) if n is not None)


def class_spec(module: Any, who: str) -> CellSpec:
    """Which cell a module is made of, as its class and options say. who: for the messages.

    Raises:
        TypeError: module is no RNN, LSTM, GRU or cell of rnnfast or torch.nn.
        ValueError: an RNNCell with a nonlinearity that does not exist.
    """
    kind = getattr(type(module), "_torch_class", type(module))
    if issubclass(kind, nn.RNNBase):
        return MODES[module.mode]
    if issubclass(kind, nn.LSTMCell):
        return CELLS["lstm"]
    if issubclass(kind, nn.GRUCell):
        return CELLS["gru"]
    if issubclass(kind, nn.RNNCell):
        spec = ELMAN.get(module.nonlinearity)
        if spec is None:
            raise ValueError(
                f"{who}: {type(module).__name__}: nonlinearity: expected 'tanh', 'relu' or 'sigmoid', "
                f"got {module.nonlinearity!r}"
            )
        return spec
    raise TypeError(
        f"{who}: module: expected an RNN, LSTM, GRU or cell of rnnfast or torch.nn, "
        f"got {type(module).__name__} (of a model, take its recurrent modules)"
    )


def scan_names(module: Any) -> list[ScanNames]:
    """The names of a module's weights, one entry for each layer and direction; one for a cell."""
    if not hasattr(module, "num_layers"):
        biases = [None if getattr(module, name) is None else name for name in ("bias_ih", "bias_hh")]
        return [ScanNames(0, False, "weight_ih", "weight_hh", biases[0], biases[1], None)]
    scans = []
    for layer in range(module.num_layers):
        for reverse in (False, True) if module.bidirectional else (False,):
            end = f"_l{layer}{'_reverse' if reverse else ''}"
            b_ih, b_hh = (f"bias_ih{end}", f"bias_hh{end}") if module.bias else (None, None)
            w_hr = f"weight_hr{end}" if getattr(module, "proj_size", 0) else None
            scans.append(ScanNames(layer, reverse, f"weight_ih{end}", f"weight_hh{end}", b_ih, b_hh, w_hr))
    return scans
