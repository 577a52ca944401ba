# SPDX-License-Identifier: Apache-2.0
"""Drop-in recurrent modules: torch.nn's interface, rnnfast's kernels."""

import math
import numbers
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnfast.ops import lstm_layer

_State = tuple[Tensor, Tensor]
_KERNEL_DTYPES = (torch.float32, torch.float64)
_warned_fallbacks: set[str] = set()


def why_no_kernel(input: Tensor) -> str | None:
    """Why rnnfast has no kernel for this input, or None where it has one."""
    if input.device.type not in ("cpu", "meta"):
        return f"no rnnfast kernels for device {input.device.type}"
    if input.dtype not in _KERNEL_DTYPES:
        return f"no rnnfast kernels for dtype {input.dtype}"
    return None


def _warn_fallback(reason: str) -> None:
    if reason not in _warned_fallbacks:
        _warned_fallbacks.add(reason)
        warnings.warn(f"rnnfast: {reason}; running torch's own LSTM", stacklevel=4)


class LSTM(nn.Module):
    """Multi-layer LSTM, a drop-in for :class:`torch.nn.LSTM` on fused kernels.

    For each layer and time step (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000)::

        i, f, g, o = split(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    Parameters have torch.nn.LSTM's names, order, shapes and initialisation (uniform in +-1/sqrt(H); the same seed
    gives the same values), so a ``state_dict`` of either loads into the other.

    Args:
        input_size: I, features of x.
        hidden_size: H, features of the hidden state.
        num_layers: layers, each fed by the one below.
        bias: whether the layers have b_ih and b_hh.
        batch_first: input and output are [B, T, features] instead of [T, B, features].
        dropout: probability with which outputs of all layers but the last are zeroed, in training.
        bidirectional: each layer also runs from the last step to the first; outputs are concatenated.
        proj_size: not implemented yet; must be 0.
        device, dtype: of the parameters. Kernels: CPU, float32 and float64; elsewhere torch's own LSTM runs on the
            same parameters, with one warning (see :func:`rnnfast.explain`).

    Shapes (D = 2 if bidirectional else 1, L = num_layers):
        input [T, B, I] (or [B, T, I], or [T, I] unbatched); hx = (h_0, c_0), each [L*D, B, H] (or [L*D, H]), zeros
        if not given. Returns output [T, B, D*H] and (h_n, c_n), each [L*D, B, H].

    Raises:
        ValueError, TypeError, RuntimeError: as torch.nn.LSTM for wrong arguments, sizes and dtypes.
        NotImplementedError: for proj_size > 0 and PackedSequence input.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_constructor(input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)
        self.mode = "LSTM"
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size

        directions = 2 if bidirectional else 1
        gates = 4 * hidden_size
        self._layer_names: list[list[str]] = []
        for layer in range(num_layers):
            names = []
            features = input_size if layer == 0 else directions * hidden_size
            for suffix in ("", "_reverse")[:directions]:
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, features)}
                shapes["weight_hh"] = (gates, hidden_size)
                if bias:
                    shapes["bias_ih"] = shapes["bias_hh"] = (gates,)
                for kind, shape in shapes.items():
                    name = f"{kind}_l{layer}{suffix}"
                    setattr(self, name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
                    names.append(name)
            self._layer_names.append(names)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws every parameter from U(-1/sqrt(H), 1/sqrt(H)), in torch.nn.LSTM's order."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction: weight_ih, weight_hh, bias_ih, bias_hh."""
        each = 4 if self.bias else 2
        return [
            [getattr(self, name) for name in names[i : i + each]]
            for names in self._layer_names
            for i in range(0, len(names), each)
        ]

    def flatten_parameters(self) -> None:
        """Does nothing: rnnfast needs no flat weights. Here for torch.nn.LSTM's interface."""

    def extra_repr(self) -> str:
        """As torch.nn.LSTM prints itself."""
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text

    def forward(self, input: Tensor, hx: _State | None = None) -> tuple[Tensor, _State]:
        """Runs all layers over the sequence. Shapes: see the class."""
        if isinstance(input, PackedSequence):
            raise NotImplementedError(
                "rnnfast.LSTM: input: expected a Tensor, got a PackedSequence, which is not implemented yet; "
                "pad it, or use torch.nn.LSTM"
            )
        if input.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        batch_dim = 0 if self.batch_first else 1
        if not batched:
            input = input.unsqueeze(batch_dim)
        self._check_input(input)
        if hx is not None:
            hx = self._check_state(input, hx, batched)
        x = input.transpose(0, 1) if self.batch_first else input
        if x.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")

        reason = why_no_kernel(x)
        if reason is None:
            x, h_n, c_n = self._run_layers(x, hx)
        else:
            x, h_n, c_n = self._run_torch(x, hx, reason)

        output = x.transpose(0, 1) if self.batch_first else x
        if not batched:
            return output.squeeze(batch_dim), (h_n.squeeze(1), c_n.squeeze(1))
        return output, (h_n, c_n)

    def _run_layers(self, x: Tensor, hx: _State | None) -> tuple[Tensor, Tensor, Tensor]:
        directions = 2 if self.bidirectional else 1
        last = self.num_layers - 1
        states: list[_State] = []
        for layer, names in enumerate(self._layer_names):
            weights = [getattr(self, name) for name in names]
            h0 = c0 = None
            if hx is not None:
                h0, c0 = (s[layer * directions : (layer + 1) * directions] for s in hx)
            x, h_n, c_n, _, _ = lstm_layer(x, h0, c0, weights, None, self.bias, self.bidirectional, False)
            states.append((h_n, c_n))
            if self.dropout and layer != last:
                x = F.dropout(x, self.dropout, self.training)
        if last == 0:
            return x, *states[0]
        return x, torch.cat([h for h, _ in states]), torch.cat([c for _, c in states])

    def _run_torch(self, x: Tensor, hx: _State | None, reason: str) -> tuple[Tensor, Tensor, Tensor]:
        """torch's own implementation, for devices and dtypes without kernels."""
        if not torch.compiler.is_compiling():
            _warn_fallback(reason)
        if hx is None:
            directions = 2 if self.bidirectional else 1
            zeros = x.new_zeros(self.num_layers * directions, x.shape[1], self.hidden_size)
            hx = (zeros, zeros)
        weights = [getattr(self, name) for names in self._layer_names for name in names]
        result: tuple[Tensor, Tensor, Tensor] = torch._VF.lstm(
            x, hx, weights, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional, False
        )
        return result

    def _check_input(self, input: Tensor) -> None:
        dtype = getattr(self, self._layer_names[0][0]).dtype
        if input.dtype != dtype and not torch._C._is_any_autocast_enabled():
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})"
            )
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )

    def _check_state(self, input: Tensor, hx: _State, batched: bool) -> _State:
        dims = 3 if batched else 2
        h0, c0 = hx
        if h0.dim() != dims or c0.dim() != dims:
            kind = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {dims}-D but got ({h0.dim()}-D, {c0.dim()}-D) tensors"
            )
        if not batched:
            h0, c0 = h0.unsqueeze(1), c0.unsqueeze(1)
        directions = 2 if self.bidirectional else 1
        batch = input.shape[0 if self.batch_first else 1]
        expected = (self.num_layers * directions, batch, self.hidden_size)
        for i, state in enumerate((h0, c0)):
            if tuple(state.shape) != expected:
                raise RuntimeError(f"Expected hidden[{i}] size {expected}, got {list(state.shape)}")
        return h0, c0

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("proj_size", 0)


def _check_constructor(
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    batch_first: bool,
    dropout: float,
    proj_size: int,
) -> None:
    """torch.nn.LSTM's checks, with its exception types."""
    if not isinstance(dropout, numbers.Number) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
            f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=3,
        )
    for name, value, kind in (
        ("bias", bias, bool),
        ("batch_first", batch_first, bool),
        ("input_size", input_size, int),
        ("hidden_size", hidden_size, int),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} should be of type {kind.__name__}, got: {type(value).__name__}")
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if value <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")
    if proj_size > 0:
        raise NotImplementedError(
            f"rnnfast.LSTM: proj_size: expected 0 (projections are not implemented yet), got {proj_size}"
        )
