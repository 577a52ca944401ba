# SPDX-License-Identifier: Apache-2.0
"""Drop-in cells: one step of a layer, torch.nn's interface, the layers' kernels with T = 1."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from rnnfast import fallback, functional
from rnnfast.base import flat_weights
from rnnfast.control import Control, arguments, control, options_text
from rnnfast.init import Init, init_text, initialise
from rnnfast.ops import LAYERS, direct_cell
from rnnfast.script import torch_twin
from rnnfast.specs import CELLS, ELMAN, CellSpec

__all__ = ["CELL_WEIGHTS", "GRUCell", "LSTMCell", "RNNCell", "RNNCellBase", "check_step", "run_cell", "step"]

CELL_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class RNNCellBase(nn.Module):
    """Base of :class:`rnnfast.RNNCell`, :class:`rnnfast.LSTMCell` and :class:`rnnfast.GRUCell`; see those."""

    __constants__ = ["input_size", "hidden_size", "bias"]  # noqa: RUF012

    input_size: int
    hidden_size: int
    bias: bool
    _init_option: Init = None  # an attribute of the object only where it was given
    # Attributes of the object where one of them was given.
    bptt_clip: tuple[str, float] | None = None
    nan_policy: str = "propagate"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
        *,
        init: Init = None,
        bptt_clip: tuple[str, float] | None = None,
        nan_policy: str = "propagate",
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        if control(f"rnnfast.{type(self).__name__}", bptt_clip, nan_policy=nan_policy) is not None:
            self.bptt_clip, self.nan_policy = bptt_clip, nan_policy
        rows = num_chunks * hidden_size
        shapes: dict[str, Any] = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
        shapes |= {"bias_ih": rows if bias else None, "bias_hh": rows if bias else None}
        for name, shape in shapes.items():
            empty = None if shape is None else nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.register_parameter(name, empty)
        if init is not None:
            self._init_option = init
        self.reset_parameters()

    def extra_repr(self) -> str:
        """As torch.nn prints itself."""
        text = f"{self.input_size}, {self.hidden_size}"
        if "bias" in self.__dict__ and self.bias is not True:
            text += f", bias={self.bias}"
        if "nonlinearity" in self.__dict__ and self.nonlinearity != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        if self._init_option is not None:
            text += f", init={init_text(self._init_option)}"
        return text + options_text(self)

    def reset_parameters(self) -> None:
        """Draws every parameter from U(-1/sqrt(H), 1/sqrt(H)), in torch.nn's order: same seed, same parameters.

        Then `init` sets those that it is about.
        """
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        initialise(self, self._init_option)

    def _spec(self) -> CellSpec:
        raise NotImplementedError

    def _control(self) -> Control | None:
        return control(f"rnnfast.{type(self).__name__}", self.bptt_clip, nan_policy=self.nan_policy)

    def _run(self, input: Tensor, hx: Any) -> Any:
        """forward of all cells."""
        spec = self._spec()
        if self.nan_policy == "propagate" and not is_compiling():
            result = direct_cell(spec.mode, input, hx, self._parameters)
            if result is not None:  # plain tensors, no grad: done
                return result
        options = self._control()
        run = step if options is None else partial(step, options=options)
        return run_cell(spec, input, hx, run, flat_weights(self, CELL_WEIGHTS))

    def __prepare_scriptable__(self) -> nn.Module:
        """torch.jit.script cannot compile this class: it gets torch.nn's on the same parameters, in its place."""
        names = CELL_WEIGHTS if self.bias else CELL_WEIGHTS[:2]
        return torch_twin(self, self._spec(), names, {"bias": self.bias})


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
        init: what the parameters start from instead; as :class:`rnnfast.RNN`.
        bptt_clip, nan_policy: as :class:`rnnfast.RNN`'s, for this one step. Keyword only.

    Shapes: input [B, I] or [I]; hx [B, H] or [H], zeros if not given. Returns h' as hx.

    Raises:
        ValueError, RuntimeError: as torch.nn.RNNCell for wrong ranks, sizes and dtypes; an unknown nonlinearity
            raises RuntimeError when the cell is called.
        ValueError: an init that is unknown or does not fit the cell.
    """

    _torch_class: ClassVar[type[nn.Module]] = nn.RNNCell
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
        **options: Any,
    ) -> None:
        self.nonlinearity = nonlinearity  # before the parameters are drawn: init asks for it
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype, **options)

    def _spec(self) -> CellSpec:
        spec = ELMAN.get(self.nonlinearity)
        if spec is None:
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return spec

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step. Shapes: see the class."""
        return cast(Tensor, self._run(input, hx))


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
        init: what the parameters start from instead; as :class:`rnnfast.LSTM`.
        bptt_clip, nan_policy: as :class:`rnnfast.LSTM`'s, for this one step. Keyword only.

    Shapes: input [B, I] or [I]; hx = (h, c), each [B, H] or [H], zeros if not given. Returns (h', c') as hx.

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn.LSTMCell for wrong ranks, sizes and dtypes.
        ValueError: an init that is unknown or does not fit the cell.
    """

    _torch_class: ClassVar[type[nn.Module]] = nn.LSTMCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype, **options)

    def _spec(self) -> CellSpec:
        return CELLS["lstm"]

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step. Shapes: see the class."""
        return cast(tuple[Tensor, Tensor], self._run(input, hx))


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
        init: what the parameters start from instead; as :class:`rnnfast.GRU`.
        bptt_clip, nan_policy: as :class:`rnnfast.GRU`'s, for this one step. Keyword only.

    Shapes: input [B, I] or [I]; hx [B, H] or [H], zeros if not given. Returns h' as hx.

    Raises:
        ValueError, RuntimeError: as torch.nn.GRUCell for wrong ranks, sizes and dtypes.
        ValueError: an init that is unknown or does not fit the cell.
    """

    _torch_class: ClassVar[type[nn.Module]] = nn.GRUCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype, **options)

    def _spec(self) -> CellSpec:
        return CELLS["gru"]

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step. Shapes: see the class."""
        return cast(Tensor, self._run(input, hx))


