# SPDX-License-Identifier: Apache-2.0
"""What is measured, of every cell: the standard shapes in inference and training, the streaming step, two bidirectional
layers, the overhead of a call, the peak memory of a training step, and what recomputation costs and saves over a long
sequence. What each must reach: targets.py."""

from collections.abc import Iterable
from dataclasses import dataclass

from rnnfast.specs import CELLS

Shape = tuple[int, int, int, int]  # T, B, I, H

MEASURED = ("lstm", "gru", "rnn_tanh")
MODES = ("inference", "training", "streaming", "overhead", "memory", "recomputation")
APART = ("recomputation",)  # minutes and gigabytes: only where the command line names the mode
FLOAT = 4  # bytes: everything here is float32

STANDARD: tuple[Shape, ...] = (
    (100, 1, 128, 128),
    (100, 1, 256, 256),
    (100, 1, 512, 512),
    (50, 1, 1024, 1024),
    (100, 8, 256, 256),
    (64, 32, 256, 256),
    (64, 32, 512, 512),
    (128, 64, 512, 512),
    (25, 32, 1024, 1024),
    (64, 64, 128, 128),
)
STREAMING: tuple[Shape, ...] = ((1, 1, 128, 128), (1, 1, 256, 256), (1, 1, 512, 512))
OVERHEAD: Shape = (1, 1, 16, 16)  # so little work that the call itself is what takes time
BIDIRECTIONAL: tuple[Shape, ...] = ((100, 1, 256, 256), (64, 32, 256, 256))  # two layers, of LSTM and GRU
MEMORY: tuple[Shape, ...] = ((100, 1, 512, 512), *(shape for shape in STANDARD if shape[1] >= 8))
RECOMPUTATION: tuple[Shape, ...] = ((1000, 16, 256, 256), (20000, 16, 256, 256))


@dataclass(frozen=True)
class Case:
    """One row of the table. Training: forward, and backward with a given output gradient to x and all weights. Memory:
    the same step. Recomputation: time and memory of the same step, with checkpoint_every="auto" and without. Streaming:
    one step with a given state. Overhead: the same, of a cell that does next to nothing."""

    cell: str  # a key of rnnfast.specs.CELLS
    mode: str  # one of MODES
    T: int
    B: int
    I: int
    H: int
    layers: int = 1
    directions: int = 1

    @property
    def shape(self) -> Shape:
        return self.T, self.B, self.I, self.H

    @property
    def trains(self) -> bool:
        return self.mode in ("training", "memory", "recomputation")

    @property
    def starts_processes(self) -> bool:
        """Whether peak memory is measured, each time in a fresh process."""
        return self.mode in ("memory", "recomputation")

    @property
    def has_state(self) -> bool:
        """Whether the call is given a state, as a stream gives it from step to step."""
        return self.mode in ("streaming", "overhead")

    @property
    def rows(self) -> int:
        """Of the weight matrices of one layer, all its directions together."""
        return self.directions * CELLS[self.cell].gates * self.H

    @property
    def flops(self) -> float:
        """Multiply-adds of the matrix products, two flops each; a training step has three times the forward's."""
        inputs = self.I + (self.layers - 1) * self.directions * self.H  # of all layers together
        forward = 2.0 * self.T * self.B * self.rows * (inputs + self.layers * self.H)
        return 3 * forward if self.trains else forward

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one layer must read at each step, whatever the kernel: W_hh, since the input's share
        can be computed for many steps at once. Where the call is one step, W_ih too."""
        columns = self.H + (self.I if self.T == 1 else 0)
        return self.rows * columns * FLOAT

    @property
    def passes(self) -> int:
        """How often such a step is made, one after the other: layers, steps, and in training there and back."""
        return self.layers * self.T * (2 if self.trains else 1)

    @property
    def stack(self) -> str:
        """What distinguishes it from one layer in one direction."""
        layers = "" if self.layers == 1 else f"{self.layers} layers"
        return ", ".join(filter(None, (layers, "both directions" if self.directions == 2 else "")))

    def __str__(self) -> str:
        stack = f" ({self.stack})" if self.stack else ""
        return f"{self.cell} {self.mode} {','.join(map(str, self.shape))}{stack}"


def all_cases(quick: bool) -> list[Case]:
    """Every case, or the few of --quick; those of one cell together."""
    standard = ((100, 1, 128, 128), (64, 32, 256, 256)) if quick else STANDARD
    streaming = STREAMING[-1:] if quick else STREAMING
    bidirectional = BIDIRECTIONAL[:1] if quick else BIDIRECTIONAL
    memory = ((64, 32, 256, 256),) if quick else MEMORY
    recomputation = RECOMPUTATION[:1] if quick else RECOMPUTATION
    cases = []
    for cell in MEASURED:
        cases += [Case(cell, mode, *shape) for shape in standard for mode in ("inference", "training")]
        cases += [Case(cell, "streaming", *shape) for shape in streaming]
        cases.append(Case(cell, "overhead", *OVERHEAD))
        if cell in ("lstm", "gru"):
            cases += [Case(cell, mode, *shape, 2, 2) for shape in bidirectional for mode in ("inference", "training")]
        cases += [Case(cell, "memory", *shape) for shape in memory]
        cases += [Case(cell, "recomputation", *shape) for shape in recomputation]
    return cases


def chosen(
    cases: Iterable[Case],
    cell: str | None = None,
    mode: str | None = None,
    case: str | None = None,
    memory: bool = True,
) -> list[Case]:
    """Those that the command line asks for; `case` is "T,B,I,H". memory: whether those that start processes too."""
    return [
        c
        for c in cases
        if cell in (None, c.cell)
        and (c.mode not in APART if mode is None else mode == c.mode)
        and case in (None, ",".join(map(str, c.shape)))
        and (memory or not c.starts_processes)
    ]
