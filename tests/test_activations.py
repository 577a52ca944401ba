# SPDX-License-Identifier: Apache-2.0
"""exp, tanh and sigmoid: at most 2 ulp in fp32 and 4 in fp64 over the whole range, on every ISA."""

import math

import numpy as np
import pytest
import torch

from rnnfast import _C
from tests.helpers import ISAS, machine

NAMES = ("exp", "tanh", "sigmoid")


def exact(name: str, x: np.ndarray, wide: type) -> np.ndarray:
    x = x.astype(wide)
    with np.errstate(over="ignore", under="ignore"):
        if name == "exp":
            return np.exp(x)
        if name == "tanh":
            return np.tanh(x)
        e = np.exp(-np.abs(x))
        return np.where(x < 0, e, wide(1)) / (wide(1) + e)


def worst_ulp(name: str, x: torch.Tensor, wide: type) -> tuple[float, float]:
    """The largest error in units of the last place of the result, and where."""
    got = _C.activation(name, x).numpy()
    dtype = got.dtype.type
    want = exact(name, x.numpy(), wide)
    with np.errstate(over="ignore"):
        rounded = want.astype(dtype)
    # The overflow threshold may lie one ulp off.
    finite = np.isfinite(rounded) & np.isfinite(got)
    at_top = np.abs(np.where(np.isfinite(rounded), rounded, np.finfo(dtype).max)) >= np.finfo(dtype).max * 0.9999
    assert (finite | (rounded == got) | at_top).all(), name
    ulp = np.spacing(np.maximum(np.abs(rounded[finite]), np.finfo(dtype).smallest_normal))
    error = np.abs(got[finite].astype(wide) - want[finite]) / ulp.astype(wide)
    i = int(error.argmax())
    return float(error[i]), float(x.numpy()[finite][i])


def samples(dtype: torch.dtype) -> torch.Tensor:
    """Every exponent, denormals included, densely where results change."""
    gen = torch.Generator().manual_seed(0)
    info = torch.finfo(dtype)
    tiny = math.log2(info.tiny) - (23 if dtype == torch.float32 else 52)
    exponents = torch.empty(400_000, dtype=torch.float64).uniform_(tiny, 12, generator=gen)
    signs = torch.randint(0, 2, (400_000,), generator=gen) * 2 - 1
    wide = torch.ldexp(signs.double(), exponents)
    limit = 110.0 if dtype == torch.float32 else 760.0
    dense = torch.empty(1_200_000, dtype=torch.float64).uniform_(-limit, limit, generator=gen)
    near = torch.empty(800_000, dtype=torch.float64).uniform_(-3, 3, generator=gen)
    return torch.cat([wide, dense, near]).to(dtype)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NAMES)
def test_fp32(name: str, isa: str) -> None:
    with machine(isa):
        error, where = worst_ulp(name, samples(torch.float32), np.float64)
    assert error <= 2, f"{name} on {isa}: {error:.3f} ulp at {where!r}"


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="no wider type than float64 here")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NAMES)
def test_fp64(name: str, isa: str) -> None:
    with machine(isa):
        error, where = worst_ulp(name, samples(torch.float64), np.longdouble)
    assert error <= 4, f"{name} on {isa}: {error:.3f} ulp at {where!r}"


@pytest.mark.full
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NAMES)
def test_every_fp32_value(name: str, isa: str) -> None:
    with machine(isa):
        for start in range(0, 2**32, 2**24):
            bits = torch.arange(start, start + 2**24, dtype=torch.int64).to(torch.int32)
            x = bits.view(torch.float32)
            x = x[x.isfinite()]
            if x.numel():
                error, where = worst_ulp(name, x, np.float64)
                assert error <= 2, f"{name} on {isa}: {error:.3f} ulp at {where!r}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isa", ISAS)
def test_special_values(isa: str, dtype: torch.dtype) -> None:
    inf, nan = math.inf, math.nan
    x = torch.tensor([inf, -inf, nan, 0.0, -0.0, 1e30, -1e30, 5e-324, -1e-40], dtype=dtype)
    with machine(isa):
        for name, want in {
            "exp": [inf, 0, nan, 1, 1],
            "tanh": [1, -1, nan, 0, -0.0],
            "sigmoid": [1, 0, nan, 0.5, 0.5],
        }.items():
            got = _C.activation(name, x)
            torch.testing.assert_close(got[:5], torch.tensor(want, dtype=dtype), rtol=0, atol=0, equal_nan=True)
            assert got[5] == (inf if name == "exp" else 1)
            assert got[6] == (-1 if name == "tanh" else 0)
        tanh = _C.activation("tanh", x)
        assert math.copysign(1, tanh[4].item()) == -1
        assert torch.equal(tanh[7:], x[7:])  # denormals pass through


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="expected exp, tanh or sigmoid, got 'relu'"):
        _C.activation("relu", torch.zeros(1))
