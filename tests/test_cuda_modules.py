# SPDX-License-Identifier: Apache-2.0
"""What torch asks of the layers on a GPU: modules, packed input, autocast, double backward, graphs, streams, compile.

The numbers are tests/test_cuda.py's; here results in float64 are the CPU's. What a CPU can run of it is run there too,
so that the tests themselves have run where there is no GPU.
"""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import rnnfast
from tests.cuda_devices import HERE, MODULE_DEVICES

LAYERS = ("LSTM", "GRU", "RNN")
CUDA_ONLY = pytest.mark.skipif(not HERE, reason="no CUDA device, or no kernels for it")


@pytest.fixture(autouse=True)
def no_fallback() -> Iterator[None]:
    """torch's own layers would pass, too: they warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="rnnfast: ")
        yield


def layer_of(name: str, device: str, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    torch.manual_seed(3)
    return getattr(rnnfast, name)(5, 7, **options).to(device, dtype)


def draw(*sizes: int, device: str = "cpu", dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(4)).to(device, dtype)


def run(layer: Any, x: Tensor, lengths: list[int] | None) -> list[Tensor]:
    """y, the last states, and the gradients of x and of every weight, on the CPU."""
    x = x.clone().requires_grad_()
    packed = x if lengths is None else pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, state = layer(packed)
    results = [y if lengths is None else y.data, *(state if isinstance(state, tuple) else (state,))]
    loss = sum((t * torch.arange(1.0, t.numel() + 1, device=t.device).view_as(t)).sum() for t in results)
    grads = torch.autograd.grad(loss / 100, [x, *layer.parameters()])
    return [t.detach().cpu() for t in (*results, *grads)]


@pytest.mark.parametrize("device", MODULE_DEVICES)
@pytest.mark.parametrize("lengths", [None, [3, 6, 1, 4]], ids=["dense", "packed"])
@pytest.mark.parametrize("name", LAYERS)
def test_modules(name: str, lengths: list[int] | None, device: str) -> None:
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    x = draw(4, 6, 5)
    expected = run(layer_of(name, "cpu", **options), x, lengths)
    layer = layer_of(name, device, **options)
    for found in (run(layer, x.to(device), lengths), on_another_stream(layer, x.to(device), lengths)):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12, msg=lambda text, i=i: f"tensor {i}: {text}")


def on_another_stream(layer: Any, x: Tensor, lengths: list[int] | None) -> list[Tensor]:
    if not x.is_cuda:
        return run(layer, x, lengths)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(100_000_000)  # tens of milliseconds: whatever runs on another stream sees zeros
        late.copy_(x)
        found = run(layer, late, lengths)
    torch.cuda.current_stream().wait_stream(stream)
    return found


@pytest.mark.parametrize("device", MODULE_DEVICES)
@pytest.mark.parametrize("name", LAYERS)
def test_cells(name: str, device: str) -> None:
    cell, x = layer_of(f"{name}Cell", "cpu"), draw(3, 5)
    expected = cell(x)
    found = copy.deepcopy(cell).to(device)(x.to(device))
    for a, b in zip(found, expected, strict=True) if name == "LSTM" else [(found, expected)]:
        torch.testing.assert_close(a.cpu(), b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("device", MODULE_DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name: str, dtype: torch.dtype, device: str) -> None:
    layer, x = layer_of(name, device, torch.float32), draw(4, 9, 5, device=device, dtype=torch.float32)
    with torch.autocast(device, dtype):
        y = layer(x)[0]
        y.float().square().sum().backward()
    assert y.dtype == (dtype if device == "cuda" or name != "GRU" else torch.float32), "torch's own rule"
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())
    torch.testing.assert_close(y.float(), layer(x)[0], rtol=0, atol=0.03)


@pytest.mark.parametrize("device", MODULE_DEVICES)
@pytest.mark.parametrize("name", LAYERS)
def test_double_backward(name: str, device: str) -> None:
    """Of x, the initial states and the weights; both directions, packed."""
    layer = layer_of(name, device, bidirectional=True)
    states = [draw(2, 2, layer.hidden_size, device=device).requires_grad_() for _ in range(1 + (name == "LSTM"))]
    x = draw(3, 2, 5, device=device).requires_grad_()
    names, weights = zip(*layer.named_parameters(), strict=True)

    def of_all(x: Tensor, *rest: Tensor) -> list[Tensor]:
        hx, w = rest[: len(states)], dict(zip(names, rest[len(states) :], strict=True))
        given = (pack_padded_sequence(x, torch.tensor([3, 2])), hx if name == "LSTM" else hx[0])
        y, state = torch.func.functional_call(layer, w, given)
        return [y.data, *(state if name == "LSTM" else [state])]

    assert torch.autograd.gradgradcheck(of_all, [x, *states, *weights], fast_mode=True)


@pytest.mark.parametrize("device", MODULE_DEVICES)
@pytest.mark.parametrize("name", LAYERS)
def test_compiled(name: str, device: str) -> None:
    layer, x = layer_of(name, device), draw(4, 3, 5, device=device).requires_grad_()
    compiled = torch.compile(lambda t: layer(t)[0], backend="aot_eager", fullgraph=True)
    y, expected = compiled(x), layer(x)[0]
    assert torch.equal(y, expected)
    assert torch.equal(*(torch.autograd.grad(t.sum(), x)[0] for t in (y, expected)))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", LAYERS)
def test_on_a_device_that_is_not_current(name: str) -> None:
    layer, x = layer_of(name, "cpu"), draw(4, 3, 5)
    there = copy.deepcopy(layer).to("cuda:1")
    assert torch.cuda.current_device() == 0
    for a, b in zip(run(there, x.to("cuda:1"), None), run(layer, x, None), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    assert torch.cuda.current_device() == 0


@CUDA_ONLY
@pytest.mark.parametrize("path", ["step", "persistent"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_graph_takes_new_inputs(name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training step, captured once, replayed with other inputs: the results of a call with those."""
    monkeypatch.setenv("RNNFAST_CUDA_PATH", path)
    layer = layer_of(name, "cuda", bidirectional=True)
    first, second = draw(6, 3, 5, device="cuda"), draw(2, 6, 3, 5, device="cuda")[1]

    def step(x: Tensor) -> list[Tensor]:
        y = layer(x)[0]
        return [y, *torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()])]

    x = first.clone().requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step(x)
    for value in (second, first):
        with torch.no_grad():
            x.copy_(value)
        graph.replay()
        for i, (a, b) in enumerate(zip(results, step(value.clone().requires_grad_()), strict=True)):
            assert torch.equal(a, b), f"{name}, {path} path: tensor {i}"
