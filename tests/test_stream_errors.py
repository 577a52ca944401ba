# SPDX-License-Identifier: Apache-2.0
"""rnnfast.Stream at the boundary: what it refuses, and that it says operation, argument, expected and got."""

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import rnnfast
from rnnfast import Stream

MODULE = rnnfast.LSTM(5, 8, 2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5), r"x: expected shape \[2, 5\] \(a step\) or \[T, 2, 5\] \(a chunk\), got \[5\]"),
        (torch.zeros(1, 1, 2, 5), "x: expected shape"),
        (torch.zeros(3, 5), r"x: expected batch_size=2 and 5 features, got shape \[3, 5\]"),
        (torch.zeros(2, 6), "x: expected batch_size=2 and 5 features"),
        (torch.zeros(0, 2, 5), "x: expected at least one time step"),
        (torch.zeros(2, 5, dtype=torch.float64), "x: expected dtype Float as the weights, got Double"),
        (torch.zeros(2, 5, device="meta"), "x: expected a dense CPU tensor"),
        (torch.zeros(2, 5).to_sparse(), "x: expected a dense CPU tensor"),
    ],
)
def test_inputs(x: Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"rnnfast.Stream: {message}"):
        Stream(MODULE, 2)(x)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.zeros(2, 7), r"out: expected a contiguous tensor of shape \[2, 8\], got shape \[2, 7\]"),
        (torch.zeros(1, 2, 8), "out: expected a contiguous tensor"),
        (torch.zeros(8, 2).t(), "out: expected a contiguous tensor"),
        (torch.zeros(2, 8, dtype=torch.float16), "out: expected dtype Float, got Half"),
        (torch.zeros(2, 8, device="meta"), "out: expected a dense CPU tensor"),
        (torch.zeros(2, 8, requires_grad=True), "out: expected a tensor that requires no gradient"),
    ],
)
def test_outs(out: Tensor, message: str) -> None:
    stream = Stream(MODULE, 2)
    with pytest.raises(RuntimeError, match=f"rnnfast.Stream: {message}"):
        stream(torch.zeros(2, 5), out=out)
    assert not stream.state_dict()["c"].any(), "the step was taken"


def test_out_must_not_be_x() -> None:
    memory = torch.zeros(16)
    with pytest.raises(RuntimeError, match="out: expected memory apart from that of x"):
        Stream(MODULE, 2)(memory[:10].view(2, 5), memory.view(2, 8))
    memory = torch.zeros(26)
    Stream(MODULE, 2)(memory[:10].view(2, 5), memory[10:].view(2, 8))


def test_arguments() -> None:
    stream = Stream(MODULE, 2)
    for args, options in (((), {}), ((1, 2, 3), {}), ((torch.zeros(2, 5),), {"other": 1})):
        with pytest.raises(TypeError):
            stream(*args, **options)
    with pytest.raises(TypeError, match="x: expected a tensor, got list"):
        stream([[0.0]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="out: expected a tensor, got int"):
        stream(torch.zeros(2, 5), 3)  # type: ignore[arg-type]
    assert stream(x=torch.zeros(2, 5), out=None).shape == (2, 8)


@pytest.mark.parametrize(
    ("module", "options", "kind", "message"),
    [
        (rnnfast.GRU(5, 8, bidirectional=True), {}, ValueError, "the reverse direction begins at the last step"),
        (nn.LSTM(5, 8, bidirectional=True), {}, ValueError, "unidirectional"),
        (MODULE, {"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        (MODULE, {"batch_size": 1.0}, TypeError, "batch_size: expected an int, got float"),
        (nn.Linear(2, 2), {}, TypeError, "module: expected an RNN, LSTM, GRU or cell"),
        (rnnfast.GRU(5, 8, device="meta"), {}, ValueError, "no rnnfast kernels for device meta"),
    ],
)
def test_modules(module: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=rf"rnnfast.Stream: .*{message}"):
        Stream(module, **options)


def test_states() -> None:
    stream = Stream(MODULE, 2)
    with pytest.raises(TypeError, match=r"state: expected a tuple \(h, c\) or None, got shape \[2, 2, 8\]"):
        stream.state = torch.zeros(2, 2, 8)
    with pytest.raises(RuntimeError, match=r"state: h: expected a tensor of shape \[2, 2, 8\], torch.float32; got"):
        stream.state = (torch.zeros(2, 1, 8), torch.zeros(2, 2, 8))
    with pytest.raises(RuntimeError, match="state: c: expected"):
        stream.state = (torch.zeros(2, 2, 8), torch.zeros(2, 2, 8, dtype=torch.int64))


def test_copies_are_refused() -> None:
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pickle its module and its state_dict"):
            copied(Stream(MODULE))


def test_tensors_without_values_are_refused() -> None:
    stream = Stream(MODULE, 2)
    with FakeTensorMode() as mode, pytest.raises(RuntimeError, match="not part of a transform"):
        stream(mode.from_tensor(torch.zeros(2, 5)))
    with pytest.raises(RuntimeError, match="not part of a transform"):
        torch.func.vmap(stream)(torch.zeros(3, 2, 5))
    with pytest.raises(RuntimeError, match="runs outside torch's graphs"):
        torch.jit.trace(lambda x: stream(x), (torch.zeros(2, 5),), check_trace=False)


def test_two_threads_in_one_stream() -> None:
    """The second is refused while the first is at work; neither crashes."""
    stream = Stream(rnnfast.LSTM(64, 256, 2))
    x = torch.zeros(3000, 1, 64)
    worker = threading.Thread(target=stream, args=(x,))

    def poke() -> None:
        while worker.is_alive():
            stream(x[0])

    worker.start()
    with pytest.raises(RuntimeError, match="at work in another thread"):
        poke()
    worker.join()
    stream(x[0])


def test_compiled_code_calls_a_stream_between_its_graphs() -> None:
    stream = Stream(MODULE, 2)

    @torch.compile(backend="eager")
    def call(x: Tensor) -> Tensor:
        return stream(x * 2) + 1

    x = torch.ones(2, 5)
    compiled = call(x)
    stream.reset()
    torch.testing.assert_close(compiled, stream(x * 2) + 1)
