# SPDX-License-Identifier: Apache-2.0
"""Initialisation for long memory: what the recurrent weights and biases start from.

Each function takes a recurrent module or cell of rnnfast or torch.nn, changes its parameters in place, in all layers
and directions, and returns it. What a function does not name stays as it is, so that functions combine::

    lstm = rnnfast.init.chrono_(rnnfast.init.orthogonal_(rnnfast.LSTM(2, 100)), t_max=200)

rnnfast's modules also take them by name (`init=`): see :data:`Init`.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rnnfast.specs import CellSpec
from rnnfast.weights import ScanNames, class_spec, scan_names

__all__ = ["Init", "chrono_", "forget_bias_", "identity_", "irnn_", "orthogonal_"]

Module = TypeVar("Module", bound=nn.Module)

# What `init=` takes: a name ("irnn", "identity", "orthogonal", "forget_bias"); a pair of a name and the function's
# first argument (("chrono", t_max), ("identity", scale), ...); a function of the module (the module keeps it, so a
# lambda keeps the module from being pickled); or None, torch.nn's own.
Init = str | tuple[str, float] | Callable[[Any], Any] | None

_LARGEST = torch.finfo(torch.float32).max  # of what is set


@torch.no_grad()
def irnn_(module: Module, scale: float = 1.0, input_std: float = 0.001) -> Module:
    """An IRNN: a ReLU network whose recurrent matrix starts as the identity, so that each unit keeps its state.

    W_hh = scale * I, biases zero, W_ih normal with standard deviation `input_std`. At the start the error signal comes
    back over any number of steps as it was (scale 1), but nothing bounds it: clip it. Q. Le, N. Jaitly, G. Hinton, "A
    simple way to initialize recurrent networks of rectified linear units", 2015.

    Args:
        module: an RNN or RNNCell with nonlinearity "relu".
        scale: less than 1 lets old state fade (the paper's 0.01 for speech).
        input_std: the paper's 0.001; larger starts faster.

    Returns:
        module.

    Raises:
        ValueError: another cell or nonlinearity; a scale that is not finite, an input_std that is not >= 0.
        TypeError, ValueError: module as for :func:`orthogonal_`.
    """
    who = "rnnfast.init.irnn_"
    spec, scans = _open(module, who)
    if spec.nonlinearity != "relu":
        got = spec.label if spec.nonlinearity is None else f"nonlinearity {spec.nonlinearity!r}"
        raise ValueError(
            f"{who}: {type(module).__name__}: expected an RNN or RNNCell of nonlinearity 'relu', got {got}"
        )
    _check_number(who, "scale", scale, -math.inf)
    _check_number(who, "input_std", input_std, 0.0)
    for scan in scans:
        _parameter(module, scan.w_ih).normal_(0.0, input_std)
        for bias in (scan.b_ih, scan.b_hh):
            if bias is not None:
                _parameter(module, bias).zero_()
        _fill_identity(_parameter(module, scan.w_hh), 1, scale)
    return module


@torch.no_grad()
def identity_(module: Module, scale: float = 1.0) -> Module:
    """Every recurrent matrix a multiple of the identity: at first a unit hears only itself.

    Of a gated cell the matrix of each gate. A slightly smaller scale than 1 forgets slowly: Le, Jaitly, Hinton 2015; T.
    Mikolov et al., "Learning longer memory in recurrent neural networks", 2014, who hold 0.95 fixed.

    Args:
        module: an RNN, LSTM or GRU without projection, or a cell.
        scale: of the identity.

    Returns:
        module.

    Raises:
        ValueError: module has a projection (proj_size), with which W_hh is not square; a scale that is not finite.
        TypeError, ValueError: module as for :func:`orthogonal_`.
    """
    who = "rnnfast.init.identity_"
    spec, scans = _open(module, who)
    _check_number(who, "scale", scale, -math.inf)
    for scan in scans:
        if scan.w_hr is not None:
            raise ValueError(
                f"{who}: {type(module).__name__}: expected no projection, got proj_size={module.proj_size}: its "
                "recurrent matrices are not square; orthogonal_ takes projections"
            )
        _fill_identity(_parameter(module, scan.w_hh), spec.gates, scale)
    return module


@torch.no_grad()
def orthogonal_(module: Module, gain: float = 1.0) -> Module:
    """The recurrent matrix of every gate is orthogonal, each drawn by itself: all singular values are `gain`.

    One orthogonal matrix over all gates at once, as `torch.nn.init.orthogonal_` on weight_hh [G*H, H] gives, has
    orthonormal columns of length G*H, and each gate's part about 1/sqrt(G) of the norm. A. Saxe, J. McClelland, S.
    Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", 2014.

    With a projection each gate's W_hh [H, P] gets orthonormal columns (times gain), and W_hr [P, H] orthonormal rows,
    so that the P singular values of W_hh W_hr that can differ from zero are `gain`.

    Args:
        module: an RNN, LSTM, GRU or cell of rnnfast or torch.nn.
        gain: the singular values.

    Returns:
        module.

    Raises:
        TypeError: module is nothing of the kind (a model: take its recurrent modules).
        ValueError: one of its weights is parametrized, pruned or removed; a gain that is not finite.
    """
    who = "rnnfast.init.orthogonal_"
    spec, scans = _open(module, who)
    _check_number(who, "gain", gain, -math.inf)
    for scan in scans:
        for block in _parameter(module, scan.w_hh).chunk(spec.gates):
            _fill_orthogonal(block, gain)
        if scan.w_hr is not None:
            _fill_orthogonal(_parameter(module, scan.w_hr), 1.0)
    return module


@torch.no_grad()
def forget_bias_(module: Module, value: float = 1.0) -> Module:
    """The LSTM's forget gate starts open: its bias b_ih + b_hh is `value` in every unit.

    At 1 a unit keeps sigmoid(1) = 0.73 of its cell a step instead of one half. F. Gers, J. Schmidhuber, F. Cummins,
    "Learning to forget", 2000; R. Jozefowicz, W. Zaremba, I. Sutskever, "An empirical exploration of recurrent network
    architectures", 2015. torch has two biases, of which the sum counts: b_ih gets the value, b_hh zero.

    Args:
        module: an LSTM or LSTMCell with biases.
        value: of the bias; -log(1/k - 1) keeps k a step.

    Returns:
        module.

    Raises:
        ValueError: another cell (the GRU's update gate: chrono_), no biases, a value that is not finite.
        TypeError, ValueError: module as for :func:`orthogonal_`.
    """
    who = "rnnfast.init.forget_bias_"
    spec, scans = _open(module, who)
    _check_number(who, "value", value, -math.inf)
    if not spec.has_cell:
        raise ValueError(f"{who}: {type(module).__name__}: expected an LSTM or LSTMCell, got {spec.label}")
    for scan in scans:
        _set_gate_bias(module, scan, who, spec, "f", value)
    return module


@torch.no_grad()
def chrono_(module: Module, t_max: float) -> Module:
    """Gate biases for dependencies over up to `t_max` steps, whose time scales are spread over the units.

    LSTM: b_f = log(u) with u uniform in [1, t_max - 1] for each unit, b_i = -b_f. A unit then keeps its cell for about
    u steps. GRU: the same b_f for the gate that keeps the state, which is z in torch's form, where h_t = (1 - z) n +
    z h_{t-1}; the paper's update gate is 1 - z. C. Tallec, Y. Ollivier, "Can recurrent neural networks warp time?",
    2018. b_ih gets the value, b_hh of these gates zero; the other gates stay as they are.

    Args:
        module: an LSTM, GRU, LSTMCell or GRUCell with biases.
        t_max: the longest dependency to expect, in steps; at least 2.

    Returns:
        module.

    Raises:
        ValueError: an Elman network, which has no gates; no biases; a t_max less than 2.
        TypeError, ValueError: module as for :func:`orthogonal_`.
    """
    who = "rnnfast.init.chrono_"
    spec, scans = _open(module, who)
    _check_number(who, "t_max", t_max, 2.0)
    if spec.keeper is None:
        raise ValueError(
            f"{who}: {type(module).__name__}: expected an LSTM, GRU or one of their cells, got {spec.label}"
        )
    for scan in scans:
        w_hh = _parameter(module, scan.w_hh)
        steps = w_hh.new_empty(w_hh.shape[0] // spec.gates, dtype=torch.float32)
        bias = steps.uniform_(1.0, t_max - 1.0).log_()
        _set_gate_bias(module, scan, who, spec, spec.keeper, bias)
        if spec.has_cell:
            _set_gate_bias(module, scan, who, spec, "i", -bias)
    return module


_BY_NAME: dict[str, Callable[..., Any]] = {
    "irnn": irnn_,
    "identity": identity_,
    "orthogonal": orthogonal_,
    "forget_bias": forget_bias_,
    "chrono": chrono_,
}


def initialise(module: nn.Module, init: Any) -> None:
    """Does what a module's option `init` says, :data:`Init`.

    Raises:
        ValueError: nothing of the kind, or an initialisation that does not fit the module.
    """
    if init is None:
        return
    if callable(init):
        init(module)
        return
    name: Any = init
    values: tuple[Any, ...] = ()
    if isinstance(init, tuple | list) and len(init) == 2:
        name, values = init[0], (init[1],)
    function = _BY_NAME.get(name) if isinstance(name, str) else None
    if function is None:
        names = ", ".join(repr(known) for known in _BY_NAME)
        raise ValueError(
            f"{type(module).__name__}: init: expected None, one of {names}, a pair (name, value), or a function of the "
            f"module, got {init!r}"
        )
    if function is chrono_ and not values:
        raise ValueError(
            f"{type(module).__name__}: init: 'chrono' needs the longest dependency in steps: expected ('chrono', t_max)"
        )
    function(module, *values)


def init_text(init: Any) -> str:
    """A module's option `init` for its `repr`."""
    return getattr(init, "__qualname__", repr(init)) if callable(init) else repr(init)


def _open(module: Any, who: str) -> tuple[CellSpec, list[ScanNames]]:
    """The module's cell and names, once all its weights are known to be parameters that can be written."""
    spec = class_spec(module, who)
    scans = scan_names(module)
    for scan in scans:
        for name in scan:
            if module._parameters.get(name) is None:
                raise ValueError(
                    f"{who}: {type(module).__name__}: {name}: expected a parameter, but it is parametrized, pruned or "
                    "removed; initialise the module first"
                )
    return spec, scans


def _parameter(module: nn.Module, name: str) -> Tensor:
    parameter = module._parameters[name]
    assert parameter is not None  # _open has seen it
    return parameter


def _check_number(who: str, name: str, value: Any, least: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -_LARGEST <= value <= _LARGEST or value < least:
        bound = "" if least == -math.inf else f" >= {least:g}"
        held = " that float32 can hold" if number and _LARGEST < abs(value) < math.inf else ""
        raise ValueError(f"{who}: {name}: expected a finite number{bound}{held}, got {value!r}")


def _fill_identity(w_hh: Tensor, gates: int, scale: float) -> None:
    """scale * I in each of the [H, H] blocks of w_hh [G*H, H]."""
    w_hh.zero_()
    for block in w_hh.chunk(gates):
        block.diagonal().fill_(scale)


def _fill_orthogonal(matrix: Tensor, gain: float) -> None:
    """Orthonormal rows or columns, whichever are fewer, times gain; half precision is drawn and factored in float32."""
    exact = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    matrix.copy_(nn.init.orthogonal_(torch.empty_like(matrix, dtype=exact), gain))


def _set_gate_bias(
    module: nn.Module, scan: ScanNames, who: str, spec: CellSpec, gate: str, value: Tensor | float
) -> None:
    """b_ih of the gate becomes value ([H] or a number), b_hh zero."""
    if scan.b_ih is None or scan.b_hh is None:
        raise ValueError(f"{who}: {type(module).__name__}: expected a module with biases, got bias=False")
    index = spec.gate_names.index(gate)
    block = _parameter(module, scan.b_ih).chunk(spec.gates)[index]
    block.copy_(torch.as_tensor(value, dtype=block.dtype, device=block.device).expand_as(block))
    _parameter(module, scan.b_hh).chunk(spec.gates)[index].zero_()
