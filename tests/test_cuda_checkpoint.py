# SPDX-License-Identifier: Apache-2.0
"""What recomputation asks of the CUDA kernels: segments of a sequence, one direction at a time, as
csrc/bindings/checkpoint.cpp runs them, on the emulator against the NumPy reference of the whole sequence."""

from typing import Any

import numpy as np
import pytest

from tests.cases import Case
from tests.cuda_devices import Engine, control_options, emulator, to_array
from tests.problem import Problem, problem
from tests.reference import Control
from tests.test_bptt import reference

Arrays = dict[str, np.ndarray]


def state(given: np.ndarray | None, d: int, shape: tuple[int, int]) -> np.ndarray:
    return np.zeros(shape) if given is None else given[d].copy()


class Segments:
    """One direction of a problem in segments of `every` steps."""

    def __init__(self, p: Problem, engine: Engine, control: Control, every: int, d: int) -> None:
        self.p, self.control, self.d, self.T = p, control, d, p.case.T
        self.options = {"dtype": "float64", "path": engine.path, "reversed": d == 1}
        emulator().set_device(engine.architecture, engine.processors(p.case))
        self.starts = np.concatenate([[0], np.cumsum(p.batch_sizes)])
        self.lengths = np.array([sum(size > b for size in p.batch_sizes) for b in range(p.case.B)])
        self.weights = [w.numpy() for w in p.weights[d * p.each : (d + 1) * p.each]]
        ends = [(first, min(first + every, self.T)) for first in range(0, self.T, every)]
        self.steps = [(self.T - end, self.T - first) if d else (first, end) for first, end in ends]  # in time

    def rows(self, begin: int, end: int) -> slice:
        return slice(self.starts[begin], self.starts[end])

    def inputs(self, begin: int, end: int, h: np.ndarray, c: np.ndarray) -> tuple[Any, ...]:
        case, n = self.p.case, self.p.batch_sizes[begin]
        x = self.p.x.numpy()
        x = x[self.rows(begin, end)] if case.packed else x[begin:end]
        sizes = self.p.batch_sizes[begin:end] if case.packed else None
        return (
            case.cell,
            x,
            h[None, :n],
            c[None, :n] if case.has_cell else None,
            self.weights,
            sizes,
            case.bias,
            False,
        )

    def forward(self, begin: int, end: int, h: np.ndarray, c: np.ndarray) -> Arrays:
        return emulator().layer_forward(*self.inputs(begin, end, h, c), True, **self.options)

    def cut(self, i: int, dh: np.ndarray, dc: np.ndarray) -> None:
        """Truncation where a cut falls between segment i and the one after it."""
        if self.control.steps is None or i + 1 == len(self.steps):
            return
        (begin, end), after = self.steps[i], self.steps[i + 1]
        for b in range(min(self.p.batch_sizes[begin], self.p.batch_sizes[after[0]])):
            left = begin if self.d else self.lengths[b] - end
            if left > 0 and left % self.control.steps == 0:
                dh[b] = dc[b] = 0

    def run(self, gradients: Arrays, record: np.ndarray) -> None:
        p, case, d = self.p, self.p.case, self.d
        h, c = (state(to_array(s), d, (case.B, n)) for s, n in ((p.h0, case.P), (p.c0, case.H)))
        kept = []
        for begin, end in self.steps:
            kept.append((h.copy(), c.copy()))
            out, n = self.forward(begin, end, h, c), p.batch_sizes[begin]
            h[:n] = out["h_n"][0]
            if case.has_cell:
                c[:n] = out["c_n"][0]
        dh = p.grads["h_n"][d].numpy().copy()
        dc = p.grads["c_n"][d].numpy().copy() if case.has_cell else np.zeros_like(c)
        grad_y = p.grads["y"].reshape(-1, case.D, case.P)[:, d].numpy()
        for i in reversed(range(len(self.steps))):
            begin, end = self.steps[i]
            rows, n = self.rows(begin, end), p.batch_sizes[begin]
            inputs = self.inputs(begin, end, *kept[i])
            out = self.forward(begin, end, *kept[i])
            self.cut(i, dh, dc)
            back = emulator().layer_backward(
                np.ascontiguousarray(grad_y[rows].reshape(out["y"].shape)), dh[None, :n].copy(),
                dc[None, :n].copy() if case.has_cell else None, *inputs, out["y"], out["saved"], out["cells"],
                [True] * (3 + len(self.weights)), record=True, behind=begin if d else self.T - end,
                lengths=list(self.lengths[:n] - begin) if case.packed else None,
                **self.options, **control_options(self.control),
            )  # fmt: skip
            record[d, rows] = back["record"][0]
            gradients["grad x"].reshape(-1, case.I)[rows] += back["grad_x"].reshape(-1, case.I)
            dh[:n] = back["grad_h0"][0]
            if case.has_cell:
                dc[:n] = back["grad_c0"][0]
            for k, grad in enumerate(back["grad_weights"]):
                gradients[f"grad weight {d * p.each + k}"] += grad
        gradients["grad h0"][d] = dh
        if case.has_cell:
            gradients["grad c0"][d] = dc


@pytest.mark.parametrize("path", ["step", "persistent"])
@pytest.mark.parametrize("control", [Control("value", 0.3, 3), Control(steps=2)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_segments(cell: str, packed: bool, control: Control, path: str) -> None:
    p = problem(Case(cell, 7, 4, 3, 9, dtype="float64", bidirectional=True, packed=packed, c0=cell == "lstm"))
    expected, norms = reference(p, control)
    for every in (2, 3):
        gradients = {name: np.zeros_like(value) for name, value in expected.items()}
        record = np.full((2, sum(p.batch_sizes), 3), np.nan)
        for d in (0, 1):
            Segments(p, Engine(path), control, every, d).run(gradients, record)
        where = f"{p.where}, {control}, every {every}, {path}"
        np.testing.assert_allclose(record[..., :2], norms, rtol=1e-11, atol=1e-11, err_msg=where)
        for name, want in expected.items():
            np.testing.assert_allclose(gradients[name], want, rtol=1e-10, atol=1e-10, err_msg=f"{where}: {name}")
