# SPDX-License-Identifier: Apache-2.0
"""Every contender with the same weights on the same input; that they agree is shown before any clock runs."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import rnnfast
from rnnfast.specs import CELLS

from . import runtimes
from .cases import Case

RIVALS = ("torch", "onnxruntime", "openvino")  # what --rivals chooses from
TOLERANCE = 1e-4  # of the largest value
_MODULES: dict[str, ModuleType] = {"rnnfast": rnnfast, "torch": nn}

# Contenders by mode: rnnfast's own first. torch_cell, rnnfast_cell: LSTMCell and the like, where there is one step.
# recomputation: the module with checkpoint_every="auto".
_OURS = {
    "inference": ("rnnfast", "frozen"),
    "training": ("rnnfast",),
    "streaming": ("stream", "rnnfast"),
    "overhead": ("rnnfast", "rnnfast_cell", "stream"),
    "memory": ("rnnfast",),
    "recomputation": ("recomputation", "rnnfast"),
}
_THEIRS = {
    "inference": RIVALS,
    "training": ("torch",),
    "streaming": ("torch", "torch_cell", "onnxruntime", "openvino"),
    "overhead": ("torch", "torch_cell"),
    "memory": ("torch",),
    "recomputation": ("torch",),
}


@dataclass(frozen=True)
class Contender:
    """What the clock sees, and what it has computed: outputs, final states, gradients, in torch.nn's form."""

    run: Callable[[], object]
    results: Callable[[], list[Tensor]]


class Disagreement(RuntimeError):
    """rnnfast computes something else than torch.nn: no time of it is worth anything."""


def ours(mode: str) -> str:
    """The contender of ours that is judged in this mode."""
    return stepper() if mode == "streaming" else _OURS[mode][0]


def stepper() -> str:
    """What runs one step with its state: rnnfast.Stream, or a frozen module where this version has none."""
    return "stream" if hasattr(rnnfast, "Stream") else "frozen"


def contenders(mode: str, rivals: Collection[str] = RIVALS) -> list[str]:
    """Their names, ours first. rivals: those asked for; torch_cell comes with torch."""
    names = [stepper() if name == "stream" else name for name in _OURS[mode]]
    return names + [name for name in _THEIRS[mode] if name.removesuffix("_cell") in rivals]


def module(case: Case, rival: str) -> nn.Module:
    """The module of one rival; the same seed gives both the same parameters."""
    spec = CELLS[case.cell]
    torch.manual_seed(0)
    recomputes = rival == "recomputation"
    cls = getattr(_MODULES["rnnfast" if recomputes else rival], spec.label)
    options: dict[str, str] = {} if spec.nonlinearity is None else {"nonlinearity": spec.nonlinearity}
    if recomputes:
        options["checkpoint_every"] = "auto"
    made: nn.Module = cls(case.I, case.H, case.layers, bidirectional=case.directions == 2, **options)
    return made


def data(case: Case) -> tuple[Tensor, Tensor]:
    """x [T, B, I] and the gradient of the output [T, B, D*H]."""
    torch.manual_seed(1)
    return torch.randn(case.T, case.B, case.I), torch.randn(case.T, case.B, case.directions * case.H)


def state(case: Case) -> tuple[Tensor, ...]:
    """h_0, and c_0 of an LSTM, where the case has an initial state."""
    if not case.has_state:
        return ()
    torch.manual_seed(2)
    count = 2 if CELLS[case.cell].has_cell else 1
    return tuple(torch.rand(case.layers * case.directions, case.B, case.H) for _ in range(count))


def call(case: Case, module: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], list[Tensor]]:
    """A module's call; it returns all that was computed: outputs, final states, gradients."""
    if case.trains:
        x = x.clone().requires_grad_()
        inputs = [x, *module.parameters()]

        def train() -> list[Tensor]:
            y, states = module(x)
            return [y, *_flat(states), *torch.autograd.grad(y, inputs, grad)]

        return train
    return _inference(case, module, x)


