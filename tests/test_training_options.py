# SPDX-License-Identifier: Apache-2.0
"""The modules' and functionals' options that control BPTT: forms, errors, copies, and that they act through a stack."""

import copy
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnnfast
from tests.torchs import flat, packed, pair, state_of

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = ("RNN", "LSTM", "GRU")
CELLS = ("RNNCell", "LSTMCell", "GRUCell")

BAD: list[tuple[str, Any, str]] = [
    ("bptt_clip", ("value", -1.0), r"expected None, \('value', c\) or \('norm', c\) with a positive finite number c"),
    ("bptt_clip", ("norm", 0), "positive finite number"),
    ("bptt_clip", ("norm", float("nan")), "positive finite number"),
    ("bptt_clip", ("norm", float("inf")), "positive finite number"),
    ("bptt_clip", ("norm", 10**400), "positive finite number"),
    ("bptt_clip", ("value", True), "positive finite number c, got \\('value', True\\)"),
    ("bptt_clip", ("length", 1.0), "'value'"),
    ("bptt_clip", 1.0, "'norm'"),
    ("bptt_clip", ("value",), "'norm'"),
    ("bptt_steps", 0, "expected None or a positive integer, got 0"),
    ("bptt_steps", -3, "positive integer"),
    ("bptt_steps", 2.0, "positive integer"),
    ("bptt_steps", True, "positive integer"),
    ("checkpoint_every", 0, "expected None, 'auto' or a positive integer, got 0"),
    ("checkpoint_every", "often", "'auto'"),
    ("nan_policy", "ignore", "expected 'propagate' or 'raise', got 'ignore'"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD, ids=str)
def test_bad_arguments(name: str, value: Any, message: str) -> None:
    for layer in LAYERS:
        with pytest.raises(ValueError, match=f"rnnfast.{layer}: {name}: .*{message}"):
            getattr(rnnfast, layer)(3, 4, **{name: value})
        module = getattr(rnnfast, layer)(3, 4)
        setattr(module, name, value)
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            module(torch.randn(2, 1, 3))
        function = getattr(rnnfast.functional, layer.lower())
        with pytest.raises(ValueError, match=f"rnnfast.functional.{layer.lower()}: {name}: .*{message}"):
            function(torch.randn(2, 1, 3), None, list(getattr(rnnfast, layer)(3, 4).parameters()), **{name: value})
    if name in ("bptt_clip", "nan_policy"):
        for cell in CELLS:
            with pytest.raises(ValueError, match=f"rnnfast.{cell}: {name}: .*{message}"):
                getattr(rnnfast, cell)(3, 4, **{name: value})


@pytest.mark.parametrize("limit", [1e-60, 1e-39, 1e39], ids=str)
@pytest.mark.parametrize("layer", [*LAYERS, *CELLS])
def test_limits_that_the_dtype_cannot_hold(layer: str, limit: float) -> None:
    """Rounded to float32 the first would be 0, and stop every signal. Half precision is computed in float32."""
    module = getattr(rnnfast, layer)(3, 4, bptt_clip=("norm", limit))
    x = torch.randn(2, 3) if layer in CELLS else torch.randn(5, 2, 3)
    for dtype in (torch.float32, torch.bfloat16):
        module.to(dtype)
        with pytest.raises(ValueError, match=r"a limit from 1.2e-38 to 3.4e\+38, which float32 can"):
            module(x.to(dtype))
    module.to(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="bptt_clip: .* float32"):
        module(x)
    module.double()
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which leaves float64 alone
        module(x.double())
    gradient = gradients(module, x.double())["weight_ih" if layer in CELLS else "weight_ih_l0"]
    assert bool((gradient != 0).any())
    module.bptt_clip = ("norm", 1e-310)
    with pytest.raises(ValueError, match=r"expected a limit from 2.2e-308 to 1.8e\+308, which float64 can hold"):
        module(x.double())
    if layer in LAYERS:
        function, weights = getattr(rnnfast.functional, layer.lower()), list(module.float().parameters())
        with pytest.raises(ValueError, match="which float32 can hold, got 1e-60"):
            function(x, None, weights, bptt_clip=("value", 1e-60))


@pytest.mark.parametrize("name", ["bptt_steps", "checkpoint_every"])
def test_cells_take_what_makes_sense_for_one_step(name: str) -> None:
    for cell in CELLS:
        with pytest.raises(TypeError, match=name):
            getattr(rnnfast, cell)(3, 4, **{name: 2})


@pytest.mark.parametrize("layer", LAYERS)
def test_options_are_keyword_only(layer: str) -> None:
    arguments = (3, 4, 1, *(("tanh",) if layer == "RNN" else ()), True, False, 0.0, False)
    arguments += ((0,) if layer == "LSTM" else ()) + (None, None)
    getattr(rnnfast, layer)(*arguments[: 7 if layer != "RNN" else 8])
    with pytest.raises(TypeError):
        getattr(rnnfast, layer)(*arguments, 0, ("norm", 1.0))


@pytest.mark.parametrize("layer", [*LAYERS, *CELLS])
def test_repr_copies_and_state_dict(layer: str) -> None:
    options: dict[str, Any] = {"bptt_clip": ("norm", 0.25), "nan_policy": "raise"}
    if layer in LAYERS:
        options |= {"bptt_steps": 7, "checkpoint_every": "auto"}
    torch.manual_seed(0)
    plain = getattr(rnnfast, layer)(3, 4)
    module = getattr(rnnfast, layer)(3, 4, **options)
    assert "bptt" not in repr(plain)
    assert "nan" not in repr(plain)
    for name, value in options.items():
        assert f"{name}={value!r}" in repr(module)
    assert list(module.state_dict()) == list(plain.state_dict())
    module.load_state_dict(plain.state_dict())
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert {name: getattr(other, name) for name in options} == options
        assert repr(other) == repr(module)
    assert not set(options) & set(plain.__dict__)  # as torch.nn's attributes, where none was given


def gradients(module: nn.Module, x: Any, hx: Any = None) -> dict[str, Tensor]:
    module.zero_grad()
    outputs = flat(module(x, hx))
    sum((t.square().sum() for t in outputs), outputs[0].new_zeros(())).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("form", ["dense", "batch_first", "unbatched", "packed"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_stack_is_its_layers(layer: str, form: str) -> None:
    """A module of two layers, both directions: as one-layer modules of the same options, one upon the other."""
    options: dict[str, Any] = {"bptt_clip": ("norm", 0.05), "bptt_steps": 2}
    both = {"bidirectional": True, "dtype": torch.float64}
    torch.manual_seed(1)
    stack = getattr(rnnfast, layer)(3, 5, num_layers=2, batch_first=form == "batch_first", **both, **options)
    free = getattr(rnnfast, layer)(3, 5, num_layers=2, batch_first=form == "batch_first", **both)
    free.load_state_dict(stack.state_dict())
    first = getattr(rnnfast, layer)(3, 5, batch_first=form == "batch_first", **both, **options)
    second = getattr(rnnfast, layer)(10, 5, batch_first=form == "batch_first", **both, **options)
    for name, p in stack.named_parameters():
        one = first if "_l0" in name else second
        getattr(one, name.replace("_l1", "_l0")).data.copy_(p)
    shape = {"dense": (6, 4, 3), "batch_first": (4, 6, 3), "unbatched": (6, 3)}.get(form)
    x: Any = packed([3, 6, 2, 6], 3, torch.float64) if shape is None else torch.randn(shape, dtype=torch.float64)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x: Any, hx: Any) -> Any:
            middle, state = self.first(x)
            y, above = self.second(middle)
            states = zip(*((state, above) if layer == "LSTM" else ((state,), (above,))), strict=True)
            return y, [torch.cat(s) for s in states]

    got, expected, without = gradients(stack, x), gradients(Two(), x), gradients(free, x)
    for name, grad in got.items():
        where = ("first." if "_l0" in name else "second.") + name.replace("_l1", "_l0")
        torch.testing.assert_close(grad, expected[where], rtol=1e-12, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")
        assert not torch.allclose(grad, without[name]), name


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("clip", [("value", 0.05), ("norm", 0.2)], ids=str)
def test_a_loop_of_cells_is_the_layer(cell: str, clip: tuple[str, float]) -> None:
    both = {"bptt_clip": clip, "dtype": torch.float64}
    torch.manual_seed(2)
    one, layer = getattr(rnnfast, cell)(3, 5, **both), getattr(rnnfast, cell[:-4])(3, 5, **both)
    for name, p in one.named_parameters():
        getattr(layer, f"{name}_l0").data.copy_(p)
    x = torch.randn(6, 4, 3, dtype=torch.float64)

    state, outputs = None, []
    for step in x:
        state = one(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    torch.stack(outputs).square().sum().backward()
    y, _ = layer(x)
    y.square().sum().backward()
    for name, p in one.named_parameters():
        torch.testing.assert_close(getattr(layer, f"{name}_l0").grad, p.grad, rtol=1e-12, atol=1e-13)


def test_functionals_are_the_modules() -> None:
    options: dict[str, Any] = {"bptt_clip": ("value", 0.02), "bptt_steps": 3}
    x = torch.randn(7, 2, 3)
    for layer in LAYERS:
        module = getattr(rnnfast, layer)(3, 5, num_layers=2, **options)
        expected = gradients(module, x)
        module.zero_grad()
        function = getattr(rnnfast.functional, layer.lower())
        outputs = flat(function(x, None, list(module.parameters()), num_layers=2, training=True, **options))
        sum(t.square().sum() for t in outputs).backward()
        for name, p in module.named_parameters():
            torch.testing.assert_close(p.grad, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("layer", LAYERS)
def test_without_options_nothing_changes(layer: str) -> None:
    theirs, ours = pair(layer, 3, 5, dtype=torch.float64)
    huge = copy.deepcopy(ours)
    huge.bptt_clip, huge.bptt_steps = ("norm", 1e9), 1000
    x, hx = torch.randn(6, 2, 3, dtype=torch.float64), state_of(ours, 2, torch.float64)
    expected = gradients(theirs, x, hx)
    for module in (ours, huge):
        for name, grad in gradients(module, x, hx).items():
            torch.testing.assert_close(grad, expected[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "LSTMCell"])
def test_compiled(layer: str) -> None:
    """One graph, with the options in it; a changed option is seen."""
    torch._dynamo.reset()
    module = getattr(rnnfast, layer)(3, 5, bptt_clip=("norm", 0.05))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 3) if layer.endswith("Cell") else torch.randn(6, 4, 3)

    def weight_gradient(run: Any) -> Tensor:
        module.zero_grad()
        flat(run(x))[0].square().sum().backward()
        return next(p.grad for p in module.parameters() if p.grad is not None)

    torch.testing.assert_close(weight_gradient(compiled), weight_gradient(module))
    before = weight_gradient(compiled)
    module.bptt_clip = None
    assert not torch.allclose(weight_gradient(compiled), before)
    torch.testing.assert_close(weight_gradient(compiled), weight_gradient(module))
    torch._dynamo.reset()


def test_autocast_takes_the_options() -> None:
    module = rnnfast.GRU(3, 5, bptt_clip=("norm", 0.02))
    free = copy.deepcopy(module)
    free.bptt_clip = None
    x = torch.randn(6, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        limited, expected = gradients(module, x), gradients(free, x)
    assert not torch.allclose(limited["weight_hh_l0"], expected["weight_hh_l0"])
    assert float(limited["weight_hh_l0"].norm()) < float(expected["weight_hh_l0"].norm())


def test_explain_tells_the_options() -> None:
    module = rnnfast.LSTM(3, 5, bptt_clip=("norm", 0.5), bptt_steps=9, checkpoint_every="auto", nan_policy="raise")
    text = str(rnnfast.explain(module, torch.randn(6, 4, 3)))
    for name in ("bptt_clip", "limited to 0.5", "bptt_steps", "every 9 steps", "checkpoint_every", "nan_policy"):
        assert name in text
    assert "bptt" not in str(rnnfast.explain(rnnfast.LSTM(3, 5), torch.randn(6, 4, 3)))


def test_where_there_is_no_kernel_the_options_are_refused() -> None:
    x = torch.randn(2, 1, 3, dtype=torch.complex64)
    for options, name in (({"bptt_clip": ("norm", 1.0)}, "bptt_clip"), ({"nan_policy": "raise"}, "nan_policy")):
        module = rnnfast.RNN(3, 4, dtype=torch.complex64, **options)
        with pytest.raises(NotImplementedError, match=f"{name}: expected an input that has kernels"):
            module(x)


def test_torch_script_refuses_what_torch_cannot_do() -> None:
    with pytest.raises(RuntimeError, match=re.escape("it controls BPTT or records it (bptt_clip)")):
        torch.jit.script(rnnfast.GRU(3, 4, bptt_clip=("norm", 1.0)))
