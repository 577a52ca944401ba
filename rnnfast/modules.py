# SPDX-License-Identifier: Apache-2.0
"""Drop-in recurrent modules: torch.nn's interface, rnnfast's kernels."""

from typing import Any, ClassVar, overload

import torch
from torch import Tensor, nn

from rnnfast.base import NO_PROJECTION, RNNBase
from rnnfast.checks import check_size
from rnnfast.init import Init

__all__ = ["GRU", "LSTM", "RNN"]


class RNN(RNNBase):
    """Multi-layer Elman network, a drop-in for :class:`torch.nn.RNN` on fused kernels.

    For each layer and time step (Elman 1990)::

        h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)

    Parameters have torch.nn.RNN's names, order, shapes and initialisation (uniform in +-1/sqrt(H); the same seed
    gives the same values), so a ``state_dict`` of either loads into the other.

    Args:
        input_size: I, features of x.
        hidden_size: H, features of the hidden state.
        num_layers: layers, each fed by the one below.
        nonlinearity: f: "tanh", "relu", or "sigmoid" (which torch.nn lacks).
        bias: whether the layers have b_ih and b_hh.
        batch_first: input and output are [B, T, features] instead of [T, B, features].
        dropout: probability with which outputs of all layers but the last are zeroed, in training.
        bidirectional: each layer also runs from the last step to the first; outputs are concatenated.
        device, dtype: of the parameters. Kernels: CPU; float32, float64, float16 and bfloat16 (the last two computed
            in float32). Elsewhere torch's own RNN runs on the same parameters, with one warning (see
            :func:`rnnfast.explain`).
        init: what the parameters start from instead (:mod:`rnnfast.init`): a name ("irnn", "identity", "orthogonal"),
            a pair of name and value (("identity", 0.95)), or a function of the module; `reset_parameters` does it
            again.
        bptt_clip: ("value", c) clamps each element of the error signal dL/dh_t to +-c, ("norm", c) scales it
            down to norm c for each sample, before it enters the gates of step t. Keyword only, as what follows.
        bptt_steps: k: truncated BPTT: no error signal passes from step t to t - 1 where (T - t) mod k = 0.
        checkpoint_every: k, or "auto" (about sqrt(T)): keeps states every k steps and recomputes the rest.
        nan_policy: "propagate", or "raise": RuntimeError at the first state or error signal that is not finite.
            All four: docs/training.md.

    Shapes (D = 2 if bidirectional else 1, L = num_layers):
        input [T, B, I] (or [B, T, I]; [T, I] unbatched; or a PackedSequence); hx = h_0 [L*D, B, H] (or [L*D, H]),
        zeros if not given. Returns output [T, B, D*H], in the form of input, and h_n as h_0.

    Raises:
        ValueError, TypeError, RuntimeError: as torch.nn.RNN for wrong arguments, sizes, dtypes and devices.
        ValueError: an init that is unknown or does not fit the module; what one of the last four options cannot be.
    """

    _torch_class: ClassVar[type[nn.Module]] = nn.RNN
    nonlinearity: str

    @overload
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        init: Init = None,
        bptt_clip: tuple[str, float] | None = None,
        bptt_steps: int | None = None,
        checkpoint_every: int | str | None = None,
        nan_policy: str = "propagate",
    ) -> None: ...

    @overload
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError(NO_PROJECTION)
        # torch.nn.RNN's quirk: the fourth positional argument is the nonlinearity, and the rest moves on by one.
        if len(args) > 3:
            nonlinearity = args[3]
            args = args[:3] + args[4:]
        else:
            nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu", "sigmoid"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh', 'relu' or 'sigmoid'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Multi-layer LSTM, a drop-in for :class:`torch.nn.LSTM` on fused kernels.

    For each layer and time step (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000; projection: Sak et
    al. 2014)::

        i, f, g, o = split(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)        with proj_size: h_t = W_hr (sigmoid(o) * tanh(c_t))

    Parameters have torch.nn.LSTM's names, order, shapes and initialisation (uniform in +-1/sqrt(H); the same seed
    gives the same values), so a ``state_dict`` of either loads into the other.

    Args:
        input_size: I, features of x.
        hidden_size: H, features of the cell state.
        num_layers: layers, each fed by the one below.
        bias: whether the layers have b_ih and b_hh.
        batch_first: input and output are [B, T, features] instead of [T, B, features].
        dropout: probability with which outputs of all layers but the last are zeroed, in training.
        bidirectional: each layer also runs from the last step to the first; outputs are concatenated.
        proj_size: P, features of h_t if positive and less than H; 0: no projection, P = H.
        device, dtype: of the parameters. Kernels: CPU; float32, float64, float16 and bfloat16 (the last two computed
            in float32). Elsewhere torch's own LSTM runs on the same parameters, with one warning (see
            :func:`rnnfast.explain`).
        init: what the parameters start from instead (:mod:`rnnfast.init`): a name ("orthogonal", "forget_bias",
            "identity"), a pair of name and value (("chrono", t_max)), or a function of the module; `reset_parameters`
            does it again.
        bptt_clip: ("value", c) clamps each element of the error signal dL/dh_t (and dL/dc_t) to +-c, ("norm", c) scales
            it down to norm c for each sample, before it enters the gates of step t. Keyword only, as what follows.
        bptt_steps: k: truncated BPTT: no error signal passes from step t to t - 1 where (T - t) mod k = 0.
        checkpoint_every: k, or "auto" (about sqrt(T)): keeps states every k steps and recomputes the rest.
        nan_policy: "propagate", or "raise": RuntimeError at the first state or error signal that is not finite.
            All four: docs/training.md.

    Shapes (D = 2 if bidirectional else 1, L = num_layers):
        input [T, B, I] (or [B, T, I]; [T, I] unbatched; or a PackedSequence); hx = (h_0 [L*D, B, P], c_0 [L*D, B, H])
        (unbatched: without B), zeros if not given. Returns output [T, B, D*P], in the form of input, and (h_n, c_n).

    Raises:
        ValueError, TypeError, RuntimeError: as torch.nn.LSTM for wrong arguments, sizes, dtypes and devices.
        ValueError: an init that is unknown or does not fit the module; what one of the last four options cannot be.
    """

    _torch_class: ClassVar[type[nn.Module]] = nn.LSTM

    @overload
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
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        init: Init = None,
        bptt_clip: tuple[str, float] | None = None,
        bptt_steps: int | None = None,
        checkpoint_every: int | str | None = None,
        nan_policy: str = "propagate",
    ) -> None: ...

    @overload
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The size of c_0: (L*D, B, H)."""
        rows, batch, _ = self.get_expected_hidden_size(input, batch_sizes)
        return rows, batch, self.hidden_size

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """check_input, and the sizes of h_0 and c_0."""
        self.check_input(input, batch_sizes)
        h_size = self.get_expected_hidden_size(input, batch_sizes)
        check_size(hidden[0], h_size, "Expected hidden[0] size {}, got {}")
        c_size = self.get_expected_cell_size(input, batch_sizes)
        check_size(hidden[1], c_size, "Expected hidden[1] size {}, got {}")


