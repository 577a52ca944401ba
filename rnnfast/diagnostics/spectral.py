# SPDX-License-Identifier: Apache-2.0
"""The spectrum of the recurrent matrices, and what it implies for the error signal."""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rnnfast.snapshot import current_weights
from rnnfast.specs import CellSpec
from rnnfast.weights import ScanNames, class_spec, scan_names

__all__ = ["MemoryRow", "SpectralReport", "SpectralRow", "spectral_report"]

# The most by which a gate can multiply the error signal before W_hh^T does, for states and candidates within +-1: the
# slope of its non-linearity times what it weighs. LSTM: i, f and o, of slope 1/4, weigh g, c_{t-1} and tanh(c_t); g has
# slope 1. GRU: z weighs h_{t-1} - n, which is within +-2; r the recurrent share of n, taken as within +-1.
SLOPES: dict[str, tuple[float, ...]] = {
    "rnn_tanh": (1.0,),
    "rnn_relu": (1.0,),
    "rnn_sigmoid": (0.25,),
    "lstm": (0.25, 0.25, 1.0, 0.25),
    "gru": (0.25, 0.5, 1.0),
}

HORIZON = 100  # steps over which the words count
_ONE = 1e-3  # how near to 1 counts as 1


@dataclass(frozen=True)
class SpectralRow:
    """One recurrent matrix: of one layer, direction and gate."""

    layer: int
    direction: str  # "forward" or "reverse"
    gate: str  # LSTM i, f, g, o; GRU r, z, n; of an Elman network "h"
    matrix: str  # the parameters it is made of
    radius: float  # the largest absolute value of an eigenvalue
    singular_values: tuple[float, ...]  # in falling order; min(H, P) of them, P the size of a projection
    slope: float  # the most by which the gate's non-linearity multiplies the error signal, for states within +-1
    implication: str

    @property
    def norm(self) -> float:
        """The largest singular value: the most by which the matrix can stretch a vector."""
        return self.singular_values[0]


@dataclass(frozen=True)
class MemoryRow:
    """How long the gate that keeps the state (LSTM f, GRU z) keeps it at zero input and state: by its biases alone."""

    layer: int
    direction: str
    keeps: tuple[float, ...]  # of each unit, in rising order: the share kept in one step
    implication: str

    @property
    def half_lives(self) -> tuple[float, ...]:
        """Steps until half is left, of each unit, in rising order."""
        return tuple(_half_life(keep) for keep in self.keeps)


@dataclass(frozen=True)
class SpectralReport:
    """What :func:`spectral_report` found. `str()` is a table with words; iteration is over the rows."""

    name: str
    rows: tuple[SpectralRow, ...]
    memory: tuple[MemoryRow, ...] = ()

    def __len__(self) -> int:
        """The number of matrices."""
        return len(self.rows)

    def __iter__(self) -> Iterator[SpectralRow]:
        """The matrices."""
        return iter(self.rows)

    def __str__(self) -> str:
        """A table for people, one block a layer and direction."""
        lines = [f"{self.name}: the recurrent matrices, one row a gate"]
        places = list(dict.fromkeys((row.layer, row.direction) for row in self.rows))
        for place in places:
            rows = [row for row in self.rows if (row.layer, row.direction) == place]
            lines.append(f"layer {place[0]}, {place[1]}: {rows[0].matrix}")
            lines.append("  gate   radius  singular values: largest   median  smallest")
            for row in rows:
                s = row.singular_values
                lines.append(f"  {row.gate:4} {row.radius:8.3g} {s[0]:25.3g} {s[len(s) // 2]:8.3g} {s[-1]:9.3g}")
            words = [f"{row.gate}: {row.implication}" for row in rows]
            words += [m.implication for m in self.memory if (m.layer, m.direction) == place]
            for text in words:
                lines += textwrap.wrap(text, 118, initial_indent="  ", subsequent_indent="     ")
        return "\n".join(lines)


@torch.no_grad()
def spectral_report(module: nn.Module) -> SpectralReport:
    """Spectral radius and singular values of every recurrent matrix of a module, and what they imply.

    BPTT multiplies the error signal at each step by the recurrent matrix and by the slopes of the units. Largest
    singular value times largest slope below 1: it must vanish. Spectral radius above 1: it explodes as long as the
    slopes let it (R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", 2013).
    Gated cells have a second way back past the matrices, which their biases open (`memory`). With a projection the
    matrix is W_hh W_hr.

    Cost: O(H^3) for each matrix, in float64 on the CPU; about two seconds for an LSTM of H = 512.

    Args:
        module: an RNN, LSTM, GRU or cell of rnnfast or torch.nn, also parametrized or pruned; weights as they are now.

    Returns:
        The report: a row for each layer, direction and gate.

    Raises:
        TypeError: module is nothing of the kind (of a model, take its recurrent modules).
        ValueError: a weight that is not finite, or on the meta device; a cell of size 0.
    """
    who = "rnnfast.diagnostics.spectral_report"
    spec = class_spec(module, who)
    rows: list[SpectralRow] = []
    memory: list[MemoryRow] = []
    for scan in scan_names(module):
        direction = "reverse" if scan.reverse else "forward"
        w_hh, w_hr = _matrix(module, scan.w_hh, who), _matrix(module, scan.w_hr, who)
        name = scan.w_hh if w_hr is None else f"{scan.w_hh} {scan.w_hr}"
        assert w_hh is not None
        for gate, slope, block in zip(spec.gate_names, SLOPES[spec.name], w_hh.chunk(spec.gates), strict=True):
            # The eigenvalues of W_hh W_hr [H, H] that can differ from zero are those of W_hr W_hh [P, P].
            radius = torch.linalg.eigvals(block if w_hr is None else w_hr @ block).abs().max().item()
            values = torch.linalg.svdvals(block if w_hr is None else block @ w_hr)[: block.shape[1]].tolist()
            words = (_elman_words if spec.keeper is None else _gate_words)(radius, values, slope)
            rows.append(SpectralRow(scan.layer, direction, gate, name, radius, tuple(values), slope, words))
        if spec.keeper is not None:
            memory.append(_memory(module, scan, direction, spec, spec.keeper))
    return SpectralReport(f"{type(module).__name__}({module.extra_repr()})", tuple(rows), tuple(memory))


