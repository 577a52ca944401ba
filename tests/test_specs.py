# SPDX-License-Identifier: Apache-2.0
"""The cells that Python knows are those of the compiled core, and the fakes promise what the ops return."""

from pathlib import Path
from typing import Any

import pytest
import torch

import rnnfast
from rnnfast import _C
from rnnfast.ops import LAYERS, LAYERS_BACKWARD
from rnnfast.specs import CELLS, MODES

ROOT = Path(__file__).parents[1]


def test_every_cell_is_everywhere() -> None:
    """A cell that was added in one place only fails here; docs/architecture.md names the places."""
    assert list(CELLS) == _C.cells()
    assert len(MODES) == len(CELLS)
    for name, spec in CELLS.items():
        stem = "elman" if spec.nonlinearity else name
        assert (ROOT / "csrc" / "cells" / f"{stem}.h").is_file()
        assert (ROOT / "tests" / "reference" / f"{stem}.py").is_file()
        assert hasattr(torch.ops.rnnfast, f"{name}_layer")
        assert hasattr(torch.ops.rnnfast, f"{name}_layer_backward")
        assert hasattr(rnnfast.functional, spec.label.lower())
        options = {"nonlinearity": spec.nonlinearity} if spec.nonlinearity else {}
        assert getattr(rnnfast, spec.label)(2, 3, **options).mode == spec.mode
        assert getattr(rnnfast, f"{spec.label}Cell")(2, 3, **options)._spec() is spec


def shapes(value: Any) -> list[Any]:
    """Size and dtype of each tensor."""
    return [shapes(v) if isinstance(v, tuple | list) else (tuple(v.shape), v.dtype) for v in value]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize("form", ["dense", "packed"])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_fakes_are_true(cell: str, projected: bool, form: str, save: bool, dtype: torch.dtype) -> None:
    """On meta tensors the ops give the sizes and dtypes that they give on real ones."""
    spec = CELLS[cell]
    if projected and not spec.has_cell:
        return
    outputs, batch = 3 if projected else 4, 2
    sizes = [(spec.gates * 4, 5), (spec.gates * 4, outputs), (spec.gates * 4,), (spec.gates * 4,)]
    sizes = (sizes + [(3, 4)] * projected) * 2
    batch_sizes = torch.tensor([2, 2, 1]) if form == "packed" else None
    found = []
    for device in ("cpu", "meta"):
        x = torch.zeros((3, batch, 5) if batch_sizes is None else (5, 5), dtype=dtype, device=device)
        h0 = x.new_zeros(2, batch, outputs)
        c0 = x.new_zeros(2, batch, 4) if spec.has_cell else None
        weights = [x.new_zeros(s) for s in sizes]
        out = LAYERS[cell](x, h0, c0, weights, batch_sizes, True, True, save)
        found.append(shapes(out))
        if save:
            for mask in ([True] * (3 + len(sizes)), [False] * (3 + len(sizes))):
                mask[2] = mask[2] and spec.has_cell
                grads = (out[0], out[1], out[2] if spec.has_cell else None)
                y, saved, cells = out[0], out[3], out[4]
                back = LAYERS_BACKWARD[cell](*grads, x, h0, c0, weights, batch_sizes, True, True, y, saved, cells, mask)
                found[-1] += shapes(back)
    assert found[0] == found[1]


def test_fakes_check_dtypes() -> None:
    x, weights = torch.zeros(3, 2, 5, device="meta"), [torch.zeros(4, n, device="meta") for n in (5, 4)]
    with pytest.raises(RuntimeError, match="rnnfast::rnn_tanh_layer: h0: expected dtype torch.float32 as x, got"):
        LAYERS["rnn_tanh"](x, x.new_zeros(1, 2, 4).double(), None, weights, None, False, False, False)
