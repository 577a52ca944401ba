# SPDX-License-Identifier: Apache-2.0
"""diagnostics.spectral_report: against NumPy, against built spectra, and its words against the error signal itself."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rnnfast
from rnnfast.diagnostics import spectral_report

I, H = 3, 7
GATES = {"RNN": "h", "LSTM": "ifgo", "GRU": "rzn"}


@pytest.mark.parametrize("package", [rnnfast, nn], ids=["rnnfast", "torch.nn"])
@pytest.mark.parametrize("kind", GATES)
def test_every_matrix_against_numpy(package: Any, kind: str) -> None:
    torch.manual_seed(0)
    stack = getattr(package, kind)(I, H, num_layers=2, bidirectional=True)
    cell = getattr(package, f"{kind}Cell")(I, H)
    for module, count in ((stack, 4), (cell, 1)):
        report = spectral_report(module)
        gates = GATES[kind]
        assert len(report) == len(list(report)) == count * len(gates)
        for index, row in enumerate(report):
            scan, gate = divmod(index, len(gates))
            end = "" if count == 1 else f"_l{scan // 2}{'_reverse' * (scan % 2)}"
            assert (row.layer, row.direction) == (scan // 2, "reverse" if scan % 2 else "forward")
            assert row.gate == gates[gate]
            assert row.matrix == f"weight_hh{end}"
            w = np.split(getattr(module, f"weight_hh{end}").detach().double().numpy(), len(gates))[gate]
            where = f"{module}, row {index}, seed 0"
            assert row.radius == pytest.approx(np.abs(np.linalg.eigvals(w)).max(), rel=1e-9), where
            assert row.singular_values == pytest.approx(np.linalg.svd(w, compute_uv=False), rel=1e-9), where
            assert row.norm == row.singular_values[0]
            assert row.radius <= row.norm * (1 + 1e-12), where


def test_projection() -> None:
    """W_hh W_hr [H, H], of rank P."""
    torch.manual_seed(0)
    P = 2
    lstm = rnnfast.LSTM(I, H, 2, proj_size=P)
    for row in spectral_report(lstm):
        w = np.split(getattr(lstm, f"weight_hh_l{row.layer}").detach().double().numpy(), 4)["ifgo".index(row.gate)]
        w = w @ getattr(lstm, f"weight_hr_l{row.layer}").detach().double().numpy()
        assert row.matrix == f"weight_hh_l{row.layer} weight_hr_l{row.layer}"
        assert row.radius == pytest.approx(np.abs(np.linalg.eigvals(w)).max(), rel=1e-9)
        assert row.singular_values == pytest.approx(np.linalg.svd(w, compute_uv=False)[:P], rel=1e-9)


def set_recurrent(rnn: nn.Module, matrix: Any) -> nn.Module:
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(torch.as_tensor(matrix))
    return rnn


def elman(matrix: Any, nonlinearity: str = "tanh") -> nn.Module:
    module = rnnfast.RNN(I, len(matrix), nonlinearity=nonlinearity, dtype=torch.float64)
    return set_recurrent(module, matrix)


IDENTITY = np.eye(H)
SHEAR = np.eye(H) * 0.5 + np.eye(H, k=1) * 3.0

WORDS: list[tuple[np.ndarray, str, str]] = [
    (0.9 * IDENTITY, "tanh", "vanishes: a step leaves at most 0.9 of the error signal, 100 steps at most 2.7e-05"),
    (0 * IDENTITY, "relu", "vanishes: a step leaves at most 0 of the error signal, 100 steps at most 0"),
    (3.9 * IDENTITY, "sigmoid", "vanishes: a step leaves at most 0.975 of the error signal, 100 steps at most 0.08"),
    (-IDENTITY, "relu", "keeps the error signal's norm (the matrix is orthogonal)"),
    (1.1 * IDENTITY, "tanh", "can explode: while no unit saturates the error signal grows 1.1-fold a step"),
    (1e9 * IDENTITY, "relu", "1e+900-fold in 100 steps"),
    (SHEAR, "tanh", "fades: a step multiplies the error signal by up to 3.4"),
    (np.diag([2.0, 1, 1]) @ np.eye(3)[[1, 2, 0]] / 2 ** (1 / 3), "tanh", "at the edge: a step multiplies"),
]


@pytest.mark.parametrize(("matrix", "nonlinearity", "words"), WORDS, ids=[w[:30] for _, _, w in WORDS])
def test_words(matrix: np.ndarray, nonlinearity: str, words: str) -> None:
    (row,) = spectral_report(elman(matrix, nonlinearity))
    assert words in row.implication
    assert row.slope == {"tanh": 1.0, "relu": 1.0, "sigmoid": 0.25}[nonlinearity]


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid"])
def test_the_bound_holds_for_the_error_signal(nonlinearity: str) -> None:
    """What "at most" says, against autograd: the signal that is left after n steps."""
    torch.manual_seed(5)
    matrix = torch.randn(H, H, dtype=torch.float64)
    rnn = elman(0.8 * matrix / torch.linalg.matrix_norm(matrix, 2), nonlinearity)
    (row,) = spectral_report(rnn)
    assert row.norm == pytest.approx(0.8)
    for steps in (1, 5, 20):
        h0 = torch.randn(1, 1, H, dtype=torch.float64, requires_grad=True)
        _, h_n = rnn(torch.randn(steps, 1, I, dtype=torch.float64), h0)
        signal = torch.randn_like(h_n)
        (back,) = torch.autograd.grad(h_n, h0, signal)
        assert back.norm() <= (row.slope * row.norm) ** steps * signal.norm() * (1 + 1e-9), f"seed 5, {steps} steps"


@pytest.mark.parametrize(("kind", "gate"), [(kind, gate) for kind in ("LSTM", "GRU") for gate in GATES[kind]])
def test_slope_of_a_gate(kind: str, gate: str) -> None:
    """By one gate alone (the others' matrices are zero) a step multiplies the signal by at most slope * norm, for
    states within +-1: against autograd, for many states. What goes past the matrices does not count: z h of the GRU."""
    torch.manual_seed(6)
    cell = getattr(rnnfast, f"{kind}Cell")(1, H, dtype=torch.float64)
    index = GATES[kind].index(gate)
    row = spectral_report(cell).rows[index]
    with torch.no_grad():
        for i, block in enumerate(cell.weight_hh.chunk(len(GATES[kind]))):
            if i != index:
                block.zero_()
    largest = 0.0
    for _ in range(200):
        x = 2 * torch.randn(1, 1, dtype=torch.float64)
        h, c = 2 * torch.rand(2, 1, H, dtype=torch.float64) - 1

        def step(h: torch.Tensor, x: torch.Tensor = x, c: torch.Tensor = c) -> torch.Tensor:
            return (cell(x, (h, c))[0] if kind == "LSTM" else cell(x, h))[0]

        back = torch.autograd.functional.jacobian(step, h)[:, 0]
        if kind == "GRU":
            ours = (x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh).chunk(3, -1)
            back = back - torch.diag(torch.sigmoid(ours[1][0].detach()))
        largest = max(largest, torch.linalg.matrix_norm(back, 2).item())
    assert 0 < largest <= row.slope * row.norm * (1 + 1e-9), f"{kind} {gate}, seed 6"


def test_memory_of_the_gates() -> None:
    lstm = rnnfast.LSTM(I, H, init=lambda m: rnnfast.init.forget_bias_(m, 2.0))
    (memory,) = spectral_report(lstm).memory
    keep = 1 / (1 + np.exp(-2.0))
    assert memory.keeps == pytest.approx([keep] * H)
    assert memory.half_lives == pytest.approx([np.log(0.5) / np.log(keep)] * H)
    assert "gate f at zero input and state: keeps 0.881 of c a step" in memory.implication
    assert "half is left after 5.46 steps" in memory.implication
    gru = spectral_report(rnnfast.GRU(I, H, 2, bidirectional=True, bias=False))
    assert [(m.layer, m.direction) for m in gru.memory] == [(n, d) for n in (0, 1) for d in ("forward", "reverse")]
    assert gru.memory[0].keeps == (0.5,) * H
    assert "half is left after 1 step, in the slowest unit after 1 step" in gru.memory[0].implication
    assert spectral_report(rnnfast.RNN(I, H)).memory == ()
    cell = rnnfast.GRUCell(I, H)
    cell.bias_hh = None  # torch allows one bias alone
    with torch.no_grad():
        cell.bias_ih.fill_(1e3)
    (memory,) = spectral_report(cell).memory
    assert memory.half_lives == (float("inf"),) * H
    with torch.no_grad():
        cell.bias_ih.fill_(-1e3)
    assert spectral_report(cell).memory[0].half_lives == (0.0,) * H


def test_text() -> None:
    text = str(spectral_report(rnnfast.LSTM(I, H, 2, bidirectional=True, init="orthogonal")))
    assert text.startswith("LSTM(3, 7, num_layers=2, bidirectional=True, init='orthogonal'): the recurrent matrices")
    assert "layer 1, reverse: weight_hh_l1_reverse\n" in text
    assert len(re.findall(r"^  [ifgo] +1 +1 +1 +1$", text, re.MULTILINE)) == 16
    assert text.count("by this gate alone") == 16
    assert text.count("gate f at zero input") == 4
    assert max(map(len, text.splitlines())) < 120


def test_orthogonal_irnn_and_default_in_words() -> None:
    """The three networks of docs/training.md."""
    torch.manual_seed(0)
    default, irnn = rnnfast.RNN(2, 100), rnnfast.RNN(2, 100, nonlinearity="relu", init="irnn")
    assert spectral_report(default).rows[0].implication.startswith("fades")
    assert spectral_report(irnn).rows[0].implication.startswith("keeps the error signal's norm")


def test_sees_the_weight_as_the_module_computes_with_it() -> None:
    plain, pruned, normed = (elman(IDENTITY) for _ in range(3))
    nn.utils.prune.l1_unstructured(pruned, "weight_hh_l0", amount=H * H)
    nn.utils.parametrizations.spectral_norm(set_recurrent(normed, 5 * IDENTITY), "weight_hh_l0")
    assert spectral_report(plain).rows[0].norm == pytest.approx(1)
    assert spectral_report(pruned).rows[0].norm == 0
    assert spectral_report(normed).rows[0].norm == pytest.approx(1)
    theirs = nn.LSTM(I, H)
    before = spectral_report(theirs).rows
    rnnfast.accelerate(theirs)
    assert spectral_report(theirs).rows == before


def test_refused() -> None:
    who = "rnnfast.diagnostics.spectral_report: "
    with pytest.raises(TypeError, match=f"{who}module: expected an RNN, LSTM, GRU or cell of rnnfast or torch.nn, got"):
        spectral_report(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=f"{who}weight_hh_l0: expected finite values, got 1 that are not"):
        spectral_report(elman(np.diag([1.0, np.inf])))
    with pytest.raises(ValueError, match=f"{who}weight_hh_l0: expected values, got shape .* on meta"):
        spectral_report(rnnfast.LSTM(I, H, device="meta"))
    with pytest.raises(ValueError, match=f"{who}weight_hh: expected values, got shape .0, 0."):
        spectral_report(rnnfast.RNNCell(3, 0))
