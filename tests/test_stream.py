# SPDX-License-Identifier: Apache-2.0
"""rnnfast.Stream: what the module gives on the whole sequence, one step or one chunk at a time."""

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnnfast
from rnnfast import Stream
from tests.helpers import ISAS, assert_bitwise_equal, assert_within_bound, machine
from tests.torchs import flat, state_of

T = 9
LAYERS = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 3})]
CELLS = ["RNNCell", "LSTMCell", "GRUCell"]


def make(kind: str, *args: Any, source: Any = rnnfast, **options: Any) -> Any:
    torch.manual_seed(1)
    return getattr(source, kind)(*args, **options).eval()


def whole(module: nn.Module, x: Tensor, hx: Any = None) -> list[Tensor]:
    """y, h_n, c_n of the whole sequence at once."""
    with torch.no_grad():
        return [t.detach() for t in flat(module(x, hx))]


def assert_as_whole(module: Any, x: Tensor, y: Tensor, state: Any, hx: Any = None) -> None:
    """Results of a stream over x, against the module on torch's float64; the yardstick is torch's own float32."""
    twin = copy.deepcopy(module)
    if module.__module__.startswith("rnnfast"):
        options = {
            k: getattr(module, k) for k in ("num_layers", "bias", "proj_size", "nonlinearity") if k in vars(module)
        }
        options = {k: v for k, v in options.items() if k != "proj_size" or v}
        twin = getattr(nn, type(module).__name__)(module.input_size, module.hidden_size, **options)
        twin.load_state_dict(module.state_dict())
    theirs = whole(twin.float(), x.float(), hx)
    double = tuple(t.double() for t in hx) if isinstance(hx, tuple) else None if hx is None else hx.double()
    exact = whole(twin.double(), x.double(), double)
    for name, ours, torchs, reference in zip(("y", "h", "c"), [y, *flat(state)], theirs, exact, strict=False):
        assert_within_bound(name, ours, [torchs], reference.numpy(), f"{module}, seed 1")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_steps_and_chunks_give_the_whole_sequence(
    kind: str, options: dict[str, Any], batch: int, threads: int, isa: str
) -> None:
    module = make(kind, 6, 37, num_layers=2, **options)
    x = torch.randn(T, batch, 6)
    with machine(isa, threads):
        stream = Stream(module, batch)
        assert_as_whole(module, x, torch.stack([stream(row) for row in x]), stream.state)
        stream.reset()
        parts = [stream(x[:1]), stream(x[1:4]), stream(x[4])[None], stream(x[5:])]
        assert_as_whole(module, x, torch.cat(parts), stream.state)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_large_steps_and_long_chunks(kind: str, threads: int) -> None:
    """Beyond the serial limit, and long enough for chunks and the wavefront."""
    module = make(kind, 100, 190, num_layers=2)
    x = torch.randn(150, 1, 100)
    with machine("", threads):
        stream = Stream(module)
        y = torch.cat([torch.stack([stream(row) for row in x[:20]]), stream(x[20:])])
    assert_as_whole(module, x, y, stream.state)


@pytest.mark.parametrize("source", [rnnfast, nn])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind: str, bias: bool, source: Any) -> None:
    cell = make(kind, 5, 17, bias, source=source)
    stream = Stream(cell, 3)
    hx, x = None, torch.randn(T, 3, 5)
    for row in x:
        with torch.no_grad():
            hx = cell(row, hx)
        torch.testing.assert_close(stream(row), flat(hx)[0])
    for ours, want in zip(flat(stream.state), flat(hx), strict=True):
        torch.testing.assert_close(ours, want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    module = make("LSTM", 5, 17, num_layers=2, dtype=dtype)
    stream, x = Stream(module, 2), torch.randn(T, 2, 5, dtype=dtype)
    y = torch.cat([stream(x[:3]), stream(x[3])[None], stream(x[4:])])
    exact = whole(copy.deepcopy(module).double(), x.double())
    for got, theirs, reference in zip([y, *flat(stream.state)], whole(module, x), exact, strict=True):
        assert got.dtype == dtype
        assert_within_bound("result", got, [theirs], reference.numpy(), "seed 1")
    out = torch.empty(2, 17, dtype=dtype)
    assert stream(x[0], out) is out
    assert stream.state_dict()["h"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_batch_first_and_dropout_are_ignored_and_accelerated_modules_taken() -> None:
    module = make("LSTM", 5, 8, num_layers=2, batch_first=True, dropout=0.9, source=nn)
    x = torch.randn(T, 2, 5)
    want = whole(module, x.transpose(0, 1))[0].transpose(0, 1)
    torch.testing.assert_close(Stream(module.train(), 2)(x), want)
    rnnfast.accelerate(nn.ModuleDict({"m": module}))
    torch.testing.assert_close(Stream(module, 2)(x), want)


def test_inputs_of_any_strides() -> None:
    module = make("GRU", 5, 8, num_layers=2)
    x = torch.randn(2, 5, T)
    stream = Stream(module, 2)
    want = stream(x.permute(2, 0, 1).contiguous())
    stream.reset()
    torch.testing.assert_close(stream(x.permute(2, 0, 1)), want)
    stream.reset()
    step = torch.stack([stream(row) for row in x.permute(2, 0, 1)])
    torch.testing.assert_close(step, want)
    stream.reset()
    assert_bitwise_equal("y", stream(torch.randn(1, 5).expand(2, 5))[0], stream.state[1, 0])


def test_out_takes_the_result_and_nothing_is_allocated() -> None:
    module = make("LSTM", 5, 8, num_layers=2)
    stream, other = Stream(module, 2), Stream(module, 2)
    x, out = torch.randn(T, 2, 5), torch.full((T, 2, 8), float("nan"))
    assert stream(x, out=out) is out
    assert_bitwise_equal("chunk", out, other(x))
    version = out._version
    step, rows = torch.empty(2, 8), list(x)
    with torch.profiler.profile(profile_memory=True) as seen:
        for row in rows:
            stream(row, step)
    grown = [e for e in seen.events() if e.cpu_memory_usage > 0 or e.name.startswith("aten::")]
    assert not grown, grown
    with torch.profiler.profile(profile_memory=True) as seen:
        for row in rows:
            want = other(row)
    assert [e for e in seen.events() if e.cpu_memory_usage > 0], "the profiler sees no allocation: this proves nothing"
    assert_bitwise_equal("step", step, want)
    stream(x, out)
    assert out._version > version


def test_results_stand_outside_autograd_and_do_not_change_later() -> None:
    stream, x = Stream(make("GRU", 5, 8)), torch.randn(1, 5, requires_grad=True)
    first = stream(x)
    before = first.clone()
    second = stream(x)
    assert not first.requires_grad
    assert_bitwise_equal("first", first, before)
    assert not torch.equal(first, second)
    with torch.inference_mode():
        assert stream(x).is_inference()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "LSTMCell", "RNNCell"])
