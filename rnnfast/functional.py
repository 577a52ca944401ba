# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers without modules: a whole stack on tensors, and the checks that torch.nn's modules make."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from rnnfast import fallback
from rnnfast.checks import check_input, check_rank, check_state, check_state_ranks
from rnnfast.control import Control, arguments, control, names_of
from rnnfast.ops import LAYERS
from rnnfast.specs import CELLS, ELMAN, MODES, CellSpec

__all__ = ["gru", "lstm", "rnn"]


def lstm(
    input: Tensor | PackedSequence,
    hx: tuple[Tensor, Tensor] | None,
    weights: Iterable[Tensor],
    *,
    bias: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    training: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    bptt_clip: tuple[str, float] | None = None,
    bptt_steps: int | None = None,
    checkpoint_every: int | str | None = None,
    nan_policy: str = "propagate",
) -> tuple[Any, tuple[Tensor, Tensor]]:
    """A stack of LSTM layers on given weights (Hochreiter and Schmidhuber 1997; projection: Sak et al. 2014).

    Args:
        input: [T, B, I] ([B, T, I] with batch_first), unbatched [T, I], or a PackedSequence.
        hx: (h_0 [L*D, B, P], c_0 [L*D, B, H]), without B where input is unbatched; zeros if None.
        weights: for each layer and direction w_ih [4H, I or D*P], w_hh [4H, P], with `bias` b_ih and b_hh [4H], and
            with a projection w_hr [P, H] (recognised by the count): the order of torch.nn.LSTM's parameters. Any
            iterable.
        bias, num_layers, dropout, bidirectional, batch_first: as torch.nn.LSTM's.
        training: whether dropout acts.
        bptt_clip, bptt_steps, checkpoint_every, nan_policy: as :class:`rnnfast.LSTM`'s.

    Returns:
        output [T, B, D*P], in the form of input, and (h_n, c_n).

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn.LSTM for wrong ranks, sizes and dtypes.
        ValueError: what an option cannot be.
        RuntimeError: another number of weights than the options ask for.
    """
    options = control("rnnfast.functional.lstm", bptt_clip, bptt_steps, checkpoint_every, nan_policy)
    layers = (num_layers, dropout, training, bidirectional, batch_first)
    return _public(CELLS["lstm"], input, hx, weights, bias, *layers, options)


def gru(
    input: Tensor | PackedSequence,
    hx: Tensor | None,
    weights: Iterable[Tensor],
    *,
    bias: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    training: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    bptt_clip: tuple[str, float] | None = None,
    bptt_steps: int | None = None,
    checkpoint_every: int | str | None = None,
    nan_policy: str = "propagate",
) -> tuple[Any, Tensor]:
    """A stack of GRU layers on given weights (Cho et al. 2014, in torch's form: the reset gate acts after U h).

    As :func:`lstm`, with 3H rows of weights, hx = h_0 [L*D, B, H], and (output, h_n) returned.

    Raises:
        ValueError, RuntimeError, TypeError: as :func:`lstm`.
    """
    options = control("rnnfast.functional.gru", bptt_clip, bptt_steps, checkpoint_every, nan_policy)
    layers = (num_layers, dropout, training, bidirectional, batch_first)
    return _public(CELLS["gru"], input, hx, weights, bias, *layers, options)


def rnn(
    input: Tensor | PackedSequence,
    hx: Tensor | None,
    weights: Iterable[Tensor],
    *,
    nonlinearity: str = "tanh",
    bias: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    training: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    bptt_clip: tuple[str, float] | None = None,
    bptt_steps: int | None = None,
    checkpoint_every: int | str | None = None,
    nan_policy: str = "propagate",
) -> tuple[Any, Tensor]:
    """A stack of Elman layers on given weights (Elman 1990): h_t = f(W x_t + b_ih + U h_{t-1} + b_hh).

    As :func:`lstm`, with H rows of weights, hx = h_0 [L*D, B, H], and (output, h_n) returned.

    Args:
        nonlinearity: "tanh", "relu" or "sigmoid".

    Raises:
        ValueError: another nonlinearity.
        ValueError, RuntimeError, TypeError: as :func:`lstm`.
    """
    spec = ELMAN.get(nonlinearity)
    if spec is None:
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh', 'relu' or 'sigmoid'.")
    options = control("rnnfast.functional.rnn", bptt_clip, bptt_steps, checkpoint_every, nan_policy)
    layers = (num_layers, dropout, training, bidirectional, batch_first)
    return _public(spec, input, hx, weights, bias, *layers, options)


