# SPDX-License-Identifier: Apache-2.0
"""Which backward pass gradient_flow shows, and the life of its blocks: nested, in threads, after errors, compiled."""

import threading

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import rnnfast
from rnnfast import _C
from rnnfast.diagnostics import gradient_flow
from tests.test_gradient_flow import Writer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_only_of_the_newest_pass() -> None:
    """Layers that it does not reach show nothing of the passes before."""
    torch.manual_seed(0)
    module = rnnfast.GRU(3, 5, num_layers=2)
    upper = [p for name, p in module.named_parameters() if "_l1" in name]
    x = torch.randn(7, 4, 3)
    with gradient_flow(module) as flow:
        module(x)[0].sum().backward()
        assert flow.reached == [True, True]
        for steps in (7, 4):  # of one length with the pass before, and of another
            torch.autograd.grad(module(x[:steps])[0].sum(), upper)
            assert flow.reached == [False, True]
            for shown in (flow.dh, flow.dc_max, flow.clipped, flow.saturated):
                assert shown.shape == (2, 1, steps)
                assert bool(torch.isnan(shown[0]).all())
                assert bool(torch.isfinite(shown[1]).all())
            assert flow.summary().startswith("layer 0: no backward pass\nlayer 1: ")
            writer = Writer()
            flow.log(writer, 3)
            assert len(writer.logged) == 4
            assert all("layer_1" in tag for tag in writer.logged)
        module(x)[0].sum().backward()
        assert flow.reached == [True, True]
    assert flow.reached == [True, True]


def test_of_two_calls_in_one_pass_the_first() -> None:
    torch.manual_seed(0)
    module = rnnfast.LSTM(3, 5, num_layers=2)
    x = torch.randn(7, 4, 3)
    with gradient_flow(module) as alone:
        module(x)[0].sum().backward()
    with gradient_flow(module) as flow:
        (module(x)[0].sum() + module(x[:4])[0].sum()).backward()
        assert [layer for layer, _ in _C.recorded(module._recorder)] == [1, 0]
    assert flow.reached == [True, True]
    assert torch.equal(flow.dh, alone.dh)


def test_a_pass_within_a_pass_is_the_newer_one() -> None:
    """As in two threads at once: what the older one reaches after that does not mix with it."""
    torch.manual_seed(0)
    module = rnnfast.GRU(3, 5, num_layers=2)
    x = torch.randn(7, 4, 3)
    with gradient_flow(module) as alone:
        module(x[:4])[0].sum().backward()
    runs = []

    def inner(_: Tensor) -> None:  # between the layers of the outer pass
        if not runs:
            runs.append(module(x[:4])[0].sum())
            with torch.enable_grad():
                module(x[:4])[0].sum().backward()

    hook = module.weight_hh_l1.register_hook(inner)
    with gradient_flow(module) as flow:
        module(x)[0].sum().backward()
    hook.remove()
    assert runs
    assert flow.reached == [True, True]
    assert torch.equal(flow.dh, alone.dh)


def test_blocks_in_threads_may_end_in_any_order() -> None:
    module = rnnfast.RNN(3, 5)
    x = torch.randn(7, 4, 3)
    first, second = gradient_flow(module), gradient_flow(module)
    first.__enter__()
    second.__enter__()
    first.__exit__()
    module(x)[0].sum().backward()
    second.__exit__()
    assert second.dh.shape == (1, 1, 7)
    assert "_recorder" not in module.__dict__


def test_threads_at_once() -> None:
    torch.manual_seed(0)
    module = rnnfast.GRU(3, 5, num_layers=3)
    lengths = (3, 5, 8)

    def train(steps: int) -> None:
        for _ in range(10):
            module(torch.randn(steps, 4, 3))[0].sum().backward()

    with gradient_flow(module) as flow:
        workers = [threading.Thread(target=train, args=(steps,)) for steps in lengths]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert flow.reached == [True] * 3
    assert flow.dh.shape[2] in lengths


