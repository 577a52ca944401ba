# SPDX-License-Identifier: Apache-2.0
"""Inference-only snapshots of recurrent modules, whose weights are packed once instead of at each call."""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.rnn import PackedSequence
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rnnfast import cells, functional
from rnnfast.base import RNNBase
from rnnfast.fallback import KERNEL_DTYPES
from rnnfast.inplace import CELL_WEIGHTS, cell_spec, cell_state, class_name, forward_of_torch, kind_of
from rnnfast.ops import _C
from rnnfast.specs import MODES, CellSpec

__all__ = ["Frozen", "freeze"]

_ATTRIBUTES = (
    "mode",
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
    "nonlinearity",
)


def freeze(module: nn.Module) -> "Frozen":
    """An inference-only snapshot of a recurrent module, with weights packed for the kernels.

    It saves what a call otherwise spends on packing, which matters most for short sequences and small batches. The
    module itself stays as it is and can go on training; `refresh()` takes its weights again.

    Args:
        module: an RNN, LSTM, GRU or cell of rnnfast or torch.nn (accelerated, parametrized, pruned or neither), on the
            CPU, in float32, float64, float16 or bfloat16.

    Returns:
        A callable with the signature of the module's forward; see :class:`Frozen`.

    Raises:
        TypeError: module is nothing of the kind, or has a forward of its own, which a snapshot would not run.
        ValueError: there are no kernels for its device or dtype.
    """
    return Frozen(module)


