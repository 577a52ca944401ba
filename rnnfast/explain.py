# SPDX-License-Identifier: Apache-2.0
"""What would run for a module and an input, and why nothing faster."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rnnfast.modules import LSTM, why_no_kernel
from rnnfast.ops import _C


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


def explain(module: LSTM, x: Tensor, hx: Any = None, device: torch.device | str | None = None) -> Explanation:
    """Says which kernel `module(x, hx)` would run: instruction set, decomposition, threads, and why nothing faster.

    Args:
        module: an rnnfast.LSTM.
        x: an input as `forward` takes it; only its shape, dtype and device matter.
        hx: accepted for symmetry with `forward`; the plan does not depend on it.
        device: explain for this device instead of x's.

    Raises:
        TypeError: for a module that is not rnnfast's.
    """
    if not isinstance(module, LSTM):
        raise TypeError(f"rnnfast.explain: module: expected an rnnfast.LSTM, got {type(module).__name__}")
    if device is not None:
        x = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        if torch.device(device).type != "cpu":
            return _torch_path(f"no rnnfast kernels for device {torch.device(device).type}")
    reason = why_no_kernel(x)
    if reason is not None:
        return _torch_path(reason)
    if x.dim() == 2:
        steps, batch = x.shape[0], 1
    else:
        steps, batch = (x.shape[1], x.shape[0]) if module.batch_first else (x.shape[0], x.shape[1])
    directions = 2 if module.bidirectional else 1
    training = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters()))
    plan = _C.explain_lstm(steps, batch, module.input_size, module.hidden_size, directions, x.element_size(), training)
    reasons = []
    if plan["thread_limit"]:
        reasons.append(f"one thread: {plan['thread_limit']}")
    elif int(plan["threads"]) < _C.threads():
        reasons.append("one thread: the call is too small to pay for waking a second one")
    if plan["isa"] != _C.isas_available()[0]:
        reasons.append(f"{plan['isa']} was asked for; {_C.isas_available()[0]} is available")
    decomposition = f"by {plan['decomposition']}, {plan['weights']}, {plan['chunk_steps']} steps projected together"
    if plan["groups"] == 2:
        decomposition += ", directions side by side"
    return Explanation(
        path="rnnfast",
        kernel="lstm " + ("forward and BPTT" if training else "forward"),
        isa=f"{plan['isa']} ({plan['lanes']} lanes)",
        decomposition=decomposition,
        threads=int(plan["threads"]),
        reasons=reasons,
        predicted_cost=f"{float(plan['flops']) / 1e6:.3g} MFLOP for the first layer",
    )


def _torch_path(reason: str) -> Explanation:
    return Explanation(
        "torch", "torch's own LSTM", "torch's choice", "torch's choice", torch.get_num_threads(), [reason]
    )
