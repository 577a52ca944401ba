# SPDX-License-Identifier: Apache-2.0
"""What would run for a module and an input, and why nothing faster."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnfast import checks
from rnnfast.base import RNNBase, own_forward
from rnnfast.cells import RNNCellBase, check_step
from rnnfast.control import in_words
from rnnfast.explain_cuda import CudaCall, cuda_explanation, cuda_known, why_no_cuda
from rnnfast.fallback import why_no_kernel
from rnnfast.inplace import forward_of_torch
from rnnfast.ops import _C
from rnnfast.specs import CELLS, ELMAN, MODES, CellSpec

__all__ = ["Explanation", "explain"]

_CELL_CLASSES = {nn.LSTMCell: "lstm", nn.GRUCell: "gru"}


@dataclass(frozen=True)
class Explanation:
    """The plan for one call. `str()` reads well."""

    path: str  # "rnnfast", "torch", or "unknown" where a subclass has a forward of its own
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
        device: explain for this device instead of x's: as torch writes it, or as a GPU's architecture ("sm_90"),
            which need not be there: the plan of the CUDA kernels on one card of it (docs/cuda.md), and a prediction.

    Raises:
        TypeError: module is none of these (also one of the ops, or of rnnfast.functional), or x is no input.
        ValueError: device is an architecture that is not known; the message names those that are.
        ValueError, RuntimeError: as `forward` for an input of the wrong rank, size or dtype.
    """
    frozen = getattr(module, "_rnnfast_module", None)  # a snapshot: the module that it was taken of
    source = module if frozen is None else frozen
    spec = _spec(source)
    if spec is None:
        hint = ""
        if callable(module) and not isinstance(module, nn.Module | type):
            hint = "; for an op or a function, which know no sizes, explain a module of the same sizes and options"
        raise TypeError(
            "rnnfast.explain: module: expected an rnnfast or torch.nn RNN, LSTM, GRU or one of their cells, "
            f"got {type(module).__name__}{hint}"
        )
    if not isinstance(x, Tensor | PackedSequence):
        raise TypeError(f"rnnfast.explain: x: expected a tensor or a PackedSequence, got {type(x).__name__}")
    label = spec.label if hasattr(source, "num_layers") else f"{spec.label}Cell"
    is_torchs = isinstance(source, nn.RNNBase | nn.RNNCellBase)
    reason = None if frozen is not None else forward_of_torch(source) if is_torchs else own_forward(source)
    if is_torchs and frozen is None and (reason is not None or not hasattr(type(source), "_rnnfast_original")):
        advice = "rnnfast.accelerate(model) runs it on rnnfast's kernels"
        return _torch_path(label, f"not accelerated: {advice if reason is None else reason}")
    if reason is not None:
        return _other_path("unknown", type(source).__name__, f"{reason}: what that calls is not known here")
    data = x.data if isinstance(x, PackedSequence) else x
    cuda: str | torch.device | None = cuda_known(device)  # where CUDA kernels would run
    if cuda is None:
        target = data.device if device is None else torch.device(device)
        if target.type == "cuda":
            missing = why_no_cuda(target)
            if missing:
                return _torch_path(label, *missing)
            cuda = target
        elif target.type not in ("cpu", "meta"):
            return _torch_path(label, f"no rnnfast kernels for device {target.type}")
    if cuda is not None or device is not None:
        data = torch.empty_like(data, device="meta")
    reason = why_no_kernel(data)
    if reason is not None:
        return _torch_path(label, reason)
    _check(module, source, spec, x, data)
    if 0 in (source.input_size, source.hidden_size):
        return _torch_path(label, "no rnnfast kernels for sizes of 0")
    if cuda is not None:
        if frozen is not None:
            return _torch_path(label, "a frozen snapshot is the CPU's")
        fields = cuda_explanation(_cuda_call(source, spec, x), cuda)
        fields["reasons"] += _control_in_words(source)
        return Explanation(**fields)
    dtype = data.dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")

    steps, batch = _steps_and_batch(source, x)
    training = frozen is None and _needs_grad(source, x.data if isinstance(x, PackedSequence) else x)
    hidden = source.hidden_size
    layers = int(getattr(source, "num_layers", 1))
    plan = _C.explain_layer(
        spec.name,
        steps,
        batch,
        source.input_size,
        hidden,
        getattr(source, "proj_size", 0) or hidden,
        2 if getattr(source, "bidirectional", False) else 1,
        layers,
        max(dtype.itemsize, 4),
        training,
        frozen is not None,
    )
    reasons = []
    if plan["thread_limit"]:
        reasons.append(f"one thread: {plan['thread_limit']}")
    elif int(plan["threads"]) < _C.threads():
        reasons.append(
            f"{plan['threads']} of {_C.threads()} threads: a further one would cost more, at waking or at each step's "
            "barrier, than it saves"
        )
    if plan["isa"] != _C.isas_available()[0]:
        reasons.append(f"{plan['isa']} was asked for; {_C.isas_available()[0]} is available")
    if dtype.itemsize < 4:
        reasons.append(f"{dtype} is converted: state and sums are float32")
    if frozen is None:
        reasons += _control_in_words(source)
    if frozen is not None:
        reasons.append("a frozen snapshot: packed weights, inference only")
    elif is_torchs:
        reasons.append(f"an accelerated torch.nn.{label}")
    decomposition = f"by {plan['decomposition']}, {plan['weights']}, {plan['chunk_steps']} steps projected together"
    if plan["groups"] == 2:
        decomposition += ", directions side by side"
    if training:
        decomposition += f"; BPTT by {plan['backward_decomposition']}, {plan['backward_chunk_steps']} steps at a time"
    elif layers > 1:
        steps_together = f"{plan['stack_steps']} steps at a time"
        if int(plan["stages"]) > 1:
            decomposition += f"; {layers} layers as a wavefront of {plan['stages']} stages, {steps_together}"
        elif int(plan["stack_steps"]) < steps:
            decomposition += f"; {steps_together} through all {layers} layers"
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
        return CELLS[names[0]] if names else ELMAN.get(getattr(module, "nonlinearity", ""))
    return None


