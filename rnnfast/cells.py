# SPDX-License-Identifier: Apache-2.0
"""Drop-in cells: one step of a layer, torch.nn's interface, the layers' kernels with T = 1."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from rnnfast import fallback, functional
from rnnfast.base import flat_weights, torch_twin
from rnnfast.ops import LAYERS
from rnnfast.specs import CELLS, CellSpec

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


class RNNCellBase(nn.Module):
    """Base of :class:`rnnfast.RNNCell`, :class:`rnnfast.LSTMCell` and :class:`rnnfast.GRUCell`; see those."""

    __constants__ = ["input_size", "hidden_size", "bias"]  # noqa: RUF012

    input_size: int
    hidden_size: int
    bias: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        shapes: dict[str, Any] = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
        shapes |= {"bias_ih": rows if bias else None, "bias_hh": rows if bias else None}
        for name, shape in shapes.items():
            empty = None if shape is None else nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.register_parameter(name, empty)
        self.reset_parameters()

    def extra_repr(self) -> str:
        """As torch.nn prints itself."""
        text = f"{self.input_size}, {self.hidden_size}"
        if "bias" in self.__dict__ and self.bias is not True:
            text += f", bias={self.bias}"
        if "nonlinearity" in self.__dict__ and self.nonlinearity != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text

    def reset_parameters(self) -> None:
        """Draws every parameter from U(-1/sqrt(H), 1/sqrt(H)), in torch.nn's order: same seed, same parameters."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def _spec(self) -> CellSpec:
        raise NotImplementedError

    def _step(self, input: Tensor, h: Tensor | None, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The new states for input [B, I] or [I], and states [B, H] or [H] of the same rank, or None."""
        dims = input.dim()
        x = input if dims == 2 else input.unsqueeze(0)
        if h is not None and dims == 1:
            h = h.unsqueeze(0)
            c = None if c is None else c.unsqueeze(0)
        spec = self._spec()
        w_ih, w_hh, b_ih, b_hh = flat_weights(self, ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h_n, c_n = step(spec, x, h, c, w_ih, w_hh, b_ih, b_hh)
        if dims == 1:
            h_n = h_n.squeeze(0)
            c_n = None if c_n is None else c_n.squeeze(0)
        return h_n, c_n

    def __prepare_scriptable__(self) -> nn.Module:
        """torch.jit.script cannot compile this class: it gets torch.nn's on the same parameters, in its place."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if self.bias else ("weight_ih", "weight_hh")
        return torch_twin(self, self._spec(), "Cell", names, {"bias": self.bias})


class RNNCell(RNNCellBase):
    """One step of an Elman network, a drop-in for :class:`torch.nn.RNNCell` (Elman 1990)::

        h' = f(W_ih x + b_ih + W_hh h + b_hh)

    Parameters have torch.nn.RNNCell's names, order, shapes and initialisation.

    Args:
        input_size: I, features of x.
        hidden_size: H, features of h.
        bias: whether there are b_ih and b_hh.
        nonlinearity: f: "tanh", "relu", or "sigmoid" (which torch.nn lacks).
        device, dtype: of the parameters; as :class:`rnnfast.RNN`.

    Shapes: input [B, I] or [I]; hx [B, H] or [H], zeros if not given. Returns h' as hx.

    Raises:
        ValueError, RuntimeError: as torch.nn.RNNCell for wrong ranks, sizes and dtypes; an unknown nonlinearity
            raises RuntimeError when the cell is called.
    """

    __constants__ = ["input_size", "hidden_size", "bias", "nonlinearity"]  # noqa: RUF012
    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def _spec(self) -> CellSpec:
        spec = CELLS.get(f"rnn_{self.nonlinearity}")
        if spec is None:
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return spec

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step. Shapes: see the class."""
        _check_ranks("RNNCell", input, hx)
        return self._step(input, hx, None)[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM, a drop-in for :class:`torch.nn.LSTMCell` (Hochreiter and Schmidhuber 1997)::

        i, f, g, o = split(W_ih x + b_ih + W_hh h + b_hh)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    Parameters have torch.nn.LSTMCell's names, order, shapes and initialisation.

    Args:
        input_size: I, features of x.
        hidden_size: H, features of h and c.
        bias: whether there are b_ih and b_hh.
        device, dtype: of the parameters; as :class:`rnnfast.LSTM`.

    Shapes: input [B, I] or [I]; hx = (h, c), each [B, H] or [H], zeros if not given. Returns (h', c') as hx.

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn.LSTMCell for wrong ranks, sizes and dtypes.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)

    def _spec(self) -> CellSpec:
        return CELLS["lstm"]

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step. Shapes: see the class."""
        h = c = None
        _check_ranks("LSTMCell", input, None)
        if hx is not None:
            for index, state in enumerate(hx):
                if state.dim() not in (1, 2):
                    raise ValueError(f"LSTMCell: Expected hx[{index}] to be 1D or 2D, got {state.dim()}D instead")
            if isinstance(hx, Tensor):
                raise TypeError("lstm_cell: hx: expected a tuple (h, c) of two tensors, got one tensor")
            if len(hx) != 2:
                raise RuntimeError(f"lstm_cell expects two hidden states, got {len(hx)}")
            h, c = hx
        h_n, c_n = self._step(input, h, c)
        assert c_n is not None
        return h_n, c_n


class GRUCell(RNNCellBase):
    """One step of a GRU, a drop-in for :class:`torch.nn.GRUCell` (Cho et al. 2014, in torch's form)::

        r, z = split(sigmoid(W_i{r,z} x + b_i{r,z} + W_h{r,z} h + b_h{r,z}))
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 - z) * n + z * h

    Parameters have torch.nn.GRUCell's names, order, shapes and initialisation.

    Args:
        input_size: I, features of x.
        hidden_size: H, features of h.
        bias: whether there are b_ih and b_hh.
        device, dtype: of the parameters; as :class:`rnnfast.GRU`.

    Shapes: input [B, I] or [I]; hx [B, H] or [H], zeros if not given. Returns h' as hx.

    Raises:
        ValueError, RuntimeError: as torch.nn.GRUCell for wrong ranks, sizes and dtypes.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)

    def _spec(self) -> CellSpec:
        return CELLS["gru"]

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step. Shapes: see the class."""
        _check_ranks("GRUCell", input, hx)
        return self._step(input, hx, None)[0]


def _check_ranks(label: str, input: Tensor, hx: Tensor | None) -> None:
    """torch.nn's checks of ranks, with its messages."""
    if input.dim() not in (1, 2):
        raise ValueError(f"{label}: Expected input to be 1D or 2D, got {input.dim()}D instead")
    if hx is not None and hx.dim() not in (1, 2):
        raise ValueError(f"{label}: Expected hidden to be 1D or 2D, got {hx.dim()}D instead")


def step(
    spec: CellSpec,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """One step with torch's size checks: x [B, I], h and c [B, H] or None for zeros -> the new h and c (or None).

    Where there is no kernel, torch's own cell runs.
    """
    reason = fallback.why_no_kernel(x)
    if reason is not None:
        fallback.warn(reason, spec, f"{spec.label}Cell")
        return fallback.cell(spec, x, h, c, w_ih, w_hh, b_ih, b_hh)
    input_size, hidden_size = w_ih.shape[1], w_hh.shape[1]
    if x.shape[1] != input_size:
        raise RuntimeError(f"input has inconsistent input_size: got {x.shape[1]} expected {input_size}")
    if x.device != w_ih.device:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {x.device} and {w_ih.device}")
    if h is not None:
        _check_state(x, h, hidden_size, 0)
        if c is not None:
            _check_state(x, c, hidden_size, 1)
    if input_size == 0 or hidden_size == 0:
        return fallback.cell(spec, x, h, c, w_ih, w_hh, b_ih, b_hh)

    weights = [w_ih, w_hh]
    has_biases = b_ih is not None or b_hh is not None
    if has_biases:
        rows = w_ih.shape[0]
        weights.append(w_ih.new_zeros(rows) if b_ih is None else b_ih)
        weights.append(w_ih.new_zeros(rows) if b_hh is None else b_hh)
    result_dtype = None
    if torch.is_autocast_enabled("cpu") and x.is_cpu:
        promotes = spec.nonlinearity is None
        x, h, c, cast, result_dtype = functional.autocast(x, h, c, weights, promotes)
        weights = list(cast)
    x = x.unsqueeze(0)
    h = None if h is None else h.unsqueeze(0)
    c = None if c is None else c.unsqueeze(0)
    _, h_n, c_n, _, _ = LAYERS[spec.name](x, h, c, weights, None, has_biases, False, False)
    h_n = h_n.squeeze(0)
    c_n = c_n.squeeze(0) if spec.has_cell else None
    if result_dtype is not None:
        return h_n.to(result_dtype), None if c_n is None else c_n.to(result_dtype)
    return h_n, c_n


def _check_state(x: Tensor, state: Tensor, hidden_size: int, index: int) -> None:
    """torch's checks of a state [B, H] of a cell, with its messages."""
    if state.shape[0] != x.shape[0]:
        raise RuntimeError(f"Input batch size {x.shape[0]} doesn't match hidden{index} batch size {state.shape[0]}")
    if state.shape[1] != hidden_size:
        raise RuntimeError(f"hidden{index} has inconsistent hidden_size: got {state.shape[1]}, expected {hidden_size}")
    if state.device != x.device:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {x.device} and {state.device}")