def run_cell(
    spec: CellSpec,
    input: Tensor,
    hx: Any,
    run: Callable[..., tuple[Tensor, Tensor | None]],
    weights: Sequence[Tensor | None] = (),
) -> Any:
    """torch.nn's checks of ranks and forms of input around `run`(spec, x, h, c, *weights), which is :func:`step`'s.

    input [B, I] or [I]; hx as forward takes it, of the same rank -> the new h, or (h, c).
    """
    dims = input.dim()
    if dims != 2 and dims != 1:
        raise ValueError(f"{spec.label}Cell: Expected input to be 1D or 2D, got {dims}D instead")
    h, c = hx, None
    if hx is not None:
        if spec.has_cell:
            h, c = _two_states(spec, hx)
        elif hx.dim() not in (1, 2):
            raise ValueError(f"{spec.label}Cell: Expected hidden to be 1D or 2D, got {hx.dim()}D instead")
    if dims == 2:
        h_n, c_n = run(spec, input, h, c, *weights)
    else:
        h_n, c_n = run(spec, input[None], None if h is None else h[None], None if c is None else c[None], *weights)
        h_n, c_n = h_n.squeeze(0), None if c_n is None else c_n.squeeze(0)
    return (h_n, c_n) if spec.has_cell else h_n


def _two_states(spec: CellSpec, hx: Any) -> tuple[Tensor, Tensor]:
    """h and c of a cell that has both."""
    for index, state in enumerate(hx):
        if state.dim() not in (1, 2):
            raise ValueError(f"{spec.label}Cell: Expected hx[{index}] to be 1D or 2D, got {state.dim()}D instead")
    if isinstance(hx, Tensor):
        raise TypeError("lstm_cell: hx: expected a tuple (h, c) of two tensors, got one tensor")
    if len(hx) != 2:
        raise RuntimeError(f"lstm_cell expects two hidden states, got {len(hx)}")
    h, c = hx
    return h, c


