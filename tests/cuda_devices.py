# SPDX-License-Identifier: Apache-2.0
"""Where the CUDA kernels' tests run: on the emulator always, on a GPU where there is one and the kernels are built."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnfast.explain_cuda import properties
from rnnfast.ops import _C, LAYERS
from tests.cases import HALF, Case
from tests.problem import Problem, Results
from tests.reference import Control

FREE = Control()
HERE = ("cuda",) if _C.cuda_architectures() and torch.cuda.is_available() else ()
DEVICES = ("emulated", *HERE)
MODULE_DEVICES = ("cpu", *HERE)  # of tests through torch, which the emulator is no device of


def emulator() -> Any:
    """The module, which is not built where a GPU is measured: then its tests alone fail."""
    from rnnfast import _emulator

    return _emulator


TF32_EPS = 2.0**-10


@dataclass(frozen=True)
class Engine:
    """A way to run a layer."""

    path: str  # step or persistent
    architecture: str = "sm_80"  # that the emulator pretends to be
    tf32: bool = False
    seed: int = 0  # of the order in which the emulator's threads run

    @staticmethod
    def processors(case: Case) -> int:
        """Of the pretended device: several blocks, each with several units, and few threads to run."""
        return max(4, case.H // 16)

    def __str__(self) -> str:
        return f"{self.path}-{self.architecture}{'-tf32' if self.tf32 else ''}"


def engines(case: Case) -> list[Engine]:
    """Those that can run a case: the persistent path knows no projection, tensor cores multiply no doubles, those of
    sm_75 half precision only."""
    found = [Engine("step")]
    if case.proj == 0:
        found.append(Engine("persistent"))
        if case.dtype == "float32" and case.cell != "rnn_relu":  # rounding to tf32 crosses relu's kink
            found.append(Engine("persistent", tf32=True))
        if case.dtype == "float16":
            found.append(Engine("persistent", "sm_75"))
    return found


def to_array(t: Tensor | None) -> np.ndarray | None:
    """With contiguous rows; 16-bit values as uint16, as _emulator has them."""
    if t is None:
        return None
    t = t.detach()
    t = t if t.dim() == 3 and t.stride(-1) == 1 else t.contiguous()
    return t.view(torch.int16).numpy().view(np.uint16) if t.element_size() == 2 else t.numpy()


def to_tensor(a: np.ndarray, dtype: torch.dtype) -> Tensor:
    t = torch.from_numpy(a.view(np.int16) if a.dtype == np.uint16 else a)
    return t.view(dtype) if t.element_size() == 2 else t


def control_options(control: Control) -> dict[str, float]:
    """As _emulator.layer_backward has them."""
    options: dict[str, float] = {"steps": control.steps or 0}
    return options | ({f"clip_{control.clip}": control.limit} if control.clip else {})


class EmulatedLayer(torch.autograd.Function):
    """A layer on the emulator, with the autograd of the op: what Problem.run differentiates. records: where a record
    [D, N, 3] goes, or None, for none."""

    @staticmethod
    def forward(ctx, p: Problem, engine: Engine, plans: list[dict], control: Control, records, x, h0, c0, *weights):
        case = p.case
        emulated = emulator()
        emulated.set_device(engine.architecture, engine.processors(case))
        emulated.set_seed(engine.seed)
        options = {"dtype": case.dtype, "path": engine.path, "tf32": engine.tf32}
        inputs = (case.cell, to_array(x), to_array(h0), to_array(c0), [to_array(w) for w in weights])
        sizes = p.batch_sizes if case.packed else None
        flags = (sizes, case.bias, case.bidirectional)
        out = emulated.layer_forward(*inputs, *flags, True, **options)
        inference = emulated.layer_forward(*inputs, *flags, False, **options)
        for name in ("y", "h_n", "c_n"):
            assert np.array_equal(out[name], inference[name]), f"{p.where}: {engine}: {name} of inference differs"
        plans.append(out["plan"])
        ctx.call = (p, plans, inputs, flags, out, options)
        ctx.control, ctx.records = control, records
        results = [to_tensor(out[name], x.dtype) for name in ("y", "h_n", "c_n")]
        if not case.has_cell:
            results[2] = x.new_empty(0)  # as the op has it
        return tuple(results)

    @staticmethod
    def backward(ctx, *grads):
        p, plans, inputs, flags, out, options = ctx.call
        mask = list(ctx.needs_input_grad[5:])
        options = options | control_options(ctx.control) | {"record": ctx.records is not None}
        grads = [to_array(g) if p.weighed(name) else None for name, g in zip(("y", "h_n", "c_n"), grads, strict=True)]
        back = emulator().layer_backward(*grads, *inputs, *flags, out["y"], out["saved"], out["cells"], mask, **options)
        plans.append(back["plan"])
        if ctx.records is not None:
            ctx.records.append(torch.from_numpy(back["record"]))
        found = [back["grad_x"], back["grad_h0"], back["grad_c0"], *back["grad_weights"]]
        dtype = p.x.dtype
        return (None, None, None, None, None, *(None if g is None else to_tensor(g, dtype) for g in found))


def run_on(
    device: str, p: Problem, engine: Engine, control: Control = FREE, records: list[Tensor] | None = None
) -> tuple[Results, list[dict]]:
    """Outputs and gradients of a problem, and the plans (on the emulator). records: receives what the backward pass
    recorded: on the emulator of each row [D, N, 3], on a GPU of each step [D, T, columns] (_C.recorded)."""
    plans: list[dict] = []
    if device == "emulated":

        def layer(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Sequence[Tensor]:
            return EmulatedLayer.apply(p, engine, plans, control, records, x, h0, c0, *weights)

        return p.run(layer), plans

    recorder = 0 if records is None else _C.open_recorder()
    codes = [(None, "value", "norm").index(control.clip), control.steps or 0, 0, 0, 0, recorder]

    def on_gpu(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor]) -> Sequence[Tensor]:
        case = p.case
        states = [None if s is None else s.cuda() for s in (h0, c0)]
        out = LAYERS[case.cell](
            x.cuda(), *states, [w.cuda() for w in weights], p.sizes, case.bias, case.bidirectional, False,
            control.limit, codes,
        )  # fmt: skip
        return [t.cpu() for t in out[:3]]

    case, before = p.case, torch.backends.cudnn.rnn.fp32_precision
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNNFAST_CUDA_PATH", engine.path)
        # As on the emulator: else a device's many blocks would have a unit or two each, and no pass a second one.
        patch.setenv("RNNFAST_CUDA_PROCESSORS", str(engine.processors(p.case)))
        torch.backends.cudnn.rnn.fp32_precision = "tf32" if engine.tf32 else "ieee"
        try:
            shape = (case.cell, case.T, max(case.B, 1), case.I, case.H, case.P, case.D, case.dtype)
            card = properties(torch.device("cuda"))
            plans += [
                _C.explain_cuda(card, *shape, back, True, engine.tf32, control.clip == "norm") for back in (False, True)
            ]
            return p.run(on_gpu), plans
        finally:
            if records is not None:
                records.extend(flow for _, flow in _C.recorded(recorder))
                _C.close_recorder(recorder)
            torch.backends.cudnn.rnn.fp32_precision = before


def eps_of(p: Problem, engine: Engine) -> float:
    """Of the numbers that are multiplied."""
    return TF32_EPS if engine.tf32 and p.case.dtype not in HALF else torch.finfo(p.x.dtype).eps