def verified(
    case: Case, threads: int = 2, rivals: Collection[str] = RIVALS
) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders that agree with torch.nn in everything they compute, and why the others are left out.

    Raises Disagreement where one of rnnfast's own does not agree.
    """
    x, grad = data(case)
    reference = module(case, "torch")
    expected = call(case, reference, x, grad)()
    found: dict[str, Contender] = {}
    left_out: dict[str, str] = {}
    for name in contenders(case.mode, rivals):
        own = name in _OURS[case.mode] or name == stepper()
        try:
            contender = _make(name, case, reference, x, grad, threads)
            error = _difference(contender.results(), expected)
        except Exception as problem:
            if own:
                raise
            left_out[name] = _reason(problem)
            continue
        if error is None:
            found[name] = contender
        elif own:
            raise Disagreement(f"{case}: {name} and torch.nn disagree {error}")
        else:
            left_out[name] = f"disagrees with torch.nn {error}"
    return found, left_out


def _make(name: str, case: Case, reference: nn.Module, x: Tensor, grad: Tensor, threads: int) -> Contender:
    if name in ("onnxruntime", "openvino"):
        return Contender(*getattr(runtimes, name)(case, reference, x, state(case), threads))
    if name.endswith("_cell"):
        return _one_step(case, _MODULES[name.removesuffix("_cell")], reference, x)
    if name == "torch":
        run = call(case, reference, x, grad)
        return Contender(run, run)
    made = module(case, name if name == "recomputation" else "rnnfast")
    if name == "stream":
        return _stream(case, made, x)
    run = _inference(case, rnnfast.freeze(made), x) if name == "frozen" else call(case, made, x, grad)
    return Contender(run, run)


def _inference(case: Case, module: Callable[..., Any], x: Tensor) -> Callable[[], list[Tensor]]:
    given = state(case)
    hx = given[0] if len(given) == 1 else given or None

    def infer() -> list[Tensor]:
        with torch.no_grad():
            y, states = module(x, hx)
        return [y, *_flat(states)]

    return infer


def _one_step(case: Case, package: ModuleType, reference: nn.Module, x: Tensor) -> Contender:
    """LSTMCell and the like: x [B, I], states [B, H]."""
    spec = CELLS[case.cell]
    options = {} if spec.nonlinearity is None else {"nonlinearity": spec.nonlinearity}
    cell = getattr(package, f"{spec.label}Cell")(case.I, case.H, **options)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in reference.state_dict().items()})
    row = x[0]
    given = [tensor[0] for tensor in state(case)]
    hx = given[0] if len(given) == 1 else tuple(given)

    def run() -> Any:
        with torch.no_grad():
            return cell(row, hx)

    def results() -> list[Tensor]:
        states = [tensor[None] for tensor in _flat(run())]
        return [states[0], *states]

    return Contender(run, results)


def _stream(case: Case, module: nn.Module, x: Tensor) -> Contender:
    """rnnfast.Stream, which carries its state on; into a given output, so that nothing is allocated."""
    stream = rnnfast.Stream(module, batch_size=case.B)  # type: ignore[attr-defined,unused-ignore]
    row, out = x[0], torch.empty(case.B, case.H)
    given = state(case)

    def run() -> object:
        return stream(row, out=out)

    def results() -> list[Tensor]:
        stream.state = given[0] if len(given) == 1 else given
        run()
        return [out[None].clone(), *(tensor.clone() for tensor in _flat(stream.state))]

    return Contender(run, results)


def _difference(results: list[Tensor], expected: list[Tensor]) -> str | None:
    """How far something is from what torch.nn computes, in words, or None."""
    for number, (mine, theirs) in enumerate(zip(results, expected, strict=True)):
        if mine.shape != theirs.shape:
            return f"on the shape of result {number}: {tuple(mine.shape)} and {tuple(theirs.shape)}"
        error, scale = (mine - theirs).abs().max().item(), theirs.abs().max().item()
        if not error <= TOLERANCE * scale:  # also where either is NaN
            return f"by {error:.2e} of {scale:.2e} in result {number}"
    return None


def _reason(problem: Exception) -> str:
    if isinstance(problem, ImportError):
        return f"not installed ({problem}): pip install 'rnnfast[bench]'"
    lines = str(problem).strip().splitlines() or ["no message"]
    return f"failed: {type(problem).__name__}: {lines[0][:200]}"


def _flat(states: Any) -> tuple[Tensor, ...]:
    return (states,) if isinstance(states, Tensor) else tuple(states)
