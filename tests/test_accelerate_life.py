# SPDX-License-Identifier: Apache-2.0
"""Accelerated modules in use: pickles, copies, hooks, optimizers, parametrizations, other torch features, threads."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from rnnfast import functional
from rnnfast.accelerate import accelerate, restore
from tests.test_accelerate import (
    Model,
    WithMethods,
)
from tests.torchs import Results, assert_same, packed, run

pytestmark = pytest.mark.usefixtures("one_thread")


class OwnReduce(nn.LSTM):
    """Says itself how it is pickled."""

    def __reduce__(self) -> Any:
        return OwnReduce, (self.input_size, self.hidden_size), self.__getstate__()


def accelerated_class(module: nn.Module) -> bool:
    return hasattr(type(module), "_rnnfast_original")


def assert_close(theirs: Results, ours: Results, seed: int = 0) -> None:
    """All outputs and gradients."""
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, msg=lambda m, name=name: f"seed {seed}: {name}: {m}")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRUCell, WithMethods, OwnReduce])
def test_pickle(kind: Any, protocol: int) -> None:
    """Unpickled, it is of the very same class, and restores to its original one."""
    torch.manual_seed(0)
    module = kind(5, 8)
    accelerate(module)
    again = pickle.loads(pickle.dumps(module, protocol))
    assert type(again) is type(module)
    x = torch.randn(4, 5)
    for name, tensor in run(module, x).items():
        assert torch.equal(tensor, run(again, x)[name]), name
    restore(again)
    assert type(again) is kind


def test_torch_save_and_copies() -> None:
    model = Model()
    accelerate(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    x = torch.randn(7, 3, 5)
    for again in (loaded, copy.deepcopy(model), copy.deepcopy(loaded)):
        assert type(again.first) is type(model.first)
        assert again.first is again.again
        assert again.first.weight_ih_l0 is not model.first.weight_ih_l0
        assert torch.equal(run(again, x)["y"], run(model, x)["y"])
    shallow = copy.copy(model.first)
    assert type(shallow) is type(model.first)
    assert shallow.weight_ih_l0 is model.first.weight_ih_l0


def test_state_dict_both_ways() -> None:
    ours, theirs = Model(), Model()
    accelerate(ours)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.5)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file))
    x = torch.randn(7, 3, 5)
    torch.testing.assert_close(run(ours.eval(), x)["y"], run(theirs.eval(), x)["y"])


def test_pickle_in_a_fresh_process(tmp_path: Any) -> None:
    """What multiprocessing's spawn does: only the pickle crosses over; it accelerates itself there."""
    torch.manual_seed(0)
    module = nn.GRU(5, 8, 2)
    accelerate(module)
    x = torch.randn(4, 3, 5)
    (tmp_path / "in").write_bytes(pickle.dumps((module, x, module(x)[0].detach())))
    code = (
        "import pickle, sys; module, x, want = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "import torch; assert type(module)._rnnfast_original is torch.nn.GRU\n"
        "torch.testing.assert_close(module(x)[0], want); print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_hooks() -> None:
    torch.manual_seed(0)
    module = nn.LSTM(5, 8)
    calls: list[str] = []
    module.register_forward_pre_hook(lambda m, args: calls.append("pre"))
    accelerate(module)
    module.register_forward_hook(lambda m, args, out: calls.append("post"))
    module.register_full_backward_hook(lambda m, gi, go: calls.append("backward"))
    x = torch.randn(4, 2, 5, requires_grad=True)
    module(x)[0].sum().backward()
    assert calls == ["pre", "post", "backward"]
    restore(module)
    module(x)[0].sum().backward()
    assert calls == ["pre", "post", "backward"] * 2


def test_training_with_an_optimizer_made_before() -> None:
    """Three steps of Adam, accelerated in between, stay beside torch's."""
    x = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(1))
    trained = []
    for use in (False, True):
        model = Model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(3):
            if use and step == 1:
                accelerate(model)
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        trained.append(model.state_dict())
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_weights_changed_behind_its_back() -> None:
    """Always those of now: data, out=, load_state_dict, another Parameter, a plain tensor, tied, functional_call."""
    torch.manual_seed(0)
    module = nn.LSTM(5, 8)
    theirs = copy.deepcopy(module)
    accelerate(module)
    x = torch.randn(4, 2, 5)
    other = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    new = nn.Parameter(torch.randn(32, 8))

    def each(change: Callable[[nn.LSTM], object]) -> None:
        for m in (module, theirs):
            change(m)
        torch.testing.assert_close(module(x)[0], theirs(x)[0])

    before = module(x)[0]
    each(lambda m: m.weight_hh_l0.data.mul_(2))
    assert not torch.equal(before, module(x)[0])
    each(lambda m: torch.mul(m.bias_ih_l0.data, 3, out=m.bias_ih_l0.data))
    each(lambda m: m.load_state_dict(other))
    each(lambda m: setattr(m, "weight_hh_l0", new))
    want = torch.func.functional_call(theirs, other, (x,))[0]
    torch.testing.assert_close(torch.func.functional_call(module, other, (x,))[0], want)
    torch.testing.assert_close(module(x)[0], theirs(x)[0])
    each(lambda m: m.double().float())
    each(lambda m: (m._parameters.pop("bias_hh_l0"), setattr(m, "bias_hh_l0", torch.ones(32))))