class Frozen:
    """What :func:`freeze` returns. Call it as the module: `frozen(input, hx)`.

    Input, state and results have the forms of the module's forward (batched or not, batch_first, PackedSequence), and
    wrong ones raise the same errors. It runs as in eval mode (no dropout) and outside autograd: results never require
    gradients. Hooks of the module do not run. Several threads may call it at once, and share the packed weights.

    It is no torch.nn.Module, so that a model that has it as an attribute counts no weight twice in `state_dict`,
    `parameters()` or `to()`. It holds the module, for `refresh()`, and cannot be pickled or copied: freeze again.

    The module's `input_size`, `hidden_size`, `num_layers`, ... can be read, as they were when the weights were taken.
    """

    def __init__(self, module: nn.Module) -> None:
        self._rnnfast_module = module
        self._spec = _check(module)
        self._is_cell = isinstance(module, nn.RNNCellBase | cells.RNNCellBase)
        self._parts: tuple[list[Any], torch.dtype] = ([], torch.float32)
        self.refresh()

    def refresh(self) -> None:
        """Takes the module's weights and options again, for the instruction set now in use.

        Raises:
            ValueError: there are no kernels for the device or dtype that the module now has.
        """
        module = self._rnnfast_module
        with torch.no_grad():
            names: Any = CELL_WEIGHTS if self._is_cell else module._flat_weights_names
            weights = _weights(module, names)
            first = weights[0]
            if not first.is_cpu or first.dtype not in KERNEL_DTYPES:
                what = f"device {first.device.type}" if not first.is_cpu else f"dtype {first.dtype}"
                raise ValueError(
                    f"rnnfast.freeze: {class_name(type(module))}: no rnnfast kernels for {what}; "
                    "snapshots are for the CPU, in float32, float64, float16 and bfloat16"
                )
            has_biases = len(weights) > 2 if self._is_cell else bool(module.bias)
            bidirectional = bool(getattr(module, "bidirectional", False))
            layers = int(getattr(module, "num_layers", 1))
            each = len(weights) // layers
            groups = [weights[each * layer : each * (layer + 1)] for layer in range(layers)]
            packed = [_C.FrozenLayer(self._spec.name, group, has_biases, bidirectional) for group in groups]
        for name in _ATTRIBUTES:
            if hasattr(module, name):
                self.__dict__[name] = getattr(module, name)
        self._text = f"{type(module).__name__}({module.extra_repr()})"
        self._parts = (packed, first.dtype)  # last and at once: calls in other threads see the old or the new

    @property
    def bytes(self) -> int:
        """Memory of the packed weights."""
        return sum(int(layer.bytes) for layer in self._parts[0])

    def __call__(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        """Runs the module's layers, or the cell's step. Shapes and errors: see the class."""
        with torch.no_grad():
            return self._call_cell(input, hx) if self._is_cell else self._call_layers(input, hx)

    def __getattr__(self, name: str) -> Any:
        """Only for the type checker and the error message: attributes are set by `refresh`."""
        raise AttributeError(f"a frozen {self.__dict__.get('_text', 'module')} has no attribute {name!r}")

    def __repr__(self) -> str:
        """The module as it was, and the packed size."""
        return f"rnnfast.freeze({self._text}, {self.bytes / 1024:.1f} KB packed)"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """A snapshot is bound to this process: raises TypeError."""
        raise TypeError("a frozen snapshot cannot be pickled or copied: pickle its module and freeze it again")

    def _call_layers(self, input: Any, hx: Any) -> Any:
        """As functional.run_sequence, on packed weights."""
        layers, dtype = self._parts
        spec = self._spec
        packed = isinstance(input, PackedSequence)
        batched = True
        batch_sizes = None
        if packed:
            x, batch_sizes, sorted_indices, unsorted_indices = input
            hx = None if hx is None else functional.permute(spec, hx, sorted_indices)
            batch = int(batch_sizes[0])
        else:
            if input.dim() not in (2, 3):
                kind = "D tensor" if spec.label == "RNN" else "D"
                raise ValueError(f"{spec.label}: Expected input to be 2D or 3D, got {input.dim()}{kind} instead")
            batched = input.dim() == 3
            x = input if batched else input.unsqueeze(0 if self.batch_first else 1)
            hx = None if hx is None else functional._check_ranks(spec, hx, batched)
            batch = x.shape[0 if self.batch_first else 1]
        functional.check_input(spec, x, batch_sizes, dtype, self.input_size)
        if self.batch_first and not packed:
            x = x.transpose(0, 1)
        rows = self.num_layers * (2 if self.bidirectional else 1)
        size = (rows, batch, self.proj_size or self.hidden_size)
        h0, c0 = functional._check_state(spec, x, hx, size, self.hidden_size)
        if x.shape[0] == 0 and not packed:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")

        y, h_n, c_n = self._run(layers, dtype, x, h0, c0, batch_sizes)

        output: Any = y
        state: Any = h_n if c_n is None else (h_n, c_n)
        if packed:
            output = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
            return output, functional.permute(spec, state, unsorted_indices)
        if self.batch_first:
            output = output.transpose(0, 1)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
            state = h_n.squeeze(1) if c_n is None else (h_n.squeeze(1), c_n.squeeze(1))
        return output, state

    def _call_cell(self, input: Any, hx: Any) -> Any:
        """As the cells' forward, on packed weights."""
        layers, dtype = self._parts
        spec = self._spec
        cells._check_ranks(f"{spec.label}Cell", input, None if spec.has_cell else hx)
        h, c = cell_state(spec, hx)
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        h, c = (t if t is None or batched else t.unsqueeze(0) for t in (h, c))
        if x.shape[1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}")
        for index, state in enumerate((h, c)):
            if state is not None:
                cells._check_state(x, state, self.hidden_size, index)
        h, c = (None if t is None else t.unsqueeze(0) for t in (h, c))
        _, h_n, c_n = self._run(layers, dtype, x.unsqueeze(0), h, c, None)
        states = [s.squeeze(0) if batched else s[0, 0] for s in (h_n, c_n) if s is not None]
        return tuple(states) if spec.has_cell else states[0]

    def _run(
        self, layers: list[Any], dtype: torch.dtype, x: Any, h0: Any, c0: Any, batch_sizes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """All layers: x [T, B, I] or packed [N, I], h0 [L*D, B, P], c0 [L*D, B, H] -> y, h_n, c_n (None without c)."""
        result = None
        if torch.is_autocast_enabled("cpu"):  # computed in the packed weights' dtype, given in the module's
            promotes = self._spec.nonlinearity is None if self._is_cell else self._spec.autocast_promotes
            result = functional.autocast(x, h0, c0, [torch.empty(0, dtype=dtype)], promotes)[4]
            if result is not None:
                x, h0, c0 = (None if t is None else t.to(dtype) for t in (x, h0, c0))
        directions = 2 if getattr(self, "bidirectional", False) else 1
        finals = []
        for index, layer in enumerate(layers):
            part = slice(index * directions, (index + 1) * directions)
            x, h_n, c_n = layer.forward(
                x, None if h0 is None else h0[part], None if c0 is None else c0[part], batch_sizes
            )
            finals.append((h_n, c_n))
        h_n, c_n = finals[0] if len(finals) == 1 else (torch.cat(states) for states in zip(*finals, strict=True))
        if result is not None:
            x, h_n, c_n = x.to(result), h_n.to(result), c_n.to(result)
        return x, h_n, c_n if self._spec.has_cell else None


def _check(module: Any) -> CellSpec:
    """Which cell a module runs; raises for what cannot be frozen."""
    if isinstance(module, RNNBase | cells.RNNCellBase):
        ours: Any = RNNBase if isinstance(module, RNNBase) else _own_cell(type(module))
        reason = None
        if "forward" in module.__dict__ or type(module).forward is not ours.forward:
            reason = "its class overrides forward, or forward is replaced on the object"
        spec = MODES[module.mode] if isinstance(module, RNNBase) else module._spec()
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        reason = forward_of_torch(module)
        spec = MODES[module.mode] if isinstance(module, nn.RNNBase) else cell_spec(module, kind_of(module))
    else:
        raise TypeError(
            "rnnfast.freeze: module: expected an RNN, LSTM, GRU or cell of rnnfast or torch.nn, "
            f"got {type(module).__name__} (of a model, freeze its recurrent modules)"
        )
    if reason is not None:
        raise TypeError(f"rnnfast.freeze: {class_name(type(module))}: {reason}, which a snapshot would not run")
    return spec


def _own_cell(kind: type) -> type:
    return next(base for base in kind.__mro__ if base.__module__ == cells.__name__)


def _weights(module: Any, names: Sequence[str]) -> list[Tensor]:
    """The weights of these names as the module's next call would see them; absent biases left out, or both there."""
    computed = {}
    for hook in module._forward_pre_hooks.values():  # these compute a weight before each call
        if isinstance(hook, WeightNorm):
            computed[hook.name] = hook.compute_weight(module)
        elif isinstance(hook, SpectralNorm):
            computed[hook.name] = hook.compute_weight(module, do_power_iteration=False)
        elif isinstance(hook, BasePruningMethod):
            computed[hook._tensor_name] = hook.apply_mask(module)
    weights = [computed[name] if name in computed else getattr(module, name) for name in names]
    if any(weight is None for weight in weights):  # a cell's biases
        zeros = [torch.zeros_like(weights[0][:, 0]) if weight is None else weight for weight in weights]
        return zeros if any(weight is not None for weight in weights[2:]) else weights[:2]
    return weights
