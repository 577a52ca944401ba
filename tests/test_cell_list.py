# SPDX-License-Identifier: Apache-2.0
"""A cell exists in every place that docs/architecture.md, "How to add a cell", names, or in none."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rnnfast import _C, ops, specs
from rnnfast.diagnostics import spectral
from tests import cases, reference
from tests.arguments import arguments

ROOT = Path(__file__).parent.parent


def _architecture() -> list[str]:
    """Those of the cells that it names, each in backticks: `lstm`."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return [cell for cell in specs.CELLS if f"`{cell}`" in text]


def _registered() -> list[str]:
    """Those whose two ops are registered."""
    known = torch._C._dispatch_get_all_op_names()
    return [c for c in specs.CELLS if {f"rnnfast::{c}_layer", f"rnnfast::{c}_layer_backward"} <= set(known)]


PLACES: dict[str, Any] = {
    "csrc/cells/list.h (rnnfast._C.cells())": _C.cells,
    "rnnfast/ops.py LAYERS": lambda: ops.LAYERS,
    "rnnfast/ops.py LAYERS_BACKWARD": lambda: ops.LAYERS_BACKWARD,
    "the registered ops": _registered,
    "rnnfast/diagnostics/spectral.py SLOPES": lambda: spectral.SLOPES,
    "tests/reference/__init__.py CELLS": lambda: reference.CELLS,
    "tests/cases.py CELLS": lambda: cases.CELLS,
    "tests/cases.py PAIRWISE": lambda: {c.cell for c in cases.PAIRWISE},
    "docs/architecture.md (`name` in backticks)": _architecture,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_cell_is_there(place: str) -> None:
    """Against rnnfast/specs.py CELLS."""
    found, expected = set(PLACES[place]()), set(specs.CELLS)
    assert found == expected, (
        f"{place}: lacks {sorted(expected - found)}, has {sorted(found - expected)} beyond rnnfast/specs.py CELLS"
    )


@pytest.mark.parametrize("cell", specs.CELLS)
def test_places_agree(cell: str) -> None:
    """On gates, on what is saved, on whether there is a cell state; and every C++ op has its NumPy file."""
    spec, known = specs.CELLS[cell], reference.CELLS[cell]
    assert spec.name == cell
    assert spec.gates == known.gates == len(spec.gate_names) == len(spectral.SLOPES[cell])
    assert spec.keeper is None or spec.keeper in spec.gate_names
    assert spec.has_cell == known.has_cell == (cell in cases.WITH_CELL_STATE)
    args = arguments(cell, T=2, B=3, H=5, grad=False)
    *_, c_n, saved, cells = ops.LAYERS[cell](*args.op, True)
    assert saved.shape == ((1, 6, spec.saved * 5) if spec.saved else (0,))
    assert c_n.numel() == cells.numel() // 2 == (15 if spec.has_cell else 0)


def test_a_missing_cell_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(specs.CELLS, "another", specs.CELLS["gru"])
    for place in PLACES:
        with pytest.raises(AssertionError, match=r"lacks \['another'\]"):
            test_every_cell_is_there(place)
