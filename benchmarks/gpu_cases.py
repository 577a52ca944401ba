# SPDX-License-Identifier: Apache-2.0
"""What is measured on a GPU, the most telling first, since the time may not suffice for all."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.cases import MEASURED, STANDARD, Shape

# haste (LMNT) measures B in {1, 32, 64, 128} and H in {64, 128, 256, 512}; FlashRNN (arXiv 2412.07752) T=1024, B=16,
# H=768.
HASTE: tuple[Shape, ...] = tuple((100, B, H, H) for B in (1, 32, 64, 128) for H in (64, 128, 256, 512))
FLASHRNN: tuple[Shape, ...] = ((1024, 16, 768, 768),)
BIDIRECTIONAL: tuple[Shape, ...] = ((100, 1, 256, 256), (64, 32, 256, 256))
REHEARSAL: tuple[Shape, ...] = ((3, 1, 5, 7), (4, 9, 8, 33))
# tf32: float32 whose products may be rounded to tf32, torch's own default for cuDNN's recurrent layers.
DTYPES = ("float32", "tf32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class GpuCase:
    """One row: a layer, forward (inference) or forward and backward to x and all weights (training)."""

    cell: str  # a key of rnnfast.specs.CELLS
    mode: str  # inference, training
    dtype: str  # one of DTYPES
    T: int
    B: int
    I: int
    H: int
    directions: int = 1

    def __str__(self) -> str:
        sides = ", both directions" if self.directions == 2 else ""
        return f"{self.cell} {self.mode} {self.dtype} T={self.T} B={self.B} I={self.I} H={self.H}{sides}"


def cases() -> list[GpuCase]:
    """All of them, in the order in which they are run."""
    return list(dict.fromkeys(_ordered()))


def rehearsal() -> list[GpuCase]:
    """Two tiny shapes of everything that the host can compute."""
    both = [GpuCase("lstm", "training", "float32", *REHEARSAL[1], directions=2)]
    return both + [
        GpuCase(cell, mode, dtype, *shape)
        for shape in REHEARSAL
        for dtype in ("float32", "float64")
        for cell in MEASURED
        for mode in ("inference", "training")
    ]


def _ordered() -> Iterator[GpuCase]:
    def each(cells: tuple[str, ...], dtypes: tuple[str, ...], shapes: tuple[Shape, ...]) -> Iterator[GpuCase]:
        for cell in cells:
            for dtype in dtypes:
                for shape in shapes:
                    for mode in ("inference", "training"):
                        yield GpuCase(cell, mode, dtype, *shape)

    yield from each(("lstm",), ("float32", "float16"), STANDARD)
    yield from each(("gru",), ("float32",), STANDARD)
    yield from each(("lstm",), ("bfloat16",), FLASHRNN)
    for shape in BIDIRECTIONAL:
        for cell in ("lstm", "gru"):
            yield GpuCase(cell, "training", "float32", *shape, directions=2)
    yield from each(("lstm", "gru"), ("float32",), HASTE)
    yield from each(("lstm",), ("tf32", "bfloat16"), STANDARD)
    yield from each(("gru",), ("float16",), STANDARD)
    yield from each(("rnn_tanh",), ("float32", "float16"), STANDARD)
    yield from each(("gru", "rnn_tanh"), ("bfloat16", "float16"), FLASHRNN)
    yield from each(("lstm", "gru"), ("float16",), HASTE)
    yield from each(("lstm",), ("float64",), STANDARD[:7])