def _public(
    spec: CellSpec,
    input: Tensor | PackedSequence,
    hx: Any,
    weights: Iterable[Tensor],
    bias: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
    options: Control | None,
) -> tuple[Any, Any]:
    weights = list(weights)
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    directions = 2 if bidirectional else 1
    each = (4 if bias else 2) * num_layers * directions
    counts = (each, each + num_layers * directions) if spec.has_cell else (each,)
    if len(weights) not in counts:
        raise RuntimeError(
            f"rnnfast.functional: weights: expected {' or '.join(map(str, counts))} tensors "
            f"(num_layers={num_layers}, bias={bias}, bidirectional={bidirectional}), got {len(weights)}"
        )
    sizes = (weights[0].shape[1], weights[0].shape[0] // spec.gates, weights[1].shape[1])
    layers = (num_layers, dropout, training, bidirectional, batch_first)
    return run_sequence(spec, input, hx, weights, sizes, bias, *layers, options)


def run_module(
    module: Any, input: Any, hx: Any, weights: Sequence[Tensor], options: Control | None = None
) -> tuple[Any, Any]:
    """:func:`run_sequence` with the options of a module, rnnfast's or torch.nn's."""
    return run_sequence(
        MODES[module.mode],
        input,
        hx,
        weights,
        (module.input_size, module.hidden_size, module.proj_size or module.hidden_size),
        module.bias,
        module.num_layers,
        module.dropout,
        module.training,
        module.bidirectional,
        module.batch_first,
        options,
    )


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
    options: Control | None = None,
) -> tuple[Any, Any]:
    """What the modules' forward does: torch.nn's checks, then :func:`run_layers`. sizes: (I, H, P).

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn's modules for wrong ranks, sizes, dtypes and devices.
    """

    def run(x: Tensor, batch_sizes: Tensor | None, h0: Tensor | None, c0: Tensor | None) -> Any:
        return run_layers(
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
            options=options,
        )

    rows = num_layers * (2 if bidirectional else 1)
    return check_and_run(spec, input, hx, weights[0].dtype, weights[0].device, sizes, rows, batch_first, run)


