# SPDX-License-Identifier: Apache-2.0
"""The way past the dispatcher: taken by plain tensors without grad, by nothing else, with the same results."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode

import rnnfast
from rnnfast.ops import direct_cell, direct_layers
from tests.helpers import assert_bitwise_equal
from tests.torchs import CELLS, LAYERS, flat, packed, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


def make(kind: str, *args: Any, **options: Any) -> Any:
    torch.manual_seed(1)
    return getattr(rnnfast, kind)(*args, **options)


def taken(module: Any, x: Any, hx: Any = None) -> bool:
    """Whether the module's next call with these would go the direct way."""
    if isinstance(module, rnnfast.cells.RNNCellBase):
        return direct_cell(module._spec().mode, x, hx, module._parameters) is not None
    return direct_layers(module.mode, x, hx, module.__dict__) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 3, "batch_first": True}, {"bias": False, "bidirectional": True}]
)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_give_the_ops_results(kind: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    module = make(kind, 5, 17, dtype=dtype, **options)
    for shape in ((4, 6, 5), (1, 1, 5), (7, 5)):
        batch = None if len(shape) == 2 else shape[0] if module.batch_first else shape[1]
        for hx in (None, state_of(module, batch, dtype)):
            x = torch.randn(shape, dtype=dtype)
            with torch.no_grad():
                assert taken(module, x, hx)
                got = module(x, hx)
            want = module(x, hx)  # with grad: the op
            assert type(got[1]) is type(want[1])
            for ours, theirs in zip(flat(got), flat(want), strict=True):
                assert ours.shape == theirs.shape
                assert ours.dtype == theirs.dtype
                assert ours.stride() == theirs.stride()
                assert not ours.requires_grad
                torch.testing.assert_close(ours, theirs.detach())


def test_projections_and_modules_without_grad() -> None:
    module = make("LSTM", 5, 17, 2, proj_size=3)
    x = torch.randn(4, 2, 5)
    want = module(x)
    assert not taken(module, x), "grad mode is on and the weights require gradients"
    module.requires_grad_(False)
    assert taken(module, x)
    for ours, theirs in zip(flat(module(x)), flat(want), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
    assert not taken(module, x.requires_grad_())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_cells_give_the_ops_results(kind: str, bias: bool) -> None:
    cell = make(kind, 5, 17, bias)
    for shape in ((6, 5), (5,), (1, 5), (20, 5)):
        batch = shape[0] if len(shape) == 2 else None
        for hx in (None, state_of(cell, batch)):
            x = torch.randn(shape)
            with torch.no_grad():
                assert taken(cell, x, hx)
                got = cell(x, hx)
            for ours, theirs in zip(flat(got), flat(cell(x, hx)), strict=True):
                assert_bitwise_equal("state", ours, theirs.detach(), f"{cell}")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["LSTM", "GRUCell"])
def test_what_is_not_plain_goes_the_usual_way(kind: str) -> None:
    class Subclass(torch.Tensor):
        pass

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    module, x = make(kind, 5, 8), torch.randn(4, 2, 5)[0 if "Cell" in kind else slice(None)]
    assert taken(module, x)
    assert not taken(module, x.as_subclass(Subclass))
    assert not taken(module, x.double())
    assert not taken(module, x[..., :4])
    assert not taken(module, x.transpose(-1, -2).contiguous().transpose(-1, -2))
    assert not taken(module, packed([2, 1], 5))
    assert not taken(module, x.to("meta"))
    assert not taken(module, x, (x, x, x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not taken(module, x)
    with Mode():
        assert not taken(module, x)
    with torch.overrides.BaseTorchFunctionMode():
        assert not taken(module, x)
    with torch.autograd.forward_ad.dual_level():
        assert not taken(module, torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
    seen: list[bool] = []
    torch.func.vmap(lambda t: seen.append(taken(module, t)) or t)(torch.stack([x, x]))
    assert seen == [False]
    assert taken(module, x), "a mode left its mark"


@torch.no_grad()
def test_weights_are_read_anew_and_only_from_parameters() -> None:
    module, x = make("LSTM", 5, 8), torch.randn(4, 2, 5)
    before = module(x)[0]
    module.weight_hh_l0.data.mul_(2)
    assert not torch.equal(module(x)[0], before)
    prune.random_unstructured(module, "weight_hh_l0", 0.5)
    assert not taken(module, x)
    other = parametrizations.spectral_norm(make("LSTM", 5, 8), "weight_hh_l0")
    assert not taken(other, x)
    replaced = {name: p * 3 for name, p in make("LSTM", 5, 8).named_parameters()}
    plain = make("LSTM", 5, 8)
    want = make("LSTM", 5, 8)
    for parameter in want.parameters():
        parameter.mul_(3)
    torch.testing.assert_close(torch.func.functional_call(plain, replaced, (x,))[0], want(x)[0])


@torch.no_grad()
def test_dropout_goes_the_usual_way_in_training_only() -> None:
    module, x = make("GRU", 5, 8, 2, dropout=0.5), torch.randn(4, 2, 5)
    assert not taken(module, x)
    assert taken(module.eval(), x)


@torch.no_grad()
def test_hooks_and_tracing_still_run() -> None:
    module, x = make("LSTM", 5, 8), torch.randn(4, 2, 5)
    calls: list[Tensor] = []
    module.register_forward_hook(lambda m, args, output: calls.append(output[0]))
    module(x)
    assert len(calls) == 1
    seen: list[bool] = []

    def traced(x: Tensor) -> Tensor:
        seen.append(taken(module, x))
        return x * 2

    torch.jit.trace(traced, (x,), check_trace=False)
    assert seen == [False], "a trace would keep the results as constants"
    assert isinstance(torch.compile(module, fullgraph=True, backend="eager")(x)[0], Tensor)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_accelerated_modules_take_it_too(kind: str) -> None:
    module = getattr(nn, kind)(5, 8, 2)
    x = torch.randn(4, 2, 5)
    want = module(x)
    rnnfast.accelerate(nn.ModuleDict({"m": module}))
    assert taken(module, x)
    for ours, theirs in zip(flat(module(x)), flat(want), strict=True):
        torch.testing.assert_close(ours, theirs)
