# SPDX-License-Identifier: Apache-2.0
"""torch.nn's modules in place of rnnfast's, for what can only take those: torch.jit.script."""

import warnings
from collections.abc import Iterable
from typing import Any, cast

from torch import nn

from rnnfast.control import names_of
from rnnfast.specs import CellSpec

__all__ = ["replaced_original", "torch_twin"]

# What a replacement has besides: its original (in a tuple, out of sight of nn.Module and of state_dict), and names.
_DERIVED = ("_rnnfast_replaced", "_all_weights", "_flat_weights_names")


def replaced_original(new: nn.Module) -> nn.Module:
    """What `new` replaced (accelerate, replace=True), with the attributes that `new` now has: the dicts are shared."""
    module: nn.Module = new.__dict__["_rnnfast_replaced"][0]
    module.__dict__.update({name: value for name, value in new.__dict__.items() if name not in _DERIVED})
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()
    return module


def torch_twin(module: Any, spec: CellSpec, names: Iterable[str], options: dict[str, Any]) -> nn.Module:
    """What torch.jit.script compiles in place of an rnnfast module: torch.nn's, holding the same parameters.

    Of a replacement it is the original. names: of the parameters; options: torch.nn's, besides the sizes.

    Raises:
        RuntimeError: torch.nn's module would not do the same: the class is derived from rnnfast's, forward is replaced,
            there are hooks, buffers, or parametrized, pruned or further parameters, or torch lacks the nonlinearity.
    """
    parameters = {name: module._parameters.get(name) for name in names}
    reason = _why_no_twin(module, spec, parameters)
    if reason is not None:
        raise RuntimeError(
            f"torch.jit.script: {type(module).__name__}: torch.nn's module cannot stand in for it: {reason}. "
            "Use torch.jit.trace, torch.compile or torch.export, or build the model of torch.nn's modules for scripting"
        )
    if "_rnnfast_replaced" in module.__dict__:
        return replaced_original(module)
    if spec.nonlinearity is not None:
        options = options | {"nonlinearity": spec.nonlinearity}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its constructor has warned once
        twin = type(module)._torch_class(module.input_size, module.hidden_size, device="meta", **options)
    for name, parameter in parameters.items():
        setattr(twin, name, parameter)
    for name, value in module.__dict__.items():
        if name not in twin.__dict__:
            setattr(twin, name, value)  # of the user's own
    return cast(nn.Module, twin.train(module.training))


def _why_no_twin(module: nn.Module, spec: CellSpec, parameters: dict[str, Any]) -> str | None:
    """Why torch.nn's module with these parameters is not all of this module, or None."""
    if "_torch_class" not in vars(type(module)):
        return "its class is not rnnfast's own, but derived from it (or parametrized)"
    if "forward" in module.__dict__:
        return "its forward is replaced on the object"
    control = cast(Any, module)._control()
    if control is not None:
        return f"it controls BPTT or records it ({names_of(control)})"
    if "_rnnfast_replaced" in module.__dict__:
        return None  # torch.nn's own module, whatever it carries
    if spec.torch_name is None:
        return f"torch.nn has no {spec.nonlinearity}"
    if any(value for name, value in module.__dict__.items() if name.endswith("_hooks")):
        return "it has hooks"
    if module._buffers or module._modules:
        return "it has buffers or children"
    held = {name for name, parameter in module._parameters.items() if parameter is not None}
    if any(parameter is None for parameter in parameters.values()) or held != parameters.keys():
        return "its parameters are not torch.nn's (removed, pruned or added ones)"
    return None