def check_and_run(
    spec: CellSpec,
    input: Tensor | PackedSequence,
    hx: Any,
    dtype: torch.dtype,
    device: torch.device,
    sizes: tuple[int, int, int],
    rows: int,
    batch_first: bool,
    run: Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None], tuple[Tensor, Tensor, Tensor | None]],
) -> tuple[Any, Any]:
    """torch.nn's checks and forms of input around `run`(x, batch_sizes, h0, c0) -> y, h_n, c_n, as run_layers has them.

    dtype, device: the weights'; sizes: (I, H, P); rows: L*D.
    """
    if isinstance(input, PackedSequence):
        x, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is not None:
            hx = permute(spec, hx, sorted_indices)
        check_input(spec, x, batch_sizes, dtype, sizes[0])
        h0, c0 = check_state(spec, x, hx, (rows, int(batch_sizes[0]), sizes[2]), sizes[1])
        batched = True
    else:
        dims = input.dim()
        check_rank(spec, dims)
        batched = dims == 3
        batch_sizes = None
        x = input if batched else input.unsqueeze(0 if batch_first else 1)
        h0 = c0 = None
        if hx is not None:
            hx = check_state_ranks(spec, hx, batched)
        check_input(spec, x, None, dtype, sizes[0])
        if batch_first:
            x = x.transpose(0, 1)
        if hx is not None:
            h0, c0 = check_state(spec, x, hx, (rows, x.shape[1], sizes[2]), sizes[1])
        if x.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    if x.device != device:
        raise RuntimeError(
            "Input and parameter tensors are not at the same device, "
            f"found input tensor at {x.device} and parameter tensor at {device}"
        )

    y, h_n, c_n = run(x, batch_sizes, h0, c0)

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
    options: Control | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Runs the layers of a stack, without checks: rnnfast's ops, or torch's implementation where no kernel is.

    x [T, B, I], or packed [N, I] with batch_sizes; h0 [L*D, B, P], c0 [L*D, B, H]; weights flat. Returns y, h_n and
    c_n (None for cells without c). Under autocast: in its dtype, as torch.nn.
    """
    reason = fallback.why_no_kernel(x)
    if reason is not None:
        check_kernel_options(options, reason)
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
    if autocasts(x):
        x, h0, c0, weights, result_dtype = cast_as_autocast(x, h0, c0, weights, spec.autocast_promotes)

    layer_op = LAYERS[spec.name]
    if num_layers == 1:
        more = arguments(options, x.dtype)
        y, h_n, c_n, _, _ = layer_op(x, h0, c0, weights, batch_sizes, has_biases, bidirectional, False, *more)
    else:
        each = len(weights) // num_layers

        def layer(index: int, x: Tensor, h0: Tensor | None, c0: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
            own = weights[index * each : (index + 1) * each]
            more = arguments(options, x.dtype, index)
            y, h_n, c_n, _, _ = layer_op(x, h0, c0, own, batch_sizes, has_biases, bidirectional, False, *more)
            return y, h_n, c_n

        y, h_n, c_n = run_stack(layer, num_layers, 2 if bidirectional else 1, x, h0, c0, dropout if training else 0.0)
    if result_dtype is not None and result_dtype != y.dtype:
        y, h_n = y.to(result_dtype), h_n.to(result_dtype)
        c_n = c_n.to(result_dtype) if spec.has_cell else None
    return y, h_n, c_n if spec.has_cell else None


def check_kernel_options(options: Control | None, reason: str) -> None:
    """torch's own implementation knows no control over BPTT."""
    if options is not None:
        raise NotImplementedError(f"rnnfast: {names_of(options)}: expected an input that has kernels here: {reason}")


def run_stack(
    layer: Callable[[int, Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor, Tensor]],
    num_layers: int,
    directions: int,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each layer on the output of the one below, with dropout between: `layer`(index, x, h0, c0) -> y, h_n, c_n."""
    hs, cs = [], []
    for index in range(num_layers):
        part = slice(index * directions, (index + 1) * directions)
        x, h_n, c_n = layer(index, x, None if h0 is None else h0[part], None if c0 is None else c0[part])
        hs.append(h_n)
        cs.append(c_n)
        if dropout and index != num_layers - 1:
            x = F.dropout(x, dropout, True)
    return (x, hs[0], cs[0]) if num_layers == 1 else (x, torch.cat(hs), torch.cat(cs))


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for x's device."""
    return (x.is_cpu and torch.is_autocast_enabled("cpu")) or (x.is_cuda and torch.is_autocast_enabled("cuda"))


def cast_as_autocast(
    x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: Sequence[Tensor], promotes: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Sequence[Tensor], torch.dtype | None]:
    """Casts, differentiably, what autocast would; and the dtype of the results, None where nothing is cast.

    As torch, float64 anywhere is left alone: all of it runs in float64, a mixture is an error of the op. promotes:
    on the CPU the results have the state's dtype, as torch's GRU and RNN there; cuDNN's have autocast's.
    """
    dtype = torch.get_autocast_dtype(x.device.type)
    tensors = [t for t in (x, h0, c0, *weights) if t is not None]
    if any(t.dtype == torch.float64 for t in tensors):
        return x, h0, c0, weights, None
    state = c0 if c0 is not None else h0 if h0 is not None else x
    result = torch.promote_types(state.dtype, dtype) if promotes and not x.is_cuda else dtype
    h0, c0 = (None if s is None else s.to(dtype) for s in (h0, c0))
    return x.to(dtype), h0, c0, [w.to(dtype) for w in weights], result


def permute(spec: CellSpec, hx: Any, permutation: Tensor | None) -> Any:
    """Samples of the states [L*D, B, .] in another order."""
    if permutation is None:
        return hx
    if spec.has_cell:
        return hx[0].index_select(1, permutation), hx[1].index_select(1, permutation)
    return hx.index_select(1, permutation)
