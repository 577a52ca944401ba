# SPDX-License-Identifier: Apache-2.0
"""Weights that change, are shared, frozen, computed or pruned, for all modules and cells; hooks."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn.utils import parametrizations, prune

import rnnfast
from tests.torchs import CELLS, LAYERS, flat, pair, state_of

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY = [*LAYERS, *CELLS]


def x_for(module: Any) -> torch.Tensor:
    """A small input of a module or cell."""
    gen = torch.Generator().manual_seed(3)
    return torch.randn((3, 2, 5) if hasattr(module, "num_layers") else (2, 5), generator=gen)


def weight(module: Any, kind: str = "weight_hh") -> str:
    """A parameter's name in a module or cell."""
    return f"{kind}_l0" if hasattr(module, "num_layers") else kind


def outputs(module: Any) -> torch.Tensor:
    """Everything a call returns, in a row; with states, so that W_hh acts in a cell too."""
    return torch.cat([t.flatten() for t in flat(module(x_for(module), state_of(module, 2)))])


def times_two(module: Any) -> None:
    getattr(module, weight(module)).data.mul_(2)


def out_argument(module: Any) -> None:
    p = getattr(module, weight(module, "weight_ih"))
    torch.mul(p.data, -1, out=p.data)


def inference_mode(module: Any) -> None:
    with torch.inference_mode():
        getattr(module, weight(module)).add_(0.5)


def no_grad(module: Any) -> None:
    with torch.no_grad():
        getattr(module, weight(module, "bias_ih")).fill_(0.7)


def numpy_view(module: Any) -> None:
    getattr(module, weight(module)).detach().numpy()[:] *= 3


def new_data(module: Any) -> None:
    p = getattr(module, weight(module))
    p.data = torch.full_like(p.data, 0.2)


def new_parameter(module: Any) -> None:
    p = getattr(module, weight(module, "bias_hh"))
    setattr(module, weight(module, "bias_hh"), nn.Parameter(torch.ones_like(p)))


def load_state_dict(module: Any) -> None:
    module.load_state_dict({k: v * 0.5 for k, v in module.state_dict().items()})


def load_by_assignment(module: Any) -> None:
    module.load_state_dict({k: v * 0.5 for k, v in module.state_dict().items()}, assign=True)


def optimizer_step(module: Any) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    outputs(module).square().sum().backward()
    optimizer.step()
    module.zero_grad()


def reset(module: Any) -> None:
    torch.manual_seed(11)
    module.reset_parameters()


def vector_to_parameters(module: Any) -> None:
    vector = nn.utils.parameters_to_vector(module.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 0.3, module.parameters())


CHANGES: list[Callable[[Any], None]] = [
    times_two, out_argument, inference_mode, no_grad, numpy_view, new_data, new_parameter, load_state_dict,
    load_by_assignment, optimizer_step, reset, vector_to_parameters,
]  # fmt: skip


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", EVERY)
def test_changed_weights_are_seen(name: str, change: Callable[[Any], None], grad: bool) -> None:
    """Also what autograd's version counters do not show."""
    theirs, ours = pair(name, 5, 8)
    with torch.set_grad_enabled(grad):
        before = outputs(ours)
    for module in (theirs, ours):
        change(module)
    with torch.set_grad_enabled(grad):
        after = outputs(ours)
        assert not torch.allclose(before, after), "the change was meant to show"
        torch.testing.assert_close(after, outputs(theirs))


def old_weight_norm(module: Any, name: str) -> None:
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(module, name)


COMPUTED: dict[str, Callable[[Any, str], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "old weight_norm": old_weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruned": lambda m, n: prune.l1_unstructured(m, n, amount=0.5),
    "pruned at random": lambda m, n: prune.random_structured(m, n, amount=2, dim=0),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("way", COMPUTED)
@pytest.mark.parametrize("name", EVERY)
def test_computed_weights(name: str, way: str) -> None:
    """Parametrized and pruned weights act, and the gradient reaches what they are computed from."""
    theirs, ours = pair(name, 5, 8)
    results = []
    for module in (theirs, ours):
        torch.manual_seed(4)
        COMPUTED[way](module, weight(module))
        if way == "spectral_norm":  # in training torch.nn's layers read the weight, and so iterate, thrice a call
            module.eval()
        torch.manual_seed(5)
        y = outputs(module)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad for _, p in sorted(module.named_parameters()))])
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        optimizer.step()
        results[-1].append(outputs(module).detach())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    torch.testing.assert_close(results[1], results[0])
    assert not torch.equal(results[1][0], results[1][-1])


@pytest.mark.parametrize("name", EVERY)
def test_pruning_made_permanent(name: str) -> None:
    _, ours = pair(name, 5, 8)
    prune.l1_unstructured(ours, weight(ours), amount=0.5)
    before = outputs(ours)
    prune.remove(ours, weight(ours))
    torch.testing.assert_close(outputs(ours), before)
    assert (getattr(ours, weight(ours)) == 0).float().mean() == 0.5