class GRU(RNNBase):
    """Multi-layer gated recurrent unit, a drop-in for :class:`torch.nn.GRU` on fused kernels.

    For each layer and time step (Cho et al. 2014, in torch's form, where the reset gate acts after W_hn h)::

        r, z = split(sigmoid(W_i{r,z} x_t + b_i{r,z} + W_h{r,z} h_{t-1} + b_h{r,z}))
        n = tanh(W_in x_t + b_in + r * (W_hn h_{t-1} + b_hn))
        h_t = (1 - z) * n + z * h_{t-1}

    Parameters have torch.nn.GRU's names, order, shapes and initialisation (uniform in +-1/sqrt(H); the same seed
    gives the same values), so a ``state_dict`` of either loads into the other.

    Args:
        input_size: I, features of x.
        hidden_size: H, features of the hidden state.
        num_layers: layers, each fed by the one below.
        bias: whether the layers have b_ih and b_hh.
        batch_first: input and output are [B, T, features] instead of [T, B, features].
        dropout: probability with which outputs of all layers but the last are zeroed, in training.
        bidirectional: each layer also runs from the last step to the first; outputs are concatenated.
        device, dtype: of the parameters. Kernels: CPU; float32, float64, float16 and bfloat16 (the last two computed
            in float32). Elsewhere torch's own GRU runs on the same parameters, with one warning (see
            :func:`rnnfast.explain`).
        init: what the parameters start from instead (:mod:`rnnfast.init`): a name ("orthogonal", "identity"), a pair of
            name and value (("chrono", t_max)), or a function of the module; `reset_parameters` does it again.
        bptt_clip: ("value", c) clamps each element of the error signal dL/dh_t to +-c, ("norm", c) scales it
            down to norm c for each sample, before it enters the gates of step t. Keyword only, as what follows.
        bptt_steps: k: truncated BPTT: no error signal passes from step t to t - 1 where (T - t) mod k = 0.
        checkpoint_every: k, or "auto" (about sqrt(T)): keeps states every k steps and recomputes the rest.
        nan_policy: "propagate", or "raise": RuntimeError at the first state or error signal that is not finite.
            All four: docs/training.md.

    Shapes (D = 2 if bidirectional else 1, L = num_layers):
        input [T, B, I] (or [B, T, I]; [T, I] unbatched; or a PackedSequence); hx = h_0 [L*D, B, H] (or [L*D, H]),
        zeros if not given. Returns output [T, B, D*H], in the form of input, and h_n as h_0.

    Raises:
        ValueError, TypeError, RuntimeError: as torch.nn.GRU for wrong arguments, sizes, dtypes and devices.
        ValueError: an init that is unknown or does not fit the module; what one of the last four options cannot be.
    """

    _torch_class: ClassVar[type[nn.Module]] = nn.GRU

    @overload
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        init: Init = None,
        bptt_clip: tuple[str, float] | None = None,
        bptt_steps: int | None = None,
        checkpoint_every: int | str | None = None,
        nan_policy: str = "propagate",
    ) -> None: ...

    @overload
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError(NO_PROJECTION)
        super().__init__("GRU", *args, **kwargs)