def step(
    spec: CellSpec,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    options: Control | None = None,
) -> tuple[Tensor, Tensor | None]:
    """One step with torch's size checks: x [B, I], h and c [B, H] or None for zeros -> the new h and c (or None).

    Where there is no kernel, torch's own cell runs.
    """
    reason = fallback.why_no_kernel(x)
    if reason is not None:
        functional.check_kernel_options(options, reason)
        fallback.warn(reason, spec, f"{spec.label}Cell")
        return fallback.cell(spec, x, h, c, w_ih, w_hh, b_ih, b_hh)
    failed = None
    if _op_checks(x, h, c, w_ih):  # then torch's checks, which cost a fifth of a small step, can wait for an error
        try:
            return _kernel(spec, x, h, c, w_ih, w_hh, b_ih, b_hh, options)
        except RuntimeError as error:
            failed = error
    input_size, hidden_size = w_ih.shape[1], w_hh.shape[1]
    check_step(x, h, c, input_size, hidden_size, w_ih.device)
    if input_size == 0 or hidden_size == 0:
        return fallback.cell(spec, x, h, c, w_ih, w_hh, b_ih, b_hh)
    if failed is not None:
        raise failed
    return _kernel(spec, x, h, c, w_ih, w_hh, b_ih, b_hh, options)


def _op_checks(x: Tensor, h: Tensor | None, c: Tensor | None, w_ih: Tensor) -> bool:
    """Whether the op sees sizes and devices at once: not on meta, of subclasses (fake tensors), in a compiler."""
    return (
        type(x) is Tensor
        and x.is_cpu
        and w_ih.is_cpu
        and (h is None or h.is_cpu)
        and (c is None or c.is_cpu)
        and not torch.compiler.is_compiling()
    )


def _kernel(
    spec: CellSpec,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    options: Control | None,
) -> tuple[Tensor, Tensor | None]:
    """The layer's op with T = 1. Arguments and results: as :func:`step`."""
    has_biases = True
    if b_ih is not None and b_hh is not None:
        weights = [w_ih, w_hh, b_ih, b_hh]
    elif b_ih is None and b_hh is None:
        weights, has_biases = [w_ih, w_hh], False
    else:
        zeros = w_ih.new_zeros(w_ih.shape[0])
        weights = [w_ih, w_hh, zeros if b_ih is None else b_ih, zeros if b_hh is None else b_hh]
    result_dtype = None
    if functional.autocasts(x):
        promotes = spec.nonlinearity is None
        x, h, c, cast_weights, result_dtype = functional.cast_as_autocast(x, h, c, weights, promotes)
        weights = list(cast_weights)
    h, c = None if h is None else h[None], None if c is None else c[None]
    _, h_n, c_n, _, _ = LAYERS[spec.name](
        x[None], h, c, weights, None, has_biases, False, False, *arguments(options, x.dtype)
    )
    h_n = h_n.squeeze(0)
    c_n = c_n.squeeze(0) if spec.has_cell else None
    if result_dtype is not None:
        return h_n.to(result_dtype), None if c_n is None else c_n.to(result_dtype)
    return h_n, c_n


def check_step(
    x: Tensor, h: Tensor | None, c: Tensor | None, input_size: int, hidden_size: int, device: torch.device
) -> None:
    """torch's checks of a cell's input x [B, I] and states [B, H], with its messages. device: the weights'."""
    if x.shape[1] != input_size:
        raise RuntimeError(f"input has inconsistent input_size: got {x.shape[1]} expected {input_size}")
    if x.device != device:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {x.device} and {device}")
    for index, state in enumerate((h, c)):
        if state is None:
            continue
        if state.shape[0] != x.shape[0]:
            raise RuntimeError(f"Input batch size {x.shape[0]} doesn't match hidden{index} batch size {state.shape[0]}")
        if state.shape[1] != hidden_size:
            raise RuntimeError(
                f"hidden{index} has inconsistent hidden_size: got {state.shape[1]}, expected {hidden_size}"
            )
        if state.device != x.device:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {x.device} and {state.device}"
            )