def test_state_is_torchs_and_can_be_set(kind: str) -> None:
    module = make(kind, 5, 8, **({"num_layers": 2} if "Cell" not in kind else {}))
    hx = state_of(module, 3)
    stream, x = Stream(module, 3), torch.randn(3, 5)
    stream.state = hx
    for ours, given in zip(flat(stream.state), flat(hx), strict=True):
        assert_bitwise_equal("state", ours, given)
    taken = stream.state
    with torch.no_grad():
        want = flat(module(x if "Cell" in kind else x[None], hx))[0]
    torch.testing.assert_close(stream(x), want if "Cell" in kind else want[0])
    for ours, given in zip(flat(taken), flat(hx), strict=True):
        assert_bitwise_equal("a copy, which the next step leaves alone", ours, given)
    stream.state = None
    assert all(not s.any() for s in flat(stream.state))


def test_reset_of_some_rows() -> None:
    stream = Stream(make("LSTM", 5, 8, num_layers=2), 4)
    stream(torch.randn(4, 5))
    for rows, zero in (
        (1, [1]),
        ([0, 3], [0, 3]),
        (torch.tensor([False, False, True, False]), [2]),
        (torch.tensor([-1]), [3]),
        ([], []),
    ):
        stream.state = state_of(make("LSTM", 5, 8, num_layers=2), 4)
        stream.reset(rows)
        for state in flat(stream.state):
            assert [b for b in range(4) if not state[:, b].any()] == zero
    with pytest.raises(IndexError, match=r"rows: expected a mask \[4\]"):
        stream.reset(torch.tensor([True]))
    with pytest.raises(IndexError):
        stream.reset(4)


def test_state_dict_continues_where_it_was() -> None:
    module = make("LSTM", 5, 8, num_layers=2)
    stream, other, x = Stream(module, 2), Stream(module, 2), torch.randn(2, 5)
    stream(x)
    saved = stream.state_dict()
    want = stream(x)
    other.load_state_dict(saved)
    assert_bitwise_equal("y", other(x), want)
    with pytest.raises(KeyError, match="expected the keys"):
        other.load_state_dict({"h": saved["h"]})
    before = other.state_dict()
    with pytest.raises(RuntimeError, match=r"c: expected a tensor of shape \[2, 2, 8\]"):
        other.load_state_dict({"h": saved["h"], "c": saved["c"][:1]})
    assert_bitwise_equal("h", other.state_dict()["h"], before["h"])


def test_weights_are_a_snapshot_until_refresh() -> None:
    module = make("GRU", 5, 8)
    stream, x = Stream(module), torch.randn(1, 5)
    before = stream(x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    stream.reset()
    assert_bitwise_equal("y", stream(x), before)
    stream.reset()
    stream.refresh()
    torch.testing.assert_close(stream(x), whole(module, x[None])[0][0])
    module.double()
    with pytest.raises(ValueError, match="refresh: expected a module of the sizes and dtype"):
        stream.refresh()


def test_several_streams_in_several_threads() -> None:
    module = make("LSTM", 40, 150, num_layers=2)
    x = torch.randn(4, 60, 1, 40)
    want = [Stream(module)(rows) for rows in x]
    results: dict[int, Tensor] = {}

    def run(index: int) -> None:
        stream = Stream(module)
        results[index] = torch.cat([torch.stack([stream(row) for row in x[index, :30]]), stream(x[index, 30:])])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        torch.testing.assert_close(results[index], want[index])