def test_parametrize_before_and_after() -> None:
    """Parametrizations on, off and on again, with accelerate and restore in any order."""
    torch.manual_seed(0)
    module = nn.LSTM(5, 8)
    x = torch.randn(4, 2, 5)
    parametrizations.weight_norm(module, "weight_hh_l0")
    kind = type(module)
    theirs = copy.deepcopy(module)
    assert accelerate(module).done == 1
    copied = copy.deepcopy(module)
    assert accelerated_class(copied)
    assert_close(run(theirs, x), run(module, x))
    assert_close(run(theirs, x), run(copied, x))
    restore(module)
    assert type(module) is kind
    assert accelerated_class(copied), "a copy is a module of its own"

    accelerate(module)
    parametrizations.spectral_norm(module.eval(), "weight_ih_l0")
    assert accelerated_class(module)
    parametrize.remove_parametrizations(module, "weight_hh_l0")
    restore(module)
    assert type(module).__mro__[1] is nn.LSTM
    want = module(x)[0]
    accelerate(module)
    torch.testing.assert_close(module(x)[0], want)
    parametrize.remove_parametrizations(module, "weight_ih_l0")
    assert accelerated_class(module)
    torch.testing.assert_close(module(x)[0], want)
    restore(module)
    assert type(module) is nn.LSTM

    accelerate(module)
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(parametrizations.weight_norm(module, "weight_hh_l0"))
    restore(module)
    assert not accelerated_class(module)
    assert parametrize.is_parametrized(module)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_weight_norm_and_pruning() -> None:
    """Hooks that compute a weight before each call, added before or after."""
    for before in (True, False):
        torch.manual_seed(0)
        module = nn.GRU(5, 8)
        if not before:
            accelerate(module)
        nn.utils.weight_norm(module, "weight_hh_l0")
        nn.utils.prune.l1_unstructured(module, "weight_ih_l0", 0.5)
        theirs = copy.deepcopy(nn.GRU(5, 8))
        nn.utils.weight_norm(theirs, "weight_hh_l0")
        nn.utils.prune.l1_unstructured(theirs, "weight_ih_l0", 0.5)
        theirs.load_state_dict(module.state_dict())
        assert accelerate(module).done == before
        x = torch.randn(4, 2, 5)
        for _ in range(2):
            assert_close(run(theirs, x), run(module, x))
            for m in (module, theirs):
                m.weight_hh_l0_g.data.mul_(2)


def test_jit_trace_and_fx() -> None:
    """Scripting compiles torch's own layer and leaves it restored, in place; traces hold our op."""
    model = nn.Sequential(nn.LSTM(5, 8))
    module, x = model[0], torch.randn(4, 2, 5)
    want = model(x)[0]
    accelerate(model)
    traced = torch.jit.trace(module, (x,))
    assert "rnnfast::lstm_layer" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x)[0], want)
    graph = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(graph(x)[0], want)
    scripted = torch.jit.script(model)
    assert torch.equal(scripted(x)[0], want)
    assert model[0] is module
    assert type(module) is nn.LSTM
    assert accelerate(model).done == 1


