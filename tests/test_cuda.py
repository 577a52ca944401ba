# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels against the NumPy float64 reference, on the emulator and, where there is one, on a GPU: every path,
cell, dtype and option, the bound of the CPU's; but for relu where rounding crosses its kink (tf32; under limits also
float16). The emulator checks races and bounds on the way."""

import itertools

import numpy as np
import pytest
import torch

from rnnfast import _C
from tests.cases import CELLS, CUDA_LEVELS, CUDA_PAIRWISE, HALF, Case, full
from tests.cuda_devices import DEVICES, Engine, engines, eps_of, run_on
from tests.helpers import assert_within_bound
from tests.problem import Problem, problem
from tests.reference import Control
from tests.test_bptt import loop, reference
from tests.test_gradient_flow import by_steps, nothing_seen

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def check(device: str, case: Case, engine: Engine) -> None:
    p = problem(case)
    got, plans = run_on(device, p, engine)
    assert got.keys() == p.torch.keys()
    for plan in plans:
        assert plan["path"] == engine.path, f"{p.where}: {engine}: {plan['reasons']}"
    where = f"{p.where}, {engine} on {device}"
    for name, tensor in got.items():
        assert tensor.dtype == p.x.dtype, f"{where}: {name}"
        assert_within_bound(name, tensor, p.torch_results(name), p.reference[name], where, eps_of(p, engine))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CUDA_PAIRWISE, ids=str)
def test_pairwise(case: Case, device: str) -> None:
    for engine in engines(case):
        check(device, case, engine)


@pytest.mark.full
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", list(full(400, seed=1, levels=CUDA_LEVELS)), ids=str)
def test_full_crossing(case: Case, device: str) -> None:
    for engine in engines(case):
        check(device, case, engine)


SIZES = {  # T, B, I, H
    "one of each": (1, 1, 1, 1),
    "several blocks": (4, 3, 5, 200),
    "several passes": (3, 40, 3, 24),
    "short last block": (3, 17, 4, 67),
    "many steps": (40, 2, 3, 9),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_sizes(cell: str, sizes: tuple[int, int, int, int], dtype: str, device: str) -> None:
    """Beyond the table: sizes at which blocks, passes and steps take effect, both directions, packed."""
    case = Case(cell, *sizes, dtype=dtype, bidirectional=True, packed=True, c0=cell == "lstm")
    for engine in engines(case):
        check(device, case, engine)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("H", "proj"), [(9, 9), (3, 8), (5, 17)])
def test_projection_that_does_not_narrow(H: int, proj: int, device: str) -> None:
    check(device, Case("lstm", 4, 3, 7, H, proj, bidirectional=True, packed=True, c0=True), Engine("step"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", ["step", "persistent"])
@pytest.mark.parametrize("cell", CELLS)
def test_repeated_runs_give_the_same_bits(cell: str, path: str, device: str) -> None:
    p = problem(Case(cell, 5, 9, 7, 33, bidirectional=True, packed=True, c0=cell == "lstm"))
    first, _ = run_on(device, p, Engine(path))
    for seed in (1, 2):
        again, _ = run_on(device, p, Engine(path, seed=seed))
        for name, tensor in first.items():
            assert torch.equal(tensor, again[name]), f"{p.where}: {name}, order of threads {seed}"


CONTROLLED = [
    Case(cell, 5, 9, 3, 21, dtype=dtype, bidirectional=both, packed=packed, c0=cell == "lstm", proj=proj)
    for cell, proj in [*((cell, 0) for cell in CELLS), ("lstm", 7)]
    for dtype, both, packed in (("float32", True, True), ("float64", True, False), ("float16", False, True))
    if (cell, dtype) != ("rnn_relu", "float16")  # rounding crosses relu's kink
]
CONTROLS = [Control(), Control("value", 0.05, 2), Control("norm", 3.0, 3)]


def tolerance_of(p: Problem, engine: Engine) -> float:
    """Of gradients relative to their largest: what rounding does over the steps, far below what a limit changes."""
    return (16 if engine.tf32 or p.case.dtype in HALF else 200) * eps_of(p, engine)


def assert_recorded(p: Problem, engine: Engine, device: str, control: Control, got: torch.Tensor) -> None:
    """Norms against the NumPy reference; in float64 also what was limited, exactly, against hooks on a loop."""
    _, norms = reference(p, control)
    rows = device == "emulated"
    where = f"{p.where}, {control}, {engine} on {device}"
    tolerance = tolerance_of(p, engine)
    found, expected = (got[..., :2], norms) if rows else (got[..., :4], by_steps(p, norms))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=where)
    if rows and p.case.dtype == "float64":
        seen = nothing_seen(p)
        p.run(loop(p, control, seen))
        beyond = seen.beyond.sum(-1) if control.clip else torch.zeros_like(got[..., 2])
        assert torch.equal(got[..., 2], beyond), where


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("control", CONTROLS, ids=str)
@pytest.mark.parametrize("case", CONTROLLED, ids=str)
def test_control_and_recording(case: Case, control: Control, device: str) -> None:
    """Limits, cuts, and what is recorded of the error signals; recording changes no bit of the gradients."""
    p = problem(case)
    expected, _ = reference(p, control)
    for engine in engines(case):
        if control.clip == "norm" and engine.path != "step":
            continue
        records: list[torch.Tensor] = []
        got, plans = run_on(device, p, engine, control, records)
        assert all(plan["path"] == engine.path for plan in plans)
        assert_recorded(p, engine, device, control, records[0])
        plain, _ = run_on(device, p, engine, control)
        tolerance = tolerance_of(p, engine)
        for name, tensor in got.items():
            assert torch.equal(tensor, plain[name]), f"{p.where}: {engine}: {name} with and without recording"
            if name in expected and expected[name].size:
                np.testing.assert_allclose(
                    tensor.double(), expected[name], rtol=tolerance, atol=tolerance * np.abs(expected[name]).max(),
                    err_msg=f"{p.where}, {control}, {engine}: {name}",
                )  # fmt: skip


@pytest.mark.parametrize("device", ["emulated"])  # whose record is of rows
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("path", ["step", "persistent"])
def test_norms_beyond_the_range_of_squares(path: str, scale: float, device: str) -> None:
    p = problem(Case("rnn_tanh", 3, 2, 3, 9, bidirectional=True))
    records: list[torch.Tensor] = []
    grads = p.grads
    try:
        p.grads = {name: g * scale for name, g in grads.items()}
        run_on(device, p, Engine(path), records=records)
        _, norms = reference(p, Control())
    finally:
        p.grads = grads
    np.testing.assert_allclose(records[0][..., 0] / scale, norms[..., 0] / scale, rtol=1e-4)


# The pretended devices, but for their multiprocessors.
MEMORY = {
    "sm_75": {"architecture": 75, "shared_block": 64 << 10, "shared_processor": 64 << 10, "l2_bytes": 4 << 20},
    "sm_80": {"architecture": 80, "shared_block": 163 << 10, "shared_processor": 164 << 10, "l2_bytes": 40 << 20},
}


def test_the_table_reaches_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each cell and dtype: both products of the persistent path, forward and backward, as far as there are."""
    ran = set()
    for case in CUDA_PAIRWISE:
        for engine in engines(case):
            monkeypatch.setenv("RNNFAST_CUDA_PATH", engine.path)
            for backward in (False, True):
                device = MEMORY[engine.architecture] | {"processors": engine.processors(case), "registers": 65536}
                plan = _C.explain_cuda(
                    device | {"threads": 1024}, case.cell, case.T, max(case.B, 1), case.I, case.H, case.P, case.D,
                    case.dtype, backward, True, engine.tf32, False,
                )  # fmt: skip
                ran.add(
                    (case.cell, case.dtype, plan["path"], plan["product"] if plan["path"] != "step" else "", backward)
                )
    for cell, backward in itertools.product(CELLS, (False, True)):
        for dtype in ("float32", "float64", *HALF):
            plain = dtype == "float64" or (dtype == "float32" and cell == "rnn_relu")  # no tensor cores (tf32: engines)
            products = ["multiply-adds"] if plain else ["multiply-adds", "tensor cores"]
            wanted = {(cell, dtype, "step", "", backward)}
            wanted |= {(cell, dtype, "persistent", product, backward) for product in products}
            assert wanted <= ran, f"never: {wanted - ran}"
