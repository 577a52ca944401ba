# SPDX-License-Identifier: Apache-2.0
"""rnnfast's modules beside torch.nn's: pairs with the same parameters, all results of a call, their comparison."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import rnnfast
from tests.helpers import assert_within_bound

LAYERS = ("RNN", "LSTM", "GRU")
CELLS = ("RNNCell", "LSTMCell", "GRUCell")
FIRST_WEIGHTS = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")  # those that x meets
Results = dict[str, Tensor]


def pair(name: str, *args: Any, seed: int = 0, **kwargs: Any) -> tuple[Any, Any]:
    """torch.nn's module and ours of the same seed."""
    torch.manual_seed(seed)
    theirs = getattr(nn, name)(*args, **kwargs)
    torch.manual_seed(seed)
    return theirs, getattr(rnnfast, name)(*args, **kwargs)


def state_of(module: Any, batch: int | None, dtype: torch.dtype = torch.float32, seed: int = 1) -> Any:
    """A random hx for a module or cell: batch None for unbatched input."""
    gen = torch.Generator().manual_seed(seed)
    rows = getattr(module, "num_layers", 1) * (2 if getattr(module, "bidirectional", False) else 1)
    middle = [] if batch is None else [batch]
    front = [rows] if hasattr(module, "num_layers") else []
    hidden = module.hidden_size
    sizes = [getattr(module, "proj_size", 0) or hidden, hidden][: 2 if "LSTM" in type(module).__name__ else 1]
    states = tuple(torch.randn(*front, *middle, s, generator=gen, dtype=torch.float64).to(dtype) for s in sizes)
    return states if len(states) == 2 else states[0]


def _map(function: Any, value: Any) -> Any:
    """function on every tensor of a nested structure."""
    if isinstance(value, PackedSequence):
        return PackedSequence(function(value.data), *value[1:])
    if isinstance(value, tuple | list):
        return tuple(_map(function, v) for v in value)
    return function(value) if isinstance(value, Tensor) else value


def flat(value: Any) -> list[Tensor]:
    """The tensors of a result: output, h_n, c_n (of a PackedSequence its data)."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, tuple | list):
        return [t for v in value for t in flat(v)]
    return [value]


def run(module: nn.Module, x: Any, hx: Any = None, seed: int = 5, **options: Any) -> Results:
    """Outputs and all gradients, for a loss that weighs every output; dropout's masks by the seed."""
    module.zero_grad()
    x, hx = (_map(lambda t: t.detach().clone(memory_format=torch.preserve_format).requires_grad_(), v) for v in (x, hx))
    torch.manual_seed(seed)
    outputs = flat(module(x, hx, **options) if hx is not None else module(x, **options))
    gen = torch.Generator().manual_seed(9)
    weights = [torch.randn(t.shape, generator=gen, dtype=torch.float64).to(t.dtype) for t in outputs]
    torch.autograd.backward(outputs, weights)
    results = dict(zip(("y", "h", "c"), outputs, strict=False))
    results |= {"grad x": x.data.grad if isinstance(x, PackedSequence) else x.grad}
    if hx is not None:
        results |= {f"grad hx[{i}]": t.grad for i, t in enumerate(flat(hx))}
    return results | {f"grad {n}": p.grad for n, p in module.named_parameters()}


def _with_features_reversed(module: nn.Module) -> nn.Module:
    """The same function of reversed input features: torch's error in another order of its sums."""
    other = copy.deepcopy(module)
    for name, parameter in other.named_parameters():
        if name in FIRST_WEIGHTS:
            parameter.data = parameter.data.flip(1)
    return other


def assert_same(theirs: nn.Module, ours: nn.Module, x: Any, hx: Any = None, seed: int = 5) -> None:
    """Results of both within the bound of docs/architecture.md, "Numbers"; the reference is torch's in float64."""
    exact = copy.deepcopy(theirs).double()
    reference = run(exact, _map(lambda t: t.double(), x), _map(lambda t: t.double(), hx), seed)
    got = run(ours, x, hx, seed)
    torchs = [run(theirs, x, hx, seed)]
    if flat(x)[0].dtype != torch.float64:
        flipped = run(_with_features_reversed(theirs), _map(lambda t: t.flip(-1), x), hx, seed)
        for name in {"grad x", *(f"grad {w}" for w in FIRST_WEIGHTS)} & flipped.keys():
            flipped[name] = flipped[name].flip(-1)
        torchs.append(flipped)
    assert torchs[0].keys() == got.keys()
    where = f"{ours}, seed {seed}"
    for name, tensor in got.items():
        assert tensor.shape == torchs[0][name].shape, f"{where}: {name}"
        assert tensor.dtype == torchs[0][name].dtype, f"{where}: {name}"
        assert_near(name, tensor, [t[name] for t in torchs], reference[name], where)


def assert_near(name: str, ours: Tensor, torchs: list[Tensor], reference: Tensor, where: str) -> None:
    """The bound; for float64, where the reference is torch itself, 64 eps max|reference| (both err, by some eps)."""
    if ours.dtype == torch.float64 and reference.numel():
        bound = 64 * torch.finfo(torch.float64).eps * reference.abs().max().item()
        where = f"{where}: {name}"
        torch.testing.assert_close(ours, reference, rtol=0, atol=bound, msg=lambda text: f"{where}: {text}")
    else:
        assert_within_bound(name, ours, torchs, reference.detach().numpy(), where)


def packed(lengths: list[int], features: int, dtype: torch.dtype = torch.float32, seed: int = 2) -> PackedSequence:
    """Random sequences of these lengths in one PackedSequence (sorted by torch where they are not)."""
    gen = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, features, generator=gen, dtype=torch.float64).to(dtype) for n in lengths]
    in_order = lengths == sorted(lengths, reverse=True)
    return nn.utils.rnn.pack_sequence(rows, enforce_sorted=in_order)
