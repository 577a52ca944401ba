# SPDX-License-Identifier: Apache-2.0
"""What training keeps between forward and backward: what the kernels save, and not a byte more.

Counted by autograd's own hooks on saved tensors, which see what the ops' C++ nodes save. Peak memory, workspace
included, is in the benchmark (benchmarks/memory.py).
"""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnnfast
from rnnfast.specs import CELLS, CellSpec

T, B, I, H = 7, 5, 6, 9
LENGTHS = (7, 7, 4, 2, 1)
WRONG = "rnnfast keeps for backward what need not be kept, or less than the contract says"


def make(spec: CellSpec, **options: Any) -> nn.Module:
    if spec.nonlinearity is not None:
        options["nonlinearity"] = spec.nonlinearity
    torch.manual_seed(0)
    module: nn.Module = getattr(rnnfast, spec.label)(I, H, **options)
    return module


def output(module: nn.Module, x: Tensor, packed: bool) -> Tensor:
    y = module(pack_padded_sequence(x, torch.tensor(LENGTHS)) if packed else x)[0]
    return y.data if isinstance(y, PackedSequence) else y


def storages(tensors: list[Tensor]) -> dict[int, int]:
    """Bytes of each storage behind the tensors."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}


def kept(spec: CellSpec, layers: int, directions: int, packed: bool, dtype: torch.dtype) -> tuple[int, int]:
    """(bytes that training keeps beyond input, weights and output; bytes that the contract allows)."""
    module = make(spec, num_layers=layers, bidirectional=directions == 2, dtype=dtype)
    x = torch.randn(T, B, I, dtype=dtype, requires_grad=True)
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = output(module, x, packed)
    found = storages([t for t in saved if t.is_floating_point()])
    pointers = storages([y]).keys()
    assert pointers <= found.keys(), "the hooks do not see the node's tensors: this test sees nothing"
    for pointer in storages([x, y, *module.parameters()]):
        found.pop(pointer, None)
    rows = sum(LENGTHS) if packed else T * B
    width = spec.saved * H + (H if spec.has_cell else 0)
    allowed = layers * directions * rows * width + (layers - 1) * rows * directions * H  # outputs between the layers
    if packed:
        allowed += rows * I  # x, packed
    return sum(found.values()), allowed * x.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("spec", CELLS.values(), ids=lambda spec: spec.name)
def test_saved_for_backward(spec: CellSpec, layers: int, directions: int, packed: bool, dtype: torch.dtype) -> None:
    found, allowed = kept(spec, layers, directions, packed, dtype)
    assert found == allowed, f"{WRONG}: {found} bytes, expected {allowed} (T, B, I, H = {T}, {B}, {I}, {H})"


@pytest.mark.parametrize("spec", CELLS.values(), ids=lambda spec: spec.name)
def test_backward_lets_go_of_what_was_saved(spec: CellSpec) -> None:
    """After a backward without retain_graph only the caller's references are left, even while the output lives."""

    class Box:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    module, x = make(spec, num_layers=2), torch.randn(T, B, I, requires_grad=True)
    boxes: list[weakref.ref[Box]] = []

    def pack(tensor: Tensor) -> Box:
        box = Box(tensor)
        boxes.append(weakref.ref(box))
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        y = output(module, x, False)
    assert boxes
    assert all(box() is not None for box in boxes)
    y.backward(torch.ones_like(y))
    gc.collect()
    alive = sum(box() is not None for box in boxes)
    assert alive == 0, f"{alive} of {len(boxes)} saved tensors outlive the backward pass"


@pytest.mark.parametrize("spec", CELLS.values(), ids=lambda spec: spec.name)
def test_nothing_is_saved_without_gradients(spec: CellSpec) -> None:
    module, x = make(spec), torch.randn(T, B, I)
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.no_grad():
            output(module, x, False)
        module.requires_grad_(False)
        output(module, x, False)
    assert not saved