def test_an_exception_ends_the_block() -> None:
    """The recorder is gone, and what it held; the next block knows nothing of it, nor of a pass in between."""
    module = rnnfast.RNN(3, 5)
    x = torch.randn(7, 4, 3)
    flow = gradient_flow(module)
    late, numbers = [], []

    def fail() -> None:
        with flow:
            numbers.append(module._recorder)
            late.append(module(x)[0].sum())
            module(x)[0].sum().backward()
            assert len(_C.recorded(module._recorder)) == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    (number,) = numbers
    assert "_recorder" not in module.__dict__
    assert _C.recorded(number) == []
    late[0].backward()
    assert _C.recorded(number) == []
    with gradient_flow(module) as other:
        assert module._recorder == number
        with pytest.raises(RuntimeError, match="nothing is recorded yet"):
            other.summary()
        module(x[:2])[0].sum().backward()
        assert flow.dh.shape == (1, 1, 7)  # its own still
    assert other.dh.shape == (1, 1, 2)


def test_one_pass_is_kept() -> None:
    module = rnnfast.GRU(3, 5, num_layers=2)
    x = torch.randn(7, 4, 3)
    with gradient_flow(module):
        for _ in range(3):
            module(x)[0].sum().backward()
        assert [layer for layer, _ in _C.recorded(module._recorder)] == [1, 0]


def test_recorders_are_opened_once() -> None:
    number = _C.open_recorder()
    for again in (number, number + 1000, -1):
        with pytest.raises(RuntimeError, match=f"again: expected 0, or the number of a closed recorder, got {again}"):
            _C.open_recorder(again)
    _C.close_recorder(number)
    assert _C.open_recorder(number) == number
    _C.close_recorder(number)


def test_nested_and_in_a_thread() -> None:
    module = rnnfast.RNN(3, 5)
    x = torch.randn(7, 4, 3)
    with gradient_flow(module) as outer:
        with gradient_flow(module) as inner:
            worker = threading.Thread(target=lambda: module(x)[0].sum().backward())
            worker.start()
            worker.join()
        module(x[:3])[0].sum().backward()
    assert inner.dh.shape == (1, 1, 7)
    assert outer.dh.shape == (1, 1, 3)


def test_compiled_modules_record() -> None:
    torch._dynamo.reset()
    module = rnnfast.GRU(3, 5, num_layers=2)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(7, 4, 3)
    compiled(x)[0].sum().backward()
    with gradient_flow(module) as flow:
        compiled(x)[0].sum().backward()
    with gradient_flow(module) as eager:
        module(x)[0].sum().backward()
    assert torch.equal(flow.dh, eager.dh)
    torch._dynamo.reset()


def test_a_second_use_compiles_nothing() -> None:
    """One graph without recording, one with it (a pass forward, one back); one more within another block."""
    torch._dynamo.reset()
    module = rnnfast.GRU(3, 5, num_layers=2)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(7, 4, 3)
    counters.clear()
    graphs = []
    for _ in range(3):
        compiled(x)[0].sum().backward()
        with gradient_flow(module) as flow:
            compiled(x)[0].sum().backward()
        assert flow.reached == [True, True]
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [2, 2, 2]
    for _ in range(2):
        with gradient_flow(module) as outer, gradient_flow(module) as inner:
            compiled(x)[0].sum().backward()
        assert inner.reached == [True, True]
        with pytest.raises(RuntimeError, match="nothing is recorded yet"):
            outer.summary()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[3:] == [3, 3]
    torch._dynamo.reset()


def test_vmap_is_refused() -> None:
    module = rnnfast.RNN(3, 5)
    with gradient_flow(module), pytest.raises(NotImplementedError, match="no vmap"):
        torch.func.vmap(torch.func.grad(lambda x: module(x)[0].sum()))(torch.randn(2, 7, 4, 3))


def test_forward_mode_over_a_recorded_pass_is_refused() -> None:
    module = rnnfast.RNN(3, 5)
    x = torch.randn(7, 4, 3)
    with gradient_flow(module), pytest.raises(NotImplementedError, match="gradient_flow: expected no forward-mode"):
        torch.func.jvp(torch.func.grad(lambda x: module(x)[0].sum()), (x,), (x,))
