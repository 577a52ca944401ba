# SPDX-License-Identifier: Apache-2.0
"""The generated subclasses behind :func:`rnnfast.accelerate`: torch.nn's modules with our kernels in `forward`."""

import sys
import threading
import weakref
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, cast

from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.utils import parametrize

from rnnfast import cells, functional
from rnnfast.base import flat_weights
from rnnfast.ops import direct_cell, direct_layers
from rnnfast.specs import CELLS, ELMAN, CellSpec

__all__ = [
    "HELPERS",
    "KINDS",
    "accelerate_class",
    "cell_spec",
    "class_name",
    "forward_of_torch",
    "is_accelerated",
    "kind_of",
    "restore_class",
]

KINDS: tuple[type[nn.Module], ...] = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)

# What torch.nn's forward calls on itself. Where a subclass has its own, torch's forward runs around our kernels.
HELPERS = (
    "check_input",
    "get_expected_hidden_size",
    "get_expected_cell_size",
    "check_hidden_size",
    "check_forward_args",
    "permute_hidden",
    "_update_flat_weights",
    "_weights_have_changed",
    "_init_flat_weights",
)
_TORCH_RNN = vars(sys.modules[nn.LSTM.__module__])  # the namespace of torch.nn.modules.rnn

# Original class -> its generated subclass. Weak on both sides, so that classes made at run time can go.
_generated: weakref.WeakKeyDictionary[type, weakref.ref[type[nn.Module]]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def kind_of(module: nn.Module) -> type[nn.Module] | None:
    """Which of torch.nn's six classes a module is of."""
    return next((kind for kind in KINDS if isinstance(module, kind)), None)


def class_name(kind: type) -> str:
    """A class's name for people: torch.nn.LSTM, package.module.Class."""
    return f"{'torch.nn' if kind.__module__.startswith('torch.nn.modules.') else kind.__module__}.{kind.__qualname__}"


def is_accelerated(module: nn.Module) -> bool:
    """Whether a module's class is a generated one, or derives from one."""
    return hasattr(type(module), "_rnnfast_original")


def forward_of_torch(module: nn.Module) -> str | None:
    """Why calling this torch.nn module is not just torch's own forward, or None where it is (accelerated or not)."""
    kind = kind_of(module)
    if kind is None:
        return "derives from torch.nn's base class only, with its own forward"
    if "forward" in module.__dict__:
        return "forward is replaced on the object"
    if cast(Any, kind.forward).__globals__ is not _TORCH_RNN:
        return f"torch.nn.{kind.__name__}.forward has been replaced"
    original = getattr(type(module), "_rnnfast_original", type(module))
    if original.forward is not kind.forward or (
        is_accelerated(module) and type(module).forward is not _generated_base(type(module)).forward
    ):
        return "its class overrides forward"
    return None


def accelerate_class(module: nn.Module) -> str | None:
    """Gives a module whose forward is torch's the generated class; returns why that is impossible, or None."""
    try:
        _set_class(module, _accelerated_class(type(module)))
    except Exception as error:  # of a metaclass, of __init_subclass__, or a layout that does not fit: anything
        return f"its class does not allow it: {error}"
    return None


def restore_class(module: nn.Module) -> str | None:
    """Gives a module its class back; returns why that is impossible, or None."""
    kind = type(module)
    if not is_accelerated(module):
        return None
    base = _generated_base(kind)
    original = cast(Any, base)._rnnfast_original
    if kind is base:
        _set_class(module, original)
    elif kind.__module__ == parametrize.__name__ and kind.__bases__[0] is base:
        _set_class(module, _rebased(kind, original))
    else:
        return f"its class was changed since, to {class_name(kind)}"
    return None


def _generated_base(kind: type) -> type[nn.Module]:
    """The generated class that a class is or derives from."""
    return next(base for base in kind.__mro__ if "_rnnfast_original" in vars(base))


def _set_class(module: nn.Module, kind: type) -> None:
    object.__setattr__(module, "__class__", kind)  # past a __setattr__ of the module's own


def _accelerated_class(original: type[nn.Module]) -> type[nn.Module]:
    """The generated subclass of a class whose forward is torch's."""
    if original.__module__ == parametrize.__name__:
        # parametrize takes the base of its own class for the class before: so ours goes below it.
        return _rebased(original, _accelerated_class(cast(type[nn.Module], original.__bases__[0])))
    with _lock:
        reference = _generated.get(original)
        known = None if reference is None else reference()
        if known is None:
            namespace = {
                "forward": _forward(original),
                "_rnnfast_original": original,
                "__reduce_ex__": _reduce_ex,
                "__prepare_scriptable__": _prepare_scriptable,
                "__module__": original.__module__,
                "__qualname__": original.__qualname__,
                "__doc__": original.__doc__,
            }
            known = _make_class(original, original.__name__, namespace)
            _generated[original] = weakref.ref(known)
        return known


def _make_class(base: type[nn.Module], name: str, namespace: dict[str, Any]) -> type[nn.Module]:
    metaclass = cast(Callable[..., type[nn.Module]], type(base))
    return metaclass(name, (base,), namespace)


def _rebased(kind: type[nn.Module], base: type[nn.Module]) -> type[nn.Module]:
    """parametrize's class of one module, on another base; on its former base the former class, if it still fits."""
    skipped = ("__dict__", "__weakref__", "_rnnfast_rebased")
    own = {name: value for name, value in vars(kind).items() if name not in skipped}
    before = vars(kind).get("_rnnfast_rebased")
    if before is not None and before.__bases__[0] is base:
        fits = own == {name: value for name, value in vars(before).items() if name not in skipped}
        return before if fits else _make_class(base, kind.__name__, own)
    return _make_class(base, kind.__name__, own | {"_rnnfast_rebased": kind})


def _reduce_ex(self: nn.Module, protocol: Any) -> Any:
    """As the original class reduces itself, with the original in place of the generated class, which has no name."""
    generated = _generated_base(type(self))
    reduced = super(generated, self).__reduce_ex__(protocol)
    if type(self) is not generated or not isinstance(reduced, tuple):
        return reduced
    make, arguments, *rest = reduced
    original = cast(Any, generated)._rnnfast_original
    return (_remake, (make, *(original if a is generated else a for a in arguments)), *rest)


def _remake(make: Callable[..., Any], *arguments: Any) -> Any:
    """What a pickle or copy of an accelerated module calls; its state follows."""
    module = make(*arguments)
    if isinstance(module, KINDS) and not is_accelerated(module):
        accelerate_class(module)
    return module


def _prepare_scriptable(self: nn.Module) -> nn.Module:
    """torch.jit.script calls this before it compiles: only torch's own forward can be compiled."""
    restore_class(self)
    return self


def _forward(original: type[nn.Module]) -> Callable[..., Any]:
    """The forward of the class generated for `original`."""
    kind: Any = next(kind for kind in KINDS if issubclass(original, kind))
    if not issubclass(kind, nn.RNNBase):
        return _cell_forward(kind)
    if all(getattr(original, name, None) is getattr(kind, name, None) for name in HELPERS):
        return _sequence_forward
    # torch's own forward, checks and all, with our functions where it calls its kernels.
    torchs = kind.forward
    return FunctionType(torchs.__code__, _TORCH_RNN | {"_VF": _KERNELS}, "forward", torchs.__defaults__)


def _sequence_forward(self: Any, input: Any, hx: Any = None) -> Any:
    """Runs all layers over the sequence, on rnnfast's kernels."""
    weights = self._flat_weights
    parameters = self._parameters
    for name, weight in zip(self._flat_weights_names, weights, strict=False):
        if parameters.get(name) is not weight:  # replaced, parametrized, in functional_call, ...: as torch.nn does
            self._update_flat_weights()
            weights = self._flat_weights
            break
    else:
        if not is_compiling():
            result = direct_layers(self.mode, input, hx, self.__dict__)
            if result is not None:  # plain tensors, no grad: done
                return result
    return functional.run_module(self, input, hx, weights)


def _layers(spec: CellSpec) -> Callable[..., Any]:
    """In place of torch._VF.lstm, gru, rnn_tanh or rnn_relu, with their arguments."""

    def run(x: Tensor, second: Any, third: Any, *options: Any) -> tuple[Tensor, ...]:
        packed = isinstance(third, tuple | Tensor)  # (x, batch_sizes, hx, weights, ...), not (x, hx, weights, ...)
        batch_sizes, hx, weights = (second, third, options[0]) if packed else (None, second, third)
        has_biases, num_layers, dropout, training, bidirectional, *rest = options[1:] if packed else options
        batch_first = bool(rest and rest[0])
        h0, c0 = hx if spec.has_cell else (hx, None)
        y, h_n, c_n = functional.run_layers(
            spec,
            x.transpose(0, 1) if batch_first else x,
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
        y = y.transpose(0, 1) if batch_first else y
        return (y, h_n) if c_n is None else (y, h_n, c_n)

    return run


_KERNELS = SimpleNamespace(**{spec.torch_name: _layers(spec) for spec in CELLS.values() if spec.torch_name})


def _cell_forward(kind: type[nn.Module]) -> Callable[..., Any]:
    """forward of a cell: input [B, I] or [I], states [B, H] or [H] of the same rank."""

    def forward(self: Any, input: Tensor, hx: Any = None) -> Any:
        """One step, on rnnfast's kernels."""
        spec = cell_spec(self, kind)
        if not is_compiling():
            result = direct_cell(spec.mode, input, hx, self._parameters)
            if result is not None:  # plain tensors, no grad: done
                return result
        return cells.run_cell(spec, input, hx, cells.step, flat_weights(self, cells.CELL_WEIGHTS))

    return forward


def cell_spec(cell: Any, kind: type[nn.Module] | None) -> CellSpec:
    """Which of ours a torch.nn cell of this kind is."""
    if kind is not nn.RNNCell:
        return CELLS["lstm" if kind is nn.LSTMCell else "gru"]
    spec = ELMAN.get(cell.nonlinearity)
    if spec is None or spec.torch_name is None:
        raise RuntimeError(f"Unknown nonlinearity: {cell.nonlinearity}")
    return spec
