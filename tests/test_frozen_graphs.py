# SPDX-License-Identifier: Apache-2.0
"""A snapshot in torch's graphs and transforms: an error that says why, or a break, and never other results."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnnfast

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("LSTM", "GRUCell")


class Model(nn.Module):
    """A snapshot, and something around it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.module = getattr(rnnfast, name)(5, 8)
        self.frozen = rnnfast.freeze(self.module)

    def forward(self, x: Tensor) -> Tensor:
        y = self.frozen(x + 1)
        return (y if isinstance(y, Tensor) else y[0]) * 2


def x_for(name: str) -> Tensor:
    return torch.ones((3, 2, 5) if name == "LSTM" else (2, 5))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_tracing(name: str) -> None:
    """A trace would hold the memory of results that are gone."""
    with pytest.raises(RuntimeError, match="outside torch's graphs: trace, export"):
        torch.jit.trace(Model(name), (x_for(name),))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strict", [False, True])
def test_export(name: str, strict: bool) -> None:
    with pytest.raises(Exception, match="outside torch's graphs: trace, export"):
        torch.export.export(Model(name), (x_for(name),), strict=strict)


@pytest.mark.parametrize("name", NAMES)
def test_compile(name: str) -> None:
    """It breaks the graph; whole graphs are refused."""
    model, x = Model(name), x_for(name)
    want = model(x)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(model, backend="eager")(x), want)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="outside torch's graphs"):
        torch.compile(model, backend="eager", fullgraph=True)(x)


@pytest.mark.parametrize("name", NAMES)
def test_transforms(name: str) -> None:
    model, x = Model(name), x_for(name)
    calls: dict[str, Any] = {
        "vmap": lambda: torch.func.vmap(model)(torch.stack([x, x])),
        "grad": lambda: torch.func.grad(lambda v: model(v).sum())(x),
        "jvp": lambda: torch.func.jvp(model, (x,), (x,)),
        "state": lambda: torch.func.vmap(lambda h: model.frozen(x, (h, h) if name == "LSTM" else h))(
            torch.zeros((2, 1, 2, 8) if name == "LSTM" else (2, 2, 8))
        ),
    }
    for case, call in calls.items():
        with pytest.raises(RuntimeError, match="a snapshot has no autograd") as error:
            call()
        assert "call the module itself" in str(error.value), case
    with torch._subclasses.FakeTensorMode() as mode, pytest.raises(RuntimeError, match="a snapshot has no autograd"):
        model.frozen(mode.from_tensor(x))
    assert torch.func.vmap(lambda v: v * model(x).sum())(torch.ones(2)).shape == (2,), "no part in the transform: fine"


@pytest.mark.parametrize("sizes", [(0, 4), (5, 0)])
def test_sizes_of_zero(sizes: tuple[int, int]) -> None:
    """The live cell runs torch's own there."""
    for source in (nn, rnnfast):
        cell = source.GRUCell(*sizes)
        with pytest.raises(ValueError, match="no rnnfast kernels for sizes of 0"):
            rnnfast.freeze(cell)
