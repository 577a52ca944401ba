# SPDX-License-Identifier: Apache-2.0
"""torch.jit.script gets torch.nn's module where that does the same, and one clear error where it does not."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import rnnfast
from tests.torchs import CELLS, LAYERS, flat, pair

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY = [*LAYERS, *CELLS]


@pytest.fixture(autouse=True)
def _deprecated() -> Iterator[None]:
    """torch.jit.script says that it is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def x_for(module: nn.Module) -> torch.Tensor:
    gen = torch.Generator().manual_seed(3)
    return torch.randn(*((3, 2, 5) if hasattr(module, "num_layers") else (2, 5)), generator=gen)


def first_weight(module: nn.Module) -> str:
    return next(name for name, _ in module.named_parameters())


def _forward_on_the_object(module: Any) -> Any:
    forward = module.forward
    module.forward = lambda *args: forward(*args)
    return module


def _hook(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda m, args, out: out)
    return module


def _pre_hook(module: nn.Module) -> nn.Module:
    module.register_forward_pre_hook(lambda m, args: args)
    return module


def _buffer(module: nn.Module) -> nn.Module:
    module.register_buffer("scale", torch.ones(1))
    return module


def _further_parameter(module: nn.Module) -> nn.Module:
    module.scale = nn.Parameter(torch.ones(1))
    return module


def _derived(module: nn.Module) -> nn.Module:
    kind: Any = type(module)

    class Doubled(kind):
        def forward(self, *args: Any) -> Any:
            return tuple(t * 2 for t in flat(super().forward(*args)))

    return Doubled(5, 8)


def _parametrized(module: nn.Module) -> nn.Module:
    return parametrizations.weight_norm(module, first_weight(module))


def _pruned(module: nn.Module) -> nn.Module:
    return prune.l1_unstructured(module, first_weight(module), 0.5)


REFUSED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "derived": (_derived, "Doubled: .*derived from it"),
    "forward": (_forward_on_the_object, "its forward is replaced on the object"),
    "hook": (_hook, "it has hooks"),
    "pre-hook": (_pre_hook, "it has hooks"),
    "buffer": (_buffer, "it has buffers"),
    "parameter": (_further_parameter, "its parameters are not torch.nn's"),
    "parametrized": (_parametrized, "parametrized"),
    "pruned": (_pruned, "it has (hooks|buffers)"),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("case", REFUSED)
def test_refused_where_it_would_differ(name: str, case: str) -> None:
    """An error, and the model as it was; never torch.nn's results in place of the module's."""
    torch.manual_seed(0)
    prepare, message = REFUSED[case]
    module = prepare(getattr(rnnfast, name)(5, 8))
    model = nn.Sequential(module)
    want = flat(model(x_for(module)))
    with pytest.raises(RuntimeError, match=f"torch.jit.script: .*{message}.*torch.jit.trace"):
        torch.jit.script(model)
    assert model[0] is module
    assert all(torch.equal(a, b) for a, b in zip(flat(model(x_for(module))), want, strict=True))


@pytest.mark.parametrize("name", ["RNN", "RNNCell"])
def test_sigmoid_is_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match="torch.nn has no sigmoid"):
        torch.jit.script(nn.Sequential(getattr(rnnfast, name)(5, 8, nonlinearity="sigmoid")))


def test_a_removed_bias_is_refused() -> None:
    cell = rnnfast.GRUCell(5, 8)
    cell.bias_hh = None
    with pytest.raises(RuntimeError, match="its parameters are not torch.nn's"):
        torch.jit.script(nn.Sequential(cell))


@pytest.mark.parametrize("name", EVERY)
def test_options_and_attributes(name: str) -> None:
    """What is compiled has the module's options, mode and further attributes."""
    options: dict[str, Any] = {"bias": False}
    if name in LAYERS:
        options |= {"num_layers": 2, "bidirectional": True, "batch_first": True}
    if name == "LSTM":
        options["proj_size"] = 3
    if name.startswith("RNN"):
        options["nonlinearity"] = "relu"
    _, ours = pair(name, 5, 8, **options)
    ours.eval()
    ours.note = 7
    model = nn.Sequential(ours)
    want = flat(model(x_for(ours)))
    scripted = torch.jit.script(model)
    torch.testing.assert_close(flat(scripted(x_for(ours))), want)
    assert type(model[0]) is getattr(nn, name)
    assert not model[0].training
    assert model[0].note == 7
    assert repr(model[0]) == repr(ours)


@pytest.mark.parametrize("name", EVERY)
def test_a_replacement_gives_its_original(name: str) -> None:
    """accelerate(replace=True), then script: torch's own object is compiled, as after restore."""
    torch.manual_seed(0)
    model = nn.Sequential(getattr(nn, name)(5, 8))
    original = model[0]
    theirs = copy.deepcopy(original).double().eval()
    rnnfast.accelerate(model, replace=True)
    model.double().eval()
    model[0].note = "mine"
    x = x_for(original).double()
    scripted = torch.jit.script(model)
    assert model[0] is original
    assert original.note == "mine"
    assert not original.training
    torch.testing.assert_close(flat(scripted(x)), flat(theirs(x)), msg=lambda m: f"seed 0: {m}")
    assert rnnfast.accelerate(model, replace=True).done == 1
