# SPDX-License-Identifier: Apache-2.0
"""What the backward kernels saw of the error signal: recorded, in words, as pictures, for TensorBoard."""

import math
import threading
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rnnfast.base import RNNBase
from rnnfast.ops import _C
from rnnfast.specs import MODES

__all__ = ["GradientFlow", "gradient_flow"]

GATES = {
    "lstm": ("input gate", "forget gate", "cell candidate", "output gate"),
    "gru": ("reset gate", "update gate", "candidate"),
}
# Columns of what is recorded (csrc/bindings/recorder.h); from _GATES on, one for each gate.
_DH, _DH_MAX, _DC, _DC_MAX, _CLIPPED, _INJECTED, _GATES = range(7)

# From one end of the sequence to the other, as a factor: what counts as gone, and as grown out of hand.
VANISHED, EXPLODED = 1e-3, 1e3


def gradient_flow(module: RNNBase) -> "GradientFlow":
    """Records the error signal of each step, layer and direction while backward passes of a module run::

        with rnnfast.diagnostics.gradient_flow(model.rnn) as flow:
            loss = criterion(model(x), target)
            loss.backward()
        print(flow.summary())

    The backward kernels themselves record, without hooks; outside the block nothing is recorded and nothing costs.

    Args:
        module: an rnnfast.RNN, LSTM or GRU (of a model, its recurrent module). Forward and backward pass must both run
            inside the block.

    Returns:
        A context manager that gives itself: :class:`GradientFlow`.

    Raises:
        TypeError: module is something else.
    """
    if not isinstance(module, RNNBase):
        hint = ""
        if isinstance(module, torch.nn.Module):
            found = [name for name, child in module.named_modules() if isinstance(child, RNNBase) and name]
            hint = f"; it contains {', '.join(found)}" if found else ""
            if not found and any(isinstance(child, torch.nn.RNNBase) for child in module.modules()):
                hint = "; torch.nn's layers do not record: build it of rnnfast's, or accelerate it with replace=True"
        raise TypeError(
            "rnnfast.diagnostics.gradient_flow: module: expected an rnnfast.RNN, LSTM or GRU, "
            f"got {type(module).__name__}{hint}"
        )
    return GradientFlow(module)


