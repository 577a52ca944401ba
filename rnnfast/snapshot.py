# SPDX-License-Identifier: Apache-2.0
"""What freeze and Stream share: which modules can be packed, and the packing of their weights as they are now."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rnnfast import cells
from rnnfast.base import RNNBase, own_forward
from rnnfast.fallback import KERNEL_DTYPES
from rnnfast.inplace import cell_spec, class_name, forward_of_torch, kind_of
from rnnfast.ops import _C
from rnnfast.specs import MODES, CellSpec

__all__ = ["check_module", "current_weights", "is_cell", "pack"]


def is_cell(module: nn.Module) -> bool:
    """Whether a module that can be packed is a cell."""
    return isinstance(module, nn.RNNCellBase | cells.RNNCellBase)


def pack(module: Any, spec: CellSpec, who: str) -> tuple[Any, torch.dtype]:
    """A module's weights, packed for the instruction set now in use, and their dtype. who: for the messages.

    Raises:
        ValueError: there are no kernels for the device or dtype that the module now has, or it has a size of 0.
    """
    with torch.no_grad():
        names: Any = cells.CELL_WEIGHTS if is_cell(module) else module._flat_weights_names
        weights = current_weights(module, names)
        first = weights[0]
        if not first.is_cpu or first.dtype not in KERNEL_DTYPES:
            what = f"device {first.device.type}" if not first.is_cpu else f"dtype {first.dtype}"
            raise ValueError(
                f"{who}: {class_name(type(module))}: no rnnfast kernels for {what}; "
                "snapshots are for the CPU, in float32, float64, float16 and bfloat16"
            )
        if not all(first.shape) or module.hidden_size == 0:
            raise ValueError(f"{who}: {class_name(type(module))}: no rnnfast kernels for sizes of 0")
        has_biases = len(weights) > 2 if is_cell(module) else bool(module.bias)
        bidirectional = bool(getattr(module, "bidirectional", False))
        layers = int(getattr(module, "num_layers", 1))
        each = len(weights) // layers
        groups = [weights[each * layer : each * (layer + 1)] for layer in range(layers)]
        return _C.FrozenStack(spec.name, groups, has_biases, bidirectional), first.dtype


def check_module(module: Any, who: str) -> CellSpec:
    """Which cell a module runs; raises TypeError for what cannot be packed. who: for the messages."""
    if isinstance(module, RNNBase | cells.RNNCellBase):
        reason = own_forward(module)
        spec = MODES[module.mode] if isinstance(module, RNNBase) else module._spec()
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        reason = forward_of_torch(module)
        spec = MODES[module.mode] if isinstance(module, nn.RNNBase) else cell_spec(module, kind_of(module))
    else:
        raise TypeError(
            f"{who}: module: expected an RNN, LSTM, GRU or cell of rnnfast or torch.nn, "
            f"got {type(module).__name__} (of a model, take its recurrent modules)"
        )
    if reason is not None:
        raise TypeError(f"{who}: {class_name(type(module))}: {reason}, which a snapshot would not run")
    return spec


def current_weights(module: Any, names: Sequence[str]) -> list[Tensor]:
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
