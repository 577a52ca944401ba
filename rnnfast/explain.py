# SPDX-License-Identifier: Apache-2.0
"""What would run for a module and an input, and why nothing faster."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnfast.base import RNNBase
from rnnfast.cells import RNNCellBase
from rnnfast.fallback import why_no_kernel
from rnnfast.ops import _C
from rnnfast.specs import CELLS, MODES, CellSpec

_CELL_CLASSES = {nn.LSTMCell: "lstm", nn.GRUCell: "gru"}


@dataclass(frozen=True)
class Explanation:
    """The plan for one call. `str()` reads well."""

    path: str  # "rnnfast" or "torch"
    kernel: str
    isa: str
    decomposition: str
    threads: int
    reasons: list[str] = field(default_factory=list)  # why a faster path does not apply
    predicted_cost: str = ""

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [
            f"path:           {self.path} ({self.kernel})",
            f"instructions:   {self.isa}",
            f"decomposition:  {self.decomposition}",
            f"threads:        {self.threads}",
        ]
        if self.predicted_cost:
            lines.append(f"predicted cost: {self.predicted_cost}")
        lines += [f"note:           {reason}" for reason in self.reasons]
        return "\n".join(lines)


def explain(
    module: Any, x: Tensor | PackedSequence, hx: Any = None, device: torch.device | str | None = None
) -> Explanation:
    """Says which kernel `module(x, hx)` would run: instruction set, decomposition, threads, and why nothing faster.

    Args:
        module: an rnnfast module or cell, a torch.nn one (accelerated or not), or a frozen snapshot.
        x: an input as `forward` takes it; only its sizes, dtype and device matter.
        hx: accepted for symmetry with `forward`; the plan does not depend on it.
        device: explain for this device instead of x's.

    Raises:
        TypeError: for anything else.
    """
    frozen = getattr(module, "_rnnfast_module", None)  # a snapshot: the module that it was taken of
    source = module if frozen is None else frozen
    spec = _spec(source)
    if spec is None:
        raise TypeError(
            "rnnfast.explain: module: expected an rnnfast or torch.nn RNN, LSTM, GRU or one of their cells, "
            f"got {type(module).__name__}"
        )
    label = spec.label if hasattr(source, "num_layers") else f"{spec.label}Cell"
    is_torchs = isinstance(source, nn.RNNBase | nn.RNNCellBase)
    if is_torchs and frozen is None and not hasattr(type(source), "_rnnfast_original"):
        return _torch_path(label, "not accelerated: rnnfast.accelerate(model) runs it on rnnfast's kernels")
    data = x.data if isinstance(x, PackedSequence) else x
    if device is not None and torch.device(device).type != "cpu":
        return _torch_path(label, f"no rnnfast kernels for device {torch.device(device).type}")
    if device is not None:
        data = torch.empty_like(data, device="meta")
    reason = why_no_kernel(data)
    if reason is not None:
        return _torch_path(label, reason)
    dtype = data.dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")

    steps, batch = _steps_and_batch(source, x)
    weights = list(source.parameters()) if isinstance(source, nn.Module) else []
    training = (
        frozen is None
        and torch.is_grad_enabled()
        and (data.requires_grad or any(weight.requires_grad for weight in weights))
    )
    hidden = source.hidden_size
    plan = _C.explain_layer(
        spec.name,
        steps,
        batch,
        source.input_size,
        hidden,
        getattr(source, "proj_size", 0) or hidden,
        2 if getattr(source, "bidirectional", False) else 1,
        max(dtype.itemsize, 4),
        training,
    )
    reasons = []
    if plan["thread_limit"]:
        reasons.append(f"one thread: {plan['thread_limit']}")
    elif int(plan["threads"]) < _C.threads():
        reasons.append("one thread: the call is too small to pay for waking a second one")
    if plan["isa"] != _C.isas_available()[0]:
        reasons.append(f"{plan['isa']} was asked for; {_C.isas_available()[0]} is available")
    if dtype.itemsize < 4:
        reasons.append(f"{dtype} is converted: state and sums are float32")
    if frozen is not None:
        reasons.append("a frozen snapshot: packed weights, inference only")
    elif is_torchs:
        reasons.append(f"an accelerated torch.nn.{label}")
    decomposition = f"by {plan['decomposition']}, {plan['weights']}, {plan['chunk_steps']} steps projected together"
    if plan["groups"] == 2:
        decomposition += ", directions side by side"
    layer = "the step" if label.endswith("Cell") else "the first layer"
    return Explanation(
        path="rnnfast",
        kernel=f"{spec.name} " + ("forward and BPTT" if training else "forward"),
        isa=f"{plan['isa']} ({plan['lanes']} lanes)",
        decomposition=decomposition,
        threads=int(plan["threads"]),
        reasons=reasons,
        predicted_cost=f"{float(plan['flops']) / 1e6:.3g} MFLOP for {layer}",
    )


def _spec(module: Any) -> CellSpec | None:
    """Which cell a module runs, or None for anything that is no recurrent module."""
    if isinstance(module, RNNBase | nn.RNNBase):
        return MODES.get(module.mode)
    if isinstance(module, RNNCellBase):
        return module._spec()
    if isinstance(module, nn.RNNCellBase):
        names = [name for kind, name in _CELL_CLASSES.items() if isinstance(module, kind)]
        return CELLS.get(names[0] if names else f"rnn_{getattr(module, 'nonlinearity', '')}")
    return None


def _steps_and_batch(module: Any, x: Tensor | PackedSequence) -> tuple[int, int]:
    """T and B of an input as `forward` takes it."""
    if isinstance(x, PackedSequence):
        return len(x.batch_sizes), int(x.batch_sizes[0])
    if not hasattr(module, "num_layers"):
        return 1, x.shape[0] if x.dim() == 2 else 1
    if x.dim() == 2:
        return x.shape[0], 1
    return (x.shape[1], x.shape[0]) if module.batch_first else (x.shape[0], x.shape[1])


def _torch_path(label: str, reason: str) -> Explanation:
    return Explanation(
        "torch", f"torch's own {label}", "torch's choice", "torch's choice", torch.get_num_threads(), [reason]
    )