class GradientFlow:
    """What :func:`gradient_flow` gives. All arrays are float64 tensors [layers, directions, T], of the newest backward
    pass alone, the one that began last; steps are time steps (a reverse direction visits them from the last to the
    first). NaN where that pass did not reach a layer. Of several calls of the module in one pass: of the first.

    Attributes:
        reached: for each layer whether that pass reached it.
        dh, dh_max: mean and maximum over the batch of a sample's norm of the total dL/dh_t, before any limit. Packed:
            over the samples that have the step.
        dc, dc_max: likewise of dL/dc_t; zeros for cells without c.
        injected: the fraction of the samples that have the step into which gradient comes from outside the layer's
            recurrence: from the loss, the layer above or the final state. A loss on the last output alone: 1 there, 0
            at all other steps.
        clipped: the fraction that bptt_clip limited: of elements ("value") or of samples ("norm"), dL/dh and dL/dc
            together.
        saturated: the fraction of gates that hardly pass a gradient: sigmoids below 0.1 or above 0.9, tanh beyond 0.9
            in absolute value (relu: units at zero); the mean over the gates in `saturated_gates`.
        saturated_gates: the same for each gate, by its name.
    """

    def __init__(self, module: RNNBase) -> None:
        self._module = module
        spec = MODES[module.mode]
        self._gates, self._has_cell = GATES.get(spec.name, ("activation",)), spec.has_cell
        self._begun = False
        self._recorder = 0  # while recording
        self._newest: dict[int, Tensor] = {}  # layer -> [D, T, _GATES + gates]

    def __enter__(self) -> "GradientFlow":
        """Recording begins."""
        if self._begun:
            raise RuntimeError("rnnfast.diagnostics.gradient_flow: this recording has begun before: make another")
        self._begun = True
        self._recorder = _begin(self._module)
        return self

    def __exit__(self, *exc: object) -> None:
        """Recording ends; what was recorded stays."""
        self._look()
        recorder, self._recorder = self._recorder, 0
        _end(self._module, recorder)

    def _look(self) -> dict[int, Tensor]:
        if self._recorder:
            self._newest = dict(_C.recorded(self._recorder))
        return self._newest

    def _columns(self) -> tuple[Tensor, list[bool]]:
        """What is recorded [layers, directions, T, columns], and which layers the pass reached."""
        newest = self._look()
        if not newest:
            raise RuntimeError(
                "rnnfast.diagnostics.gradient_flow: nothing is recorded yet: run the module and a backward pass "
                "inside the `with` block"
            )
        absent = torch.full_like(next(iter(newest.values())), math.nan)
        layers = range(self._module.num_layers)
        return torch.stack([newest.get(layer, absent) for layer in layers]), [layer in newest for layer in layers]

    def _column(self, index: int) -> Tensor:
        return self._columns()[0][..., index]

    @property
    def reached(self) -> list[bool]:
        """For each layer whether the newest backward pass reached it."""
        return self._columns()[1]

    @property
    def dh(self) -> Tensor:
        """Mean over the batch of the norm of dL/dh_t [layers, directions, T]."""
        return self._column(_DH)

    @property
    def dh_max(self) -> Tensor:
        """Its maximum over the batch."""
        return self._column(_DH_MAX)

    @property
    def dc(self) -> Tensor:
        """Mean over the batch of the norm of dL/dc_t [layers, directions, T]."""
        return self._column(_DC)

    @property
    def dc_max(self) -> Tensor:
        """Its maximum over the batch."""
        return self._column(_DC_MAX)

    @property
    def clipped(self) -> Tensor:
        """The fraction limited [layers, directions, T]."""
        return self._column(_CLIPPED)

    @property
    def injected(self) -> Tensor:
        """The fraction of samples into which gradient comes from outside [layers, directions, T]."""
        return self._column(_INJECTED)

    @property
    def saturated(self) -> Tensor:
        """The fraction of gates saturated [layers, directions, T]."""
        return self._columns()[0][..., _GATES:].mean(-1)

    @property
    def saturated_gates(self) -> dict[str, Tensor]:
        """The fraction saturated of each gate, by its name."""
        return {name: self._column(_GATES + i) for i, name in enumerate(self._gates)}

    def summary(self) -> str:
        """A line for each layer and direction: what is left of the signal at the far end, what was limited.

        Of cells with c, both dL/dh and dL/dc: either can carry the signal. Where gradient joins at later steps (a loss
        on every output, a layer above), the line says so: then the far end has the sum of all that has joined. What a
        network does to one step's signal shows where the loss is of the last output alone.
        """
        columns, reached = self._columns()
        lines = []
        for layer in range(columns.shape[0]):
            for direction in range(columns.shape[1]):
                name = f"layer {layer}" + (", reverse" if direction else "")
                if not reached[layer]:
                    lines.append(f"{name}: no backward pass")
                    continue
                # In the order in which the signal travels: from the step processed last to the first.
                steps = columns[layer, direction] if direction else columns[layer, direction].flip(0)
                line = f"{name}: {'dL/dh ' if self._has_cell else ''}{_course(steps[:, _DH], steps[:, _INJECTED])}"
                if self._has_cell:
                    line += f"; dL/dc {_course(steps[:, _DC], steps[:, _INJECTED])}"
                limited, gates = float(steps[:, _CLIPPED].mean()), float(steps[:, _GATES:].mean())
                if limited > 0:
                    line += f"; bptt_clip limited {limited:.0%} of it"
                if math.isfinite(gates):
                    line += f"; {gates:.0%} of the gates are saturated"
                lines.append(line)
        return "\n".join(lines)

    def plot(self, path: Any = None) -> Any:
        """Heat maps over time and layers: the norms of dL/dh and dL/dc (log scale), saturation, what was limited.

        Args:
            path: where to save the picture, or None.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed (extra `demo`).
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                "rnnfast.diagnostics: plot() needs matplotlib: pip install 'rnnfast[demo]', or matplotlib itself"
            ) from error
        columns, reached = self._columns()
        clipped = columns[..., _CLIPPED]
        norms = {"dL/dh": _DH, "dL/dc": _DC} if self._has_cell else {"dL/dh": _DH}
        maps = [
            (f"log10 of the mean norm of {name}", columns[..., column].clamp_min(1e-45).log10())
            for name, column in norms.items()
        ]
        maps.append(("saturated", columns[..., _GATES:].mean(-1)))
        if bool((clipped > 0).any()):
            maps.append(("limited by bptt_clip", clipped))
        layers, directions, steps = clipped.shape
        names = [
            f"layer {i}" + (", reverse" if d else "") + ("" if reached[i] else ": no backward pass")
            for i in range(layers)
            for d in range(directions)
        ]
        figure = Figure(figsize=(9, 1.2 + len(maps) * (0.9 + 0.35 * len(names))), layout="constrained")
        for axis, (title, values) in zip(figure.subplots(len(maps), 1, squeeze=False)[:, 0], maps, strict=True):
            limits = {} if title.startswith("log10") else {"vmin": 0.0, "vmax": 1.0}
            image = axis.imshow(
                values.reshape(-1, steps).numpy(), aspect="auto", interpolation="nearest", origin="lower", **limits
            )
            axis.set_yticks(range(len(names)), names)
            axis.set_xlabel("time step")
            axis.set_title(title)
            figure.colorbar(image, ax=axis)
        if path is not None:
            figure.savefig(path)
        return figure

    def log(self, writer: Any, step: int) -> None:
        """Scalars for TensorBoard: for each layer and direction the norms at both ends of the sequence, and fractions.

        Nothing of layers that the newest backward pass did not reach.

        writer: a torch.utils.tensorboard.SummaryWriter, or anything with its add_scalar(tag, value, step).
        """
        columns, reached = self._columns()
        for layer in (i for i, yes in enumerate(reached) if yes):
            for direction in range(columns.shape[1]):
                tag = f"gradient_flow/layer_{layer}" + ("_reverse" if direction else "")
                last, first = (0, -1) if direction else (-1, 0)
                steps = columns[layer, direction]
                scalars = {
                    "dh_last_step": steps[last, _DH],
                    "dh_first_step": steps[first, _DH],
                    "clipped": steps[:, _CLIPPED].mean(),
                    "saturated": steps[:, _GATES:].mean(),
                }
                if self._has_cell:
                    scalars |= {"dc_last_step": steps[last, _DC], "dc_first_step": steps[first, _DC]}
                for name, value in scalars.items():
                    writer.add_scalar(f"{tag}/{name}", float(value), step)


@dataclass
class _Recorders:
    """A module's recorders: those at work, the innermost last, and those to take again.

    A compiled graph holds the recorder's number: with the same number at each use it is compiled once for all.
    """

    open: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)


_recorders: WeakKeyDictionary[RNNBase, _Recorders] = WeakKeyDictionary()
_lock = threading.Lock()


def _begin(module: RNNBase) -> int:
    """Another recorder of the module, which it uses from now on."""
    with _lock:
        own = _recorders.setdefault(module, _Recorders())
        module._recorder = _C.open_recorder(own.closed.pop() if own.closed else 0)
        own.open.append(module._recorder)
        return module._recorder


def _end(module: RNNBase, recorder: int) -> None:
    """The module goes on with the innermost that is left. (Blocks in several threads may end in any order.)"""
    with _lock:
        own = _recorders[module]
        own.open.remove(recorder)
        own.closed.append(recorder)
        if own.open:
            module._recorder = own.open[-1]
        else:
            module.__dict__.pop("_recorder", None)
        _C.close_recorder(recorder)


def _course(signal: Tensor, injected: Tensor) -> str:
    """What becomes of a signal [T] on its way, into which at some steps [T] more is injected."""
    values = [float(v) for v in signal]
    bad = next((i for i, v in enumerate(values) if not math.isfinite(v)), None)
    if bad is not None:
        return f"not finite after {bad} steps"
    start = next((i for i, v in enumerate(values) if v > 0), None)
    if start is None:
        return "no signal arrives"
    steps = len(values) - 1 - start
    ratio = values[-1] / values[start]
    if steps == 0:
        return f"the signal is {values[start]:.1e} at its one step"
    if ratio == 0:
        steps = max(i for i, v in enumerate(values) if v > 0) + 1 - start  # until it is gone for good
    joins = int((injected[start + 1 : start + 1 + steps] > 0).sum())
    joined = f", at {joins} of which more joins it" if joins else ""
    if ratio == 0:
        return f"vanishes: nothing of the signal is left after {steps} steps{joined}"
    if ratio < VANISHED:
        return f"vanishes: {ratio:.0e} of the signal is left after {steps} steps{joined}"
    if ratio > EXPLODED:
        return f"explodes: the signal is {ratio:.0e} times as large after {steps} steps{joined}"
    if joins:
        return f"the signal is {ratio:.2g} times as large after {steps} steps{joined}"
    if ratio > 1:
        return f"is kept: the signal is {ratio:.2g} times as large after {steps} steps"
    return f"is kept: {ratio:.2g} of the signal is left after {steps} steps"
