# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers without modules: a whole stack on tensors, and the checks that torch.nn's modules make."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from rnnfast import fallback
from rnnfast.ops import LAYERS
from rnnfast.specs import CELLS, CellSpec

__all__ = ["gru", "lstm", "rnn"]


def lstm(
    input: Tensor | PackedSequence,
    hx: tuple[Tensor, Tensor] | None,
    weights: Sequence[Tensor],
    *,
    bias: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    training: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[Any, tuple[Tensor, Tensor]]:
    """A stack of LSTM layers on given weights (Hochreiter and Schmidhuber 1997; projection: Sak et al. 2014).

    Args:
        input: [T, B, I] ([B, T, I] with batch_first), unbatched [T, I], or a PackedSequence.
        hx: (h_0 [L*D, B, P], c_0 [L*D, B, H]), without B where input is unbatched; zeros if None.
        weights: for each layer and direction w_ih [4H, I or D*P], w_hh [4H, P], with `bias` b_ih and b_hh [4H], and
            with a projection w_hr [P, H] (recognised by the count): the order of torch.nn.LSTM's parameters.
        bias, num_layers, dropout, bidirectional, batch_first: as torch.nn.LSTM's.
        training: whether dropout acts.

    Returns:
        output [T, B, D*P], in the form of input, and (h_n, c_n).

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn.LSTM for wrong ranks, sizes and dtypes.
    """
    return _public(CELLS["lstm"], input, hx, weights, bias, num_layers, dropout, training, bidirectional, batch_first)


def gru(
    input: Tensor | PackedSequence,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    *,
    bias: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    training: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[Any, Tensor]:
    """A stack of GRU layers on given weights (Cho et al. 2014, in torch's form: the reset gate acts after U h).

    As :func:`lstm`, with 3H rows of weights, hx = h_0 [L*D, B, H], and (output, h_n) returned.
    """
    return _public(CELLS["gru"], input, hx, weights, bias, num_layers, dropout, training, bidirectional, batch_first)


def rnn(
    input: Tensor | PackedSequence,
    hx: Tensor | None,
    weights: Sequence[Tensor],
    *,
    nonlinearity: str = "tanh",
    bias: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    training: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[Any, Tensor]:
    """A stack of Elman layers on given weights (Elman 1990): h_t = f(W x_t + b_ih + U h_{t-1} + b_hh).

    As :func:`lstm`, with H rows of weights, hx = h_0 [L*D, B, H], and (output, h_n) returned.

    Args:
        nonlinearity: "tanh", "relu" or "sigmoid".
    """
    spec = CELLS.get(f"rnn_{nonlinearity}")
    if spec is None:
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh', 'relu' or 'sigmoid'.")
    return _public(spec, input, hx, weights, bias, num_layers, dropout, training, bidirectional, batch_first)


def _public(
    spec: CellSpec,
    input: Tensor | PackedSequence,
    hx: Any,
    weights: Sequence[Tensor],
    bias: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any]:
    directions = 2 if bidirectional else 1
    each = (4 if bias else 2) * num_layers * directions
    counts = (each, each + num_layers * directions) if spec.has_cell else (each,)
    if len(weights) not in counts:
        raise RuntimeError(
            f"rnnfast.functional: weights: expected {' or '.join(map(str, counts))} tensors "
            f"(num_layers={num_layers}, bias={bias}, bidirectional={bidirectional}), got {len(weights)}"
        )
    sizes = (weights[0].shape[1], weights[0].shape[0] // spec.gates, weights[1].shape[1])
    options = (num_layers, dropout, training, bidirectional, batch_first)
    return run_sequence(spec, input, hx, weights, sizes, bias, *options)


def run_sequence(
    spec: CellSpec,
    input: Tensor | PackedSequence,
    hx: Any,
    weights: Sequence[Tensor],
    sizes: tuple[int, int, int],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any]:
    """What the modules' forward does: torch.nn's checks, then :func:`run_layers`. sizes: (I, H, P)."""
    if isinstance(input, PackedSequence):
        x, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is not None:
            hx = permute(spec, hx, sorted_indices)
        check_input(spec, x, batch_sizes, weights[0].dtype, sizes[0])
        rows = num_layers * (2 if bidirectional else 1)
        h0, c0 = _check_state(spec, x, hx, (rows, int(batch_sizes[0]), sizes[2]), sizes[1])
        batched = True
    else:
        dims = input.dim()
        if dims != 3 and dims != 2:
            kind = "D tensor" if spec.label == "RNN" else "D"
            raise ValueError(f"{spec.label}: Expected input to be 2D or 3D, got {dims}{kind} instead")
        batched = dims == 3
        batch_sizes = None
        x = input if batched else input.unsqueeze(0 if batch_first else 1)
        h0 = c0 = None
        if hx is not None:
            hx = _check_ranks(spec, hx, batched)
        check_input(spec, x, None, weights[0].dtype, sizes[0])
        if batch_first:
            x = x.transpose(0, 1)
        if hx is not None:
            rows = num_layers * (2 if bidirectional else 1)
            h0, c0 = _check_state(spec, x, hx, (rows, x.shape[1], sizes[2]), sizes[1])
        if x.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    if x.device != weights[0].device:
        raise RuntimeError(
            "Input and parameter tensors are not at the same device, "
            f"found input tensor at {x.device} and parameter tensor at {weights[0].device}"
        )

    y, h_n, c_n = run_layers(
        spec,
        x,
        batch_sizes,
        h0,
        c0,
        weights,
        has_biases=has_biases,
        num_layers=num_layers,
        dropout=dropout,
        training=training,
        bidirectional=bidirectional,
    )

    if batch_sizes is not None:
        output: Any = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
        state = (h_n, c_n) if spec.has_cell else h_n
        return output, state if unsorted_indices is None else permute(spec, state, unsorted_indices)
    output = y.transpose(0, 1) if batch_first else y
    if not batched:
        output, h_n = output.squeeze(0 if batch_first else 1), h_n.squeeze(1)
        c_n = None if c_n is None else c_n.squeeze(1)
    return output, (h_n, c_n) if spec.has_cell else h_n


def run_layers(
    spec: CellSpec,
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    *,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Runs the layers of a stack, without checks: rnnfast's ops, or torch's implementation where no kernel is.

    x [T, B, I], or packed [N, I] with batch_sizes; h0 [L*D, B, P], c0 [L*D, B, H]; weights flat. Returns y, h_n and
    c_n (None for cells without c). Under autocast: in its dtype, as torch.nn.
    """
    reason = fallback.why_no_kernel(x)
    if reason is not None:
        fallback.warn(reason, spec, spec.label)
        return fallback.layers(
            spec,
            x,
            batch_sizes,
            h0,
            c0,
            weights,
            has_biases=has_biases,
            num_layers=num_layers,
            dropout=dropout,
            training=training,
            bidirectional=bidirectional,
        )
    result_dtype = None
    if torch.is_autocast_enabled("cpu") and x.is_cpu:
        x, h0, c0, weights, result_dtype = autocast(x, h0, c0, weights, spec.autocast_promotes)

    layer_op = LAYERS[spec.name]
    if num_layers == 1:
        y, h_n, c_n, _, _ = layer_op(x, h0, c0, weights, batch_sizes, has_biases, bidirectional, False)
    else:
        directions = 2 if bidirectional else 1
        each = len(weights) // num_layers
        finals = []
        y = x
        for layer in range(num_layers):
            states = slice(layer * directions, (layer + 1) * directions)
            y, h_n, c_n, _, _ = layer_op(
                y,
                None if h0 is None else h0[states],
                None if c0 is None else c0[states],
                weights[layer * each : (layer + 1) * each],
                batch_sizes,
                has_biases,
                bidirectional,
                False,
            )
            finals.append((h_n, c_n))
            if dropout and training and layer != num_layers - 1:
                y = F.dropout(y, dropout, True)
        h_n = torch.cat([h for h, _ in finals])
        c_n = torch.cat([c for _, c in finals]) if spec.has_cell else None
    if result_dtype is not None and result_dtype != y.dtype:
        y, h_n = y.to(result_dtype), h_n.to(result_dtype)
        c_n = c_n.to(result_dtype) if spec.has_cell else None
    return y, h_n, c_n if spec.has_cell else None


def autocast(
    x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: Sequence[Tensor], promotes: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Sequence[Tensor], torch.dtype | None]:
    """Casts, differentiably, what autocast would; and the dtype of the results, None where nothing is cast.

    As torch, float64 anywhere is left alone: all of it runs in float64, a mixture is an error of the op.
    """
    dtype = torch.get_autocast_dtype("cpu")
    tensors = [t for t in (x, h0, c0, *weights) if t is not None]
    if any(t.dtype == torch.float64 for t in tensors):
        return x, h0, c0, weights, None
    state = c0 if c0 is not None else h0 if h0 is not None else x
    result = torch.promote_types(state.dtype, dtype) if promotes else dtype
    h0, c0 = (None if s is None else s.to(dtype) for s in (h0, c0))
    return x.to(dtype), h0, c0, [w.to(dtype) for w in weights], result


def check_input(spec: CellSpec, x: Tensor, batch_sizes: Tensor | None, dtype: torch.dtype, input_size: int) -> None:
    """torch.nn's checks of the input's dtype and sizes."""
    if x.dtype != dtype and not torch._C._is_any_autocast_enabled():
        # torch.nn.LSTM does not check packed input; its kernels then raise RuntimeError.
        kind = RuntimeError if spec.has_cell and batch_sizes is not None else ValueError
        raise kind(
            f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
            f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
        )
    dims = 2 if batch_sizes is not None else 3
    if x.dim() != dims:
        raise RuntimeError(f"input must have {dims} dimensions, got {x.dim()}")
    if x.shape[-1] != input_size:
        raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {input_size}, got {x.shape[-1]}")


def _check_ranks(spec: CellSpec, hx: Any, batched: bool) -> Any:
    """The states of dense input have its rank; unbatched ones come back with a batch of one."""
    dims = 3 if batched else 2
    kind = "batched 3-D" if batched else "unbatched 2-D"
    if spec.has_cell:
        if hx[0].dim() != dims or hx[1].dim() != dims:
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {dims}-D but got "
                f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        return hx if batched else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
    if hx.dim() != dims:
        raise RuntimeError(f"For {kind} input, hx should also be {dims}-D but got {hx.dim()}-D tensor")
    return hx if batched else hx.unsqueeze(1)


def _check_state(
    spec: CellSpec, x: Tensor, hx: Any, expected: tuple[int, int, int], hidden_size: int
) -> tuple[Tensor | None, Tensor | None]:
    """h0, c0 of the expected sizes [L*D, B, P] (c0: H), on x's device."""
    if hx is None:
        return None, None
    if spec.has_cell:
        if isinstance(hx, Tensor):
            raise TypeError("lstm: hx: expected a tuple (h_0, c_0) of two tensors, got one tensor")
        if len(hx) != 2:
            raise RuntimeError(f"lstm expects two hidden states, got {len(hx)}")
        h0, c0 = hx
        check_size(h0, expected, "Expected hidden[0] size {}, got {}")
        check_size(c0, (expected[0], expected[1], hidden_size), "Expected hidden[1] size {}, got {}")
    else:
        h0, c0 = hx, None
        check_size(h0, expected, "Expected hidden size {}, got {}")
    if h0.device != x.device or (c0 is not None and c0.device != x.device):
        found = h0.device if h0.device != x.device else c0.device
        raise RuntimeError(
            "Input and hidden tensors are not at the same device, "
            f"found input tensor at {x.device} and hidden tensor at {found}"
        )
    return h0, c0


def check_size(state: Tensor, expected: tuple[int, int, int], message: str) -> None:
    """torch.nn's check of a state's size."""
    if state.shape != expected:
        raise RuntimeError(message.format(tuple(expected), list(state.shape)))


def permute(spec: CellSpec, hx: Any, permutation: Tensor | None) -> Any:
    """Samples of the states [L*D, B, .] in another order."""
    if permutation is None:
        return hx
    if spec.has_cell:
        return hx[0].index_select(1, permutation), hx[1].index_select(1, permutation)
    return hx.index_select(1, permutation)