def test_autocast_and_double_backward() -> None:
    torch.manual_seed(0)
    module = nn.GRU(5, 8)  # torch's bfloat16 LSTM needs instructions that not every machine has
    theirs = copy.deepcopy(module)
    accelerate(module)
    x = torch.randn(4, 2, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = module(x)[0], theirs(x)[0]
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want, rtol=0.05, atol=0.02)
    penalties = []
    for m in (module.double(), theirs.double()):
        given = x.double().requires_grad_()
        (grad,) = torch.autograd.grad(m(given)[0].square().sum(), given, create_graph=True)
        grad.square().sum().backward()
        penalties.append(m.weight_hh_l0.grad)
    torch.testing.assert_close(*penalties, msg=lambda m: f"seed 0: {m}")


def test_threads_may_run_it_meanwhile() -> None:
    """Calls in two threads while a third accelerates and restores: each result is one of the two."""
    torch.manual_seed(0)
    module = nn.GRU(5, 8)
    x = torch.randn(4, 2, 5)
    with torch.no_grad():
        want = module(x)[0]
    stop, failures = threading.Event(), []

    def call() -> None:
        with torch.no_grad():
            while not stop.is_set():
                error = (module(x)[0] - want).abs().max().item()
                if not error < 1e-5:
                    failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        accelerate(module)
        restore(module)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, f"seed 0: {failures[0]}"


def test_odd_classes() -> None:
    """Slots, a metaclass, a class that refuses subclasses, and classes that come and go."""

    class Slots(nn.LSTM):
        __slots__ = ("extra",)

    class Meta(type):
        pass

    class WithMeta(nn.GRU, metaclass=Meta):
        pass

    class Final(nn.LSTM):
        def __init_subclass__(cls) -> None:
            raise TypeError("Final is final")

    for kind in (Slots, WithMeta):
        module = kind(5, 8)
        assert accelerate(module).done == 1
        module(torch.randn(4, 5))
        restore(module)
        assert type(module) is kind
    row = accelerate(Final(5, 8)).rows[0]
    assert not row.done
    assert row.reason == "its class does not allow it: Final is final"
    assert type(Final(5, 8)) is Final

    module = type("Passing", (nn.LSTM,), {})(5, 8)
    accelerate(module)
    reference = weakref.ref(type(module))
    del module
    gc.collect()
    assert reference() is None, "generated classes must not be kept alive"


def test_class_changed_since() -> None:
    module = nn.LSTM(5, 8)
    accelerate(module)
    module.__class__ = type("Wrapped", (type(module),), {})
    row = restore(module).rows[0]
    assert not row.done
    assert "its class was changed since" in row.reason


def test_packed_and_meta_and_share_memory() -> None:
    """to_empty, share_memory and .to() leave an accelerated module working."""
    module = nn.GRU(5, 8, device="meta")
    accelerate(module)
    assert module(torch.empty(4, 2, 5, device="meta"))[0].shape == (4, 2, 8)
    module.to_empty(device="cpu").reset_parameters()
    module.share_memory()
    assert module.weight_ih_l0.is_shared()
    theirs = copy.deepcopy(module)
    restore(theirs)
    assert_same(theirs, module, packed([3, 1, 2], 5))


def test_replicas_of_data_parallel() -> None:
    """What torch.nn.DataParallel makes of a module: a shallow copy with plain tensors for parameters."""
    module = nn.LSTM(5, 8)
    theirs = copy.deepcopy(module)
    accelerate(module)
    replica = module._replicate_for_data_parallel()
    for name, parameter in theirs.named_parameters():
        setattr(replica, name, 2 * parameter)
    x = torch.randn(4, 2, 5)
    unchanged = theirs(x)[0]
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(replica(x)[0], theirs(x)[0])
    torch.testing.assert_close(module(x)[0], unchanged)


def test_fallback_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no kernel is, torch's own implementation runs, accelerated or not."""
    module = nn.LSTM(5, 8)
    x = torch.randn(4, 2, 5)
    want = module(x)[0]
    accelerate(module)
    monkeypatch.setattr(functional.fallback, "why_no_kernel", lambda x: "no kernels in this test")
    with pytest.warns(UserWarning, match="no kernels in this test"):
        got = module(x)[0]
    assert torch.equal(got, want)
