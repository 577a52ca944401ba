# SPDX-License-Identifier: Apache-2.0
"""What is measured: the standard shapes, in inference and training, and the streaming step."""

from dataclasses import dataclass

# (T, B, I, H)
STANDARD = (
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
STREAMING = ((1, 1, 128, 128), (1, 1, 256, 256), (1, 1, 512, 512))
QUICK = ((100, 1, 128, 128), (64, 32, 256, 256))

# The ratio that the first issue asks for, by (mode, shape): on an AVX-512 machine, on an AVX2 machine.
TARGETS = {
    ("inference", (100, 1, 128, 128)): (1.3, 2.0),
    ("inference", (100, 1, 256, 256)): (1.3, 2.0),
    ("inference", (100, 1, 512, 512)): (1.3, 2.0),
    ("inference", (64, 32, 256, 256)): (0.9, 1.0),
    ("inference", (64, 32, 512, 512)): (0.9, 1.0),
    ("training", (100, 1, 256, 256)): (2.0, 2.0),
    ("training", (64, 32, 256, 256)): (1.05, 1.05),
    ("streaming", (1, 1, 512, 512)): (15.0, 15.0),
}


@dataclass(frozen=True)
class Case:
    """One row of the table. Training: forward, and backward with a given output gradient to x and all weights."""

    mode: str  # inference, training, streaming
    T: int
    B: int
    I: int
    H: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.T, self.B, self.I, self.H

    @property
    def flops(self) -> float:
        """Multiply-adds of the matrix products, two flops each; a training step has three times the forward's."""
        forward = 2.0 * self.T * self.B * 4 * self.H * (self.I + self.H)
        return 3 * forward if self.mode == "training" else forward

    def __str__(self) -> str:
        return f"{self.mode} {','.join(map(str, self.shape))}"


def all_cases(quick: bool) -> list[Case]:
    """Every case, or the few of --quick."""
    shapes = QUICK if quick else STANDARD
    cases = [Case(mode, *shape) for shape in shapes for mode in ("inference", "training")]
    return cases + [Case("streaming", *shape) for shape in (STREAMING[-1:] if quick else STREAMING)]
