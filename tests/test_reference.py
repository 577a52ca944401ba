# SPDX-License-Identifier: Apache-2.0
"""The references themselves: against torch in float64, and their BPTT against finite differences of their forward pass.

The bound that all else is held to grows with torch's distance from the reference, so a wrong reference would let
everything pass; here it may not.
"""

import numpy as np
import pytest

from tests.cases import CELLS, PAIRWISE, Case
from tests.problem import problem
from tests.reference import layer_backward, layer_forward
from tests.reference.common import Weights

DOUBLE = [c for c in PAIRWISE if c.dtype == "float64"]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", DOUBLE, ids=str)
def test_torch_agrees(case: Case) -> None:
    """Outputs and every gradient, to a few hundred eps of the largest element."""
    p = problem(case)
    for name, tensor in p.torch.items():
        if name in p.reference and tensor.numel():
            expected = p.reference[name]
            bound = 200 * np.finfo(np.float64).eps * max(1.0, np.abs(expected).max())
            worst = np.abs(tensor.detach().numpy() - expected).max()
            assert worst <= bound, f"{p.where}: {name}: torch differs by {worst:.2e}, more than {bound:.2e}"


@pytest.mark.parametrize(("cell", "proj"), [*((cell, 0) for cell in CELLS), ("lstm", 2)])
def test_finite_differences(cell: str, proj: int) -> None:
    """dL/d of every number of every input, by central differences of a random weighing of all outputs."""
    p = problem(Case(cell, 4, 3, 2, 3, proj, "float64", bidirectional=True, packed=True, c0=cell == "lstm"))
    gy, gh, gc = (g.numpy() for g in p.grads.values())
    x, weights, sizes = p._x64.copy(), p._w64, p.batch_sizes
    h0 = p.h0.numpy().copy()
    c0 = p.c0.numpy().copy() if p.c0 is not None else np.zeros((2, 3, 0))

    def loss() -> float:
        layer = layer_forward(cell, x, h0, c0, weights, sizes)
        return float((layer.y * gy).sum() + (layer.h_n * gh).sum() + (layer.c_n * gc).sum())

    back = layer_backward(
        cell, gy, gh, gc if gc.size else c0, x, weights, layer_forward(cell, x, h0, c0, weights, sizes), sizes
    )
    pairs = [("x", x, back[0].x + back[1].x)]
    pairs += [("h0", h0, np.stack([b.h0 for b in back])), ("c0", c0, np.stack([b.c0 for b in back]))]
    for d, b in enumerate(back):
        for field in Weights.__dataclass_fields__:
            value = getattr(weights[d], field)
            if value is not None:
                pairs.append((f"{field} of direction {d}", value, getattr(b.weights, field)))
    for name, value, gradient in pairs:
        for at in np.ndindex(value.shape):
            before, step = value[at], 1e-5
            value[at] = before + step
            above = loss()
            value[at] = before - step
            slope = (above - loss()) / (2 * step)
            value[at] = before
            assert abs(slope - gradient[at]) <= 1e-8 * max(1.0, abs(slope)), (
                f"{p.where}: {name} at {at}: BPTT {gradient[at]!r}, finite differences {slope!r}"
            )