def _check(module: Any, source: Any, spec: CellSpec, x: Tensor | PackedSequence, data: Tensor) -> None:
    """Raises as forward for an input of the wrong rank, size or dtype. data: x's, on the device to explain for."""
    if module is not source:
        dtype = module._parts[1]  # the snapshot's
    else:
        dtype = getattr(source, "weight_ih_l0" if hasattr(source, "num_layers") else "weight_ih").dtype
    if hasattr(source, "num_layers"):
        batch_sizes = x.batch_sizes if isinstance(x, PackedSequence) else None
        if batch_sizes is None:
            checks.check_rank(spec, data.dim())
            data = data if data.dim() == 3 else data[None]
        checks.check_input(spec, data, batch_sizes, dtype, source.input_size)
        return
    if data.dim() not in (1, 2):
        raise ValueError(f"{spec.label}Cell: Expected input to be 1D or 2D, got {data.dim()}D instead")
    check_step(data if data.dim() == 2 else data[None], None, None, source.input_size, source.hidden_size, data.device)
    if data.dtype != dtype and not torch.is_autocast_enabled("cpu"):
        raise RuntimeError(f"rnnfast.explain: x: expected dtype {dtype} as the weights, got {data.dtype}")


def _steps_and_batch(module: Any, x: Tensor | PackedSequence) -> tuple[int, int]:
    """T and B of an input as `forward` takes it."""
    if isinstance(x, PackedSequence):
        return len(x.batch_sizes), int(x.batch_sizes[0])
    if not hasattr(module, "num_layers"):
        return 1, x.shape[0] if x.dim() == 2 else 1
    if x.dim() == 2:
        return x.shape[0], 1
    return (x.shape[1], x.shape[0]) if module.batch_first else (x.shape[0], x.shape[1])


def _needs_grad(source: Any, data: Tensor) -> bool:
    """Whether a call would keep what a backward pass needs."""
    weights = list(source.parameters()) if isinstance(source, nn.Module) else []
    return torch.is_grad_enabled() and (data.requires_grad or any(weight.requires_grad for weight in weights))


def _control_in_words(source: Any) -> list[str]:
    options = source._control() if isinstance(source, RNNBase | RNNCellBase) else None
    return [] if options is None else in_words(options)


def _cuda_call(source: Any, spec: CellSpec, x: Tensor | PackedSequence) -> CudaCall:
    data = x.data if isinstance(x, PackedSequence) else x
    steps, batch = _steps_and_batch(source, x)
    limit = getattr(source, "bptt_clip", None)
    return CudaCall(
        spec,
        steps,
        batch,
        source.input_size,
        source.hidden_size,
        getattr(source, "proj_size", 0) or source.hidden_size,
        2 if getattr(source, "bidirectional", False) else 1,
        int(getattr(source, "num_layers", 1)),
        data.dtype,
        _needs_grad(source, data),
        limit is not None and limit[0] == "norm",
    )


def _torch_path(label: str, *reasons: str) -> Explanation:
    return _other_path("torch", f"torch's own {label}", *reasons)


def _other_path(path: str, kernel: str, *reasons: str) -> Explanation:
    unknown = "torch's choice" if path == "torch" else "unknown"
    return Explanation(path, kernel, unknown, unknown, torch.get_num_threads(), list(reasons))
