# SPDX-License-Identifier: Apache-2.0
"""Half precision, autocast, and the dtypes and devices without kernels, for all modules and cells."""

import copy
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from rnnfast import fallback
from rnnfast.specs import CELLS as SPECS
from tests.torchs import CELLS, LAYERS, flat, packed, pair, run, state_of

pytestmark = pytest.mark.usefixtures("one_thread")
EVERY = [*LAYERS, *CELLS]
HALVES = [torch.float16, torch.bfloat16]


def x_for(module: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A small input of a module or cell."""
    gen = torch.Generator().manual_seed(3)
    shape = (3, 2, 5) if hasattr(module, "num_layers") else (2, 5)
    return torch.randn(shape, generator=gen, dtype=torch.float64).to(dtype)


def dtypes(value: Any) -> set[torch.dtype]:
    return {t.dtype for t in flat(value)}


def assert_within_half(name: str, got: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype, where: str) -> None:
    """Within a few roundings to half precision of what float64 gives for the same rounded numbers."""
    bound = 8 * torch.finfo(dtype).eps * max(exact.abs().max().item(), 1e-3)
    error = (got.double() - exact).abs()
    bad = ~(error <= bound)
    first = bad.nonzero()[:1].tolist()
    assert not bad.any(), f"{where}: {name}: first bad at {first}, worst error {error.max()}, bound {bound}"


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """Runs on our kernels, in float32 inside: as exact as half precision results can be."""
    _, ours = pair(name, 5, 8, dtype=dtype)
    x, hx = x_for(ours, dtype), state_of(ours, 2, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = run(ours, x, hx)
    exact = copy.deepcopy(ours).double()
    as_double = tuple(s.double() for s in hx) if isinstance(hx, tuple) else hx.double()
    for key, value in run(exact, x.double(), as_double).items():
        assert got[key].dtype == dtype, key
        assert_within_half(key, got[key], value, dtype, f"{ours}, seed 0")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_half_precision_options(name: str, dtype: torch.dtype) -> None:
    more = {"proj_size": 3} if name == "LSTM" else {}
    _, ours = pair(name, 5, 8, 2, batch_first=True, bidirectional=True, dtype=dtype, **more)
    exact = copy.deepcopy(ours).double()
    for x in (x_for(ours, dtype), x_for(ours, dtype)[0], packed([2, 3, 1], 5, dtype)):
        wide = x.double() if isinstance(x, torch.Tensor) else x._replace(data=x.data.double())
        for key, value in run(exact, wide).items():
            got = run(ours, x)[key]
            assert got.dtype == dtype
            assert_within_half(key, got, value, dtype, f"{ours}, seed 0")


def theirs_under_autocast(module: Any, x: Any, hx: Any, dtype: torch.dtype) -> Any:
    """What torch returns; its LSTM needs hardware for half precision, which is why it gets the wider of two routes."""
    with torch.autocast("cpu", dtype=dtype):
        return module(x, hx)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("weights", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [n for n in EVERY if n != "LSTM"])
def test_autocast_returns_torchs_dtypes(name: str, weights: torch.dtype, dtype: torch.dtype) -> None:
    """Every mixture of dtypes: the same dtype of results, or RuntimeError from both."""
    theirs, ours = pair(name, 5, 8, dtype=weights)
    kinds = [torch.float32, torch.float64, dtype]
    for of_x, of_hx in itertools.product(kinds, [None, *kinds]):
        x = x_for(ours, of_x)
        hx = None if of_hx is None else state_of(ours, 2, of_hx)
        where = f"weights {weights}, x {of_x}, hx {of_hx}"
        try:
            expected = theirs_under_autocast(theirs, x, hx, dtype)
        except RuntimeError:
            with pytest.raises(RuntimeError), torch.autocast("cpu", dtype=dtype):
                ours(x, hx)
        else:
            with torch.autocast("cpu", dtype=dtype):
                got = ours(x, hx)
            assert [t.dtype for t in flat(got)] == [t.dtype for t in flat(expected)], where
            for a, b in zip(flat(got), flat(expected), strict=True):
                torch.testing.assert_close(a, b, atol=0.03, rtol=0.03, msg=lambda m, w=where: f"{w}: {m}")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast_lstm(dtype: torch.dtype) -> None:
    """torch.nn.LSTM returns autocast's dtype from oneDNN and cuDNN (and fails where the hardware lacks it)."""
    theirs, ours = pair("LSTM", 5, 8, 2, bidirectional=True)
    want = flat(theirs(x_for(ours)))
    with torch.autocast("cpu", dtype=dtype):
        for hx in (None, state_of(ours, 2), state_of(ours, 2, dtype)):
            assert dtypes(ours(x_for(ours), hx)) == {dtype}
        got = flat(ours(x_for(ours)))
        assert dtypes(ours(packed([2, 3], 5))) == {dtype}
        with pytest.raises(RuntimeError):
            ours(x_for(ours, torch.float64))
        assert dtypes(copy.deepcopy(ours).double()(x_for(ours, torch.float64))) == {torch.float64}
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.float(), b, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("name", EVERY)
def test_autocast_gradients(name: str) -> None:
    """Gradients come back in the parameters' own dtype, near those without autocast."""
    _, ours = pair(name, 5, 8)
    want = run(ours, x_for(ours), state_of(ours, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run(ours, x_for(ours), state_of(ours, 2))
    for key, value in got.items():
        if key.startswith("grad"):
            assert value.dtype == torch.float32, key
            torch.testing.assert_close(value, want[key], atol=0.1, rtol=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert dtypes(ours(x_for(ours))) == {torch.float32}


@pytest.mark.parametrize("name", EVERY)
def test_complex_runs_torch_with_one_warning(name: str) -> None:
    theirs, ours = pair(name, 5, 8, dtype=torch.complex64)
    fallback._warned.clear()
    x = x_for(ours).to(torch.complex64)
    with pytest.warns(UserWarning, match=rf"no rnnfast kernels for dtype torch.complex64; running torch's own {name}"):
        got = ours(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = ours(x)
        hx = tuple(s.to(torch.complex64) for s in flat(state_of(ours, 2)))
        hx = hx if len(hx) == 2 else hx[0]
        torch.testing.assert_close(flat(ours(x, hx)), flat(theirs(x, hx)))
    torch.testing.assert_close(flat(got), flat(theirs(x)))
    assert "complex64" in str(rnnfast.explain(ours, x))


@pytest.mark.parametrize("name", EVERY)
def test_integers_are_torchs_error(name: str) -> None:
    for kind in (getattr(nn, name), getattr(rnnfast, name)):
        with pytest.raises(RuntimeError, match="Only Tensors of floating point and complex dtype"):
            kind(5, 8, dtype=torch.int32)


def stack_options(kind: str) -> list[dict[str, Any]]:
    both = [{"bidirectional": b, "num_layers": n, "bias": n == 2} for b in (False, True) for n in (1, 2)]
    return [o | {"proj_size": p} for o in both for p in (0, 3)] if kind == "lstm" else both


@pytest.mark.parametrize("form", ["dense", "packed"])
@pytest.mark.parametrize("kind", SPECS)
def test_fallback_is_the_same_function(kind: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a device without kernels runs, run here on the CPU: outputs and gradients as from the kernels."""
    spec = SPECS[kind]
    for options in stack_options(kind):
        more = {"nonlinearity": spec.nonlinearity} if spec.nonlinearity else {}
        torch.manual_seed(0)
        ours = getattr(rnnfast, spec.label)(5, 8, dropout=0.0, dtype=torch.float64, **options, **more)
        x = x_for(ours, torch.float64) if form == "dense" else packed([2, 3], 5, torch.float64)
        hx = state_of(ours, 2, torch.float64)
        want = [run(ours, x), run(ours, x, hx)]
        with monkeypatch.context() as patch:
            patch.setattr(fallback, "why_no_kernel", lambda x: "no rnnfast kernels for this test")
            got = [run(ours, x), run(ours, x, hx)]
        torch.testing.assert_close(got, want, msg=lambda m, o=options: f"{o}: {m}")


@pytest.mark.parametrize("kind", SPECS)
def test_fallback_of_cells(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS[kind]
    more = {"nonlinearity": spec.nonlinearity} if spec.nonlinearity else {}
    torch.manual_seed(0)
    ours = getattr(rnnfast, f"{spec.label}Cell")(5, 8, dtype=torch.float64, **more)
    x, hx = x_for(ours, torch.float64), state_of(ours, 2, torch.float64)
    want = [run(ours, x), run(ours, x, hx)]
    monkeypatch.setattr(fallback, "why_no_kernel", lambda x: "no rnnfast kernels for this test")
    torch.testing.assert_close([run(ours, x), run(ours, x, hx)], want)


def test_fallback_dropout_and_one_warning_each(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = rnnfast.RNN(5, 8, 2, dropout=0.5)
    textbook = rnnfast.RNN(5, 8, nonlinearity="sigmoid")
    x = torch.ones(3, 2, 5)
    fallback._warned.clear()
    want = run(ours, x)["y"]
    monkeypatch.setattr(fallback, "why_no_kernel", lambda x: f"no rnnfast kernels for {len(x)}")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.testing.assert_close(run(ours, x)["y"], want)
        ours(x)
        ours(x[:2])
        rnnfast.functional.rnn(x[:1], None, list(textbook.parameters()), nonlinearity="sigmoid")
    assert [str(w.message) for w in found] == [
        "rnnfast: no rnnfast kernels for 3; running torch's own RNN",
        "rnnfast: no rnnfast kernels for 2; running torch's own RNN",
        "rnnfast: no rnnfast kernels for 1; running RNN in torch's operations, step by step",
    ]
    files = [w.filename.rpartition("/")[2] for w in found]
    assert files == ["torchs.py", "test_module_dtypes.py", "test_module_dtypes.py"], (
        "warnings should point at the caller"
    )