@pytest.mark.parametrize("name", EVERY)
def test_tied_weights(name: str) -> None:
    """One Parameter in two modules, or twice in one: the gradients add up, as in torch.nn."""
    results = []
    for module in pair(name, 5, 8):
        other = copy.deepcopy(module)
        setattr(other, weight(other), getattr(module, weight(module)))
        setattr(module, weight(module, "bias_hh"), getattr(module, weight(module, "bias_ih")))
        (outputs(module) * 2 + outputs(other)).square().sum().backward()
        results.append([p.grad for p in nn.ModuleList([module, other]).parameters()])
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("name", EVERY)
def test_frozen_subsets(name: str) -> None:
    _, ours = pair(name, 5, 8)
    outputs(ours).sum().backward()
    want = {n: p.grad.clone() for n, p in ours.named_parameters()}
    for frozen in want:
        ours.zero_grad()
        for n, p in ours.named_parameters():
            p.requires_grad_(n != frozen)
        outputs(ours).sum().backward()
        for n, p in ours.named_parameters():
            assert (p.grad is None) == (n == frozen)
            if n != frozen:
                torch.testing.assert_close(p.grad, want[n])


@pytest.mark.parametrize("name", EVERY)
def test_functional_call_and_per_sample_gradients(name: str) -> None:
    results = []
    for module in pair(name, 5, 8, dtype=torch.float64):
        x = x_for(module).double()
        parameters = {n: p.detach() for n, p in module.named_parameters()}

        def loss(p: dict, x: torch.Tensor, module: Any = module) -> torch.Tensor:
            return sum(t.square().sum() for t in flat(torch.func.functional_call(module, p, (x,))))

        results.append(torch.func.grad(loss)(parameters, x))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("name", EVERY)
def test_hooks(name: str) -> None:
    """Forward, forward-pre, full backward and parameter hooks run as on torch.nn's modules."""
    logs: list[list] = []
    for module in pair(name, 5, 8):
        log: list = []
        module.register_forward_pre_hook(lambda m, args, log=log: log.append(("pre", args[0].shape)))
        module.register_forward_hook(lambda m, args, out, log=log: log.append(("post", [t.shape for t in flat(out)])))
        module.register_full_backward_hook(
            lambda m, gi, go, log=log: log.append(("grad", [g.shape for g in gi if g is not None]))
        )
        getattr(module, weight(module)).register_hook(lambda g, log=log: log.append(("weight", g.shape)))
        x = x_for(module).requires_grad_()
        flat(module(x))[0].sum().backward()
        logs.append(sorted(log))
    assert logs[1] == logs[0]
    assert len(logs[1]) == 4


def test_swap_and_remove_hook_replaces_output() -> None:
    ours = rnnfast.GRU(5, 8)
    handle = ours.register_forward_hook(lambda m, args, out: (out[0] * 0, out[1]))
    assert not ours(x_for(ours))[0].any()
    handle.remove()
    assert ours(x_for(ours))[0].any()


@pytest.mark.parametrize("name", EVERY)
def test_jit(name: str) -> None:
    """Traced, our ops are in the graph; scripted, torch.nn's module stands in on the same parameters."""
    _, ours = pair(name, 5, 8)
    model = nn.Sequential(ours)
    x = x_for(ours)
    want = flat(model(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit is deprecated, that sizes are constants
        traced = torch.jit.trace(model, (x,))
        scripted = torch.jit.script(model)
    torch.testing.assert_close(flat(traced(x)), want)
    assert "rnnfast::" in str(traced.inlined_graph)
    torch.testing.assert_close(flat(scripted(x)), want)
    assert [p.data_ptr() for p in scripted.parameters()] == [p.data_ptr() for p in ours.parameters()]
    assert isinstance(model[0], getattr(nn, name)), "torch.jit.script puts what it compiled into the model itself"


@pytest.mark.parametrize("name", EVERY)
def test_function_transforms(name: str) -> None:
    """vmap over samples and over an ensemble of modules; checkpointing; replicas of DataParallel."""
    torch.manual_seed(0)
    modules = [getattr(rnnfast, name)(5, 8, dtype=torch.float64) for _ in range(3)]
    x = x_for(modules[0]).double()
    stacked, _ = torch.func.stack_module_state(modules)
    together = torch.func.vmap(lambda p: flat(torch.func.functional_call(modules[0], p, (x,))), in_dims=0, out_dims=0)(
        stacked
    )
    alone = [flat(module(x)) for module in modules]
    torch.testing.assert_close(together, [torch.stack(parts) for parts in zip(*alone, strict=True)])
    batch = torch.stack([x, x * 2])
    torch.testing.assert_close(torch.func.vmap(lambda v: flat(modules[0](v))[0])(batch)[1], flat(modules[0](x * 2))[0])
    leaf = x.clone().requires_grad_()
    y = torch.utils.checkpoint.checkpoint(lambda v: flat(modules[0](v))[0], leaf, use_reentrant=False)
    y.sum().backward()
    got = leaf.grad
    torch.testing.assert_close(got, torch.autograd.grad(flat(modules[0](leaf))[0].sum(), leaf)[0])
    replica = modules[0]._replicate_for_data_parallel()
    for n, p in modules[0].named_parameters():
        setattr(replica, n, p * 1)
    torch.testing.assert_close(flat(replica(x)), alone[0])
