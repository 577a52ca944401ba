# SPDX-License-Identifier: Apache-2.0
# docs/emulator.md
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

def devices() -> list[str]: ...
def set_device(name: str, processors: int = 0) -> None: ...
def device() -> str: ...
def set_seed(seed: int) -> None: ...
def set_race_check(check: bool) -> None: ...
def launches() -> dict[str, int]: ...
def set_mutation(name: str | None) -> None: ...
def mutation_hits() -> int: ...
def layer_forward(
    cell: str,
    x: NDArray[Any],
    h0: NDArray[Any] | None,
    c0: NDArray[Any] | None,
    weights: Sequence[NDArray[Any]],
    batch_sizes: Sequence[int] | None,
    has_biases: bool,
    bidirectional: bool,
    save: bool,
    *,
    dtype: str = "float32",
    path: str = "best",
    tf32: bool = False,
    reversed: bool = False,
) -> dict[str, Any]: ...
def layer_backward(
    grad_y: NDArray[Any] | None,
    grad_h_n: NDArray[Any] | None,
    grad_c_n: NDArray[Any] | None,
    cell: str,
    x: NDArray[Any],
    h0: NDArray[Any] | None,
    c0: NDArray[Any] | None,
    weights: Sequence[NDArray[Any]],
    batch_sizes: Sequence[int] | None,
    has_biases: bool,
    bidirectional: bool,
    y: NDArray[Any],
    saved: NDArray[Any],
    cells: NDArray[Any],
    output_mask: Sequence[bool],
    *,
    dtype: str = "float32",
    path: str = "best",
    tf32: bool = False,
    reversed: bool = False,
    clip_value: float = 0.0,
    clip_norm: float = 0.0,
    steps: int = 0,
    record: bool = False,
    behind: int = 0,
    lengths: Sequence[int] | None = None,
) -> dict[str, Any]: ...
