# SPDX-License-Identifier: Apache-2.0
"""What the plan for GPUs says of a module: of a device that is here, or of an architecture by name, without one."""

from dataclasses import dataclass
from typing import Any

import torch

from rnnfast.architectures import NOT_BUILT, capability_of, why_no_code
from rnnfast.ops import _C
from rnnfast.specs import CellSpec

__all__ = ["CudaCall", "cuda_explanation", "cuda_known", "properties", "tf32_allowed", "why_no_cuda"]

_DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}


@dataclass(frozen=True)
class CudaCall:
    """What a call's plan depends on, besides the device. clip_norm: BPTT limits the norm of the error signal."""

    spec: CellSpec
    T: int
    B: int
    I: int
    H: int
    P: int
    directions: int
    layers: int
    dtype: torch.dtype
    training: bool
    clip_norm: bool


def cuda_known(device: Any) -> str | None:
    """The architecture that `device` names ("sm_90"), None where it names none.

    Raises:
        ValueError: it looks like one and is unknown.
    """
    if not isinstance(device, str) or not device.startswith("sm_"):
        return None
    known = _C.cuda_devices()
    if device not in known and not (device.endswith("a") and device[:-1] in known):
        raise ValueError(f"rnnfast.explain: device: expected one of {', '.join(known)}, got '{device}'")
    return device


def why_no_cuda(device: torch.device) -> list[str]:
    """Why nothing of ours would run on this CUDA device; empty where something would."""
    built = _C.cuda_architectures()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) < count:
        reason = why_no_code(built, torch.cuda.get_device_capability(device))
        return [] if reason is None else [reason]
    reasons = [] if built else [NOT_BUILT]
    if count == 0:
        reasons.append(f"no CUDA device on this machine; to ask about one, name it: {', '.join(_C.cuda_devices())}")
    else:
        reasons.append(f"no CUDA device {device.index} on this machine, which has {count}")
    return reasons


def cuda_explanation(call: CudaCall, device: str | torch.device) -> dict[str, Any]:
    """The fields of an Explanation. device: an architecture's name, or a CUDA device of this machine."""
    dtype = call.dtype
    if torch.is_autocast_enabled("cuda") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cuda")
    forward = _plan(call, device, dtype, backward=False)
    plans = [forward, _plan(call, device, dtype, backward=True)] if call.training else [forward]
    where = f"{device} ({forward['card']})" if isinstance(device, str) else torch.cuda.get_device_name(device)
    reasons = list(dict.fromkeys(_told(plans)))
    missing = why_no_code(_C.cuda_architectures(), capability_of(device)) if isinstance(device, str) else None
    if missing is not None:
        reasons.append(f"{missing}; on such a GPU torch's own runs")
    names = [f"{plan['path']} path, {plan['product']}" for plan in plans]
    kernel = names[0] if len(set(names)) == 1 else f"forward {names[0]}; BPTT {names[1]}"
    return {
        "path": "rnnfast",
        "kernel": f"{call.spec.name} {'forward and BPTT' if call.training else 'forward'}: {kernel}",
        "isa": where,
        "decomposition": _decomposition(plans, call.directions),
        "threads": forward["threads"],
        "reasons": reasons,
        "predicted_cost": _cost(call, plans),
    }


def tf32_allowed() -> bool:
    """Whether float32 products of recurrent layers may be rounded to tf32, as torch's own switch for cuDNN says."""
    rnn: Any = torch.backends.cudnn.rnn
    return bool(rnn.fp32_precision == "tf32")


def _plan(call: CudaCall, device: str | torch.device, dtype: torch.dtype, *, backward: bool) -> dict[str, Any]:
    return _C.explain_cuda(
        device if isinstance(device, str) else properties(device),
        call.spec.name,
        call.T,
        call.B,
        call.I,
        call.H,
        call.P,
        call.directions,
        _DTYPES[dtype],
        backward,
        call.training,
        tf32_allowed(),
        call.clip_norm,
    )


def properties(device: torch.device) -> dict[str, int]:
    """A device of this machine, as the plan knows it."""
    found: Any = torch.cuda.get_device_properties(device)
    return {
        "architecture": 10 * found.major + found.minor,
        "processors": found.multi_processor_count,
        "shared_block": found.shared_memory_per_block_optin,
        "shared_processor": found.shared_memory_per_multiprocessor,
        "registers": found.regs_per_multiprocessor,
        "threads": found.max_threads_per_multi_processor,
        "l2_bytes": found.L2_cache_size,
    }


def _told(plans: list[dict[str, Any]]) -> list[str]:
    """The plans' reasons; which pass they are about, where they differ."""
    if len(plans) == 1 or plans[0]["reasons"] == plans[1]["reasons"]:
        return plans[0]["reasons"]
    both = [reason for reason in plans[0]["reasons"] if reason in plans[1]["reasons"]]
    own = [
        f"{name}: {reason}"
        for name, plan in zip(("forward", "BPTT"), plans, strict=True)
        for reason in plan["reasons"]
        if reason not in both
    ]
    return both + own


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _decomposition(plans: list[dict[str, Any]], directions: int) -> str:
    parts = []
    for name, plan in zip(("forward", "BPTT"), plans, strict=False):
        if plan["path"] == "step":
            text = "a GEMM and a pointwise kernel a step"
        else:
            text = (
                f"{plan['blocks']} blocks of {_count(plan['units'], 'hidden unit')}, "
                f"{_count(plan['columns'], 'sample')} a pass, "
                f"{plan['weight_registers']} registers of weights a thread, "
                f"{plan['shared_bytes'] / 1024:.1f} KB of shared memory a block"
            )
        if directions == 2:
            text += ", both directions in one launch" if plan["directions"] == 2 else ", one direction after the other"
        parts.append(text if len(plans) == 1 else f"{name}: {text}")
    if len(plans) == 2 and parts[0].partition(": ")[2] == parts[1].partition(": ")[2]:
        return parts[0].partition(": ")[2]
    return "; ".join(parts)


def _cost(call: CudaCall, plans: list[dict[str, Any]]) -> str:
    """Microseconds; of the recurrence alone, without the products over all rows before and after it."""
    parts = []
    for name, plan in zip(("forward", "BPTT"), plans, strict=False):
        shares = ", ".join(f"{part} {value:.2g}" for part, value in plan["cost"].items() if value > 0)
        text = f"{plan['microseconds']:.3g} us a step of a layer ({shares}"
        if plan["path"] == "persistent":
            text += f"; step path {plan['other_microseconds']:.3g}"
        parts.append(f"{name} {text})")
    total = call.layers * sum(plan["fixed_microseconds"] + call.T * plan["microseconds"] for plan in plans)
    return f"a prediction, not a measurement, of the recurrence alone: {'; '.join(parts)}; {total:.0f} us a call"