def _matrix(module: Any, name: str | None, who: str) -> Tensor | None:
    """The weight of this name as the module's next call sees it, in float64 on the CPU."""
    if name is None:
        return None
    weight = current_weights(module, [name])[0].detach()
    if weight.is_meta or not weight.numel():
        raise ValueError(f"{who}: {name}: expected values, got shape {list(weight.shape)} on {weight.device}")
    weight = weight.to("cpu", torch.float64)
    if not weight.isfinite().all():
        raise ValueError(f"{who}: {name}: expected finite values, got {int((~weight.isfinite()).sum())} that are not")
    return weight


def _memory(module: Any, scan: ScanNames, direction: str, spec: CellSpec, keeper: str) -> MemoryRow:
    """What the biases of the keeping gate say; without biases the gate stands at one half."""
    index = spec.gate_names.index(keeper)
    bias = torch.zeros(module.hidden_size, dtype=torch.float64)
    for name in (scan.b_ih, scan.b_hh):
        part = _matrix(module, name, "rnnfast.diagnostics.spectral_report")
        bias = bias if part is None else bias + part.chunk(spec.gates)[index]
    keeps = bias.sigmoid().sort().values.tolist()
    median = keeps[len(keeps) // 2]
    words = (
        f"gate {keeper} at zero input and state: keeps {median:.3g} of {'c' if spec.has_cell else 'h'} a step "
        f"(units: {keeps[0]:.3g} to {keeps[-1]:.3g}); half is left after {_steps(_half_life(median))}, in the slowest "
        f"unit after {_steps(_half_life(keeps[-1]))}"
    )
    return MemoryRow(scan.layer, direction, tuple(keeps), words)


def _half_life(keep: float) -> float:
    """Steps until keep^n is one half."""
    if keep <= 0.0:
        return 0.0
    return math.log(0.5) / math.log(keep) if keep < 1.0 else math.inf


def _steps(count: float) -> str:
    return f"{count:.3g} step{'' if f'{count:.3g}' == '1' else 's'}"


def _power(rate: float) -> str:
    """rate^HORIZON, also where it is out of a float's range."""
    exponent = HORIZON * math.log10(rate) if rate > 0 else -math.inf
    if exponent == -math.inf:
        return "0"
    return f"{rate**HORIZON:.2g}" if abs(exponent) < 300 else f"1e{exponent:+.0f}"


def _elman_words(radius: float, values: list[float], slope: float) -> str:
    """The only way back is through the matrix."""
    bound, rate = slope * values[0], slope * radius
    if bound < 1 - _ONE:
        return (
            f"vanishes: a step leaves at most {bound:.3g} of the error signal, {HORIZON} steps at most {_power(bound)}"
        )
    if slope == 1.0 and max(abs(values[0] - 1), abs(values[-1] - 1)) <= _ONE:
        return "keeps the error signal's norm (the matrix is orthogonal), but for what saturated units lose"
    if rate > 1 + _ONE:
        return (
            f"can explode: while no unit saturates the error signal grows {rate:.3g}-fold a step in the long run, "
            f"{_power(rate)}-fold in {HORIZON} steps; only saturation holds it, so clip it"
        )
    start = f"a step multiplies the error signal by up to {bound:.3g}"
    if rate < 1 - _ONE:
        return (
            f"fades: {start}, but in the long run leaves {rate:.3g} of it, even where no unit saturates: about "
            f"{_power(rate)} after {HORIZON} steps"
        )
    return f"at the edge: {start}, in the long run by {rate:.3g} while no unit saturates"


def _gate_words(radius: float, values: list[float], slope: float) -> str:
    """One of several ways back, beside the state's own."""
    bound, rate = slope * values[0], slope * radius
    if bound < 1 - _ONE:
        return f"by this gate alone the error signal vanishes: a step leaves at most {bound:.3g} of it"
    if rate > 1 + _ONE:
        return f"by this gate alone the error signal can explode: it grows {rate:.3g}-fold a step in the long run"
    return f"by this gate alone a step multiplies the error signal by up to {bound:.3g}, in the long run by {rate:.3g}"
