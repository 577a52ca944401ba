# SPDX-License-Identifier: Apache-2.0
"""Bad input to the raw ops: a clear exception with operation, argument, expected and got; never a crash."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rnnfast.ops import LAYERS, LAYERS_BACKWARD
from tests.arguments import arguments
from tests.cases import CELLS, WITH_CELL_STATE

Change = Callable[[dict[str, Any]], None]

DISPATCHER = "torch's dispatcher"  # refuses layouts that no kernel has been registered for, before our checks

NAMES = ("x", "h0", "c0", "weights", "batch_sizes", "has_biases", "bidirectional")


def good(cell: str, **options: Any) -> dict[str, Any]:
    return dict(zip(NAMES, arguments(cell, grad=False, **options).op, strict=True))


def arg(name: str, change: Callable[[Any], Any]) -> Change:
    def apply(args: dict[str, Any]) -> None:
        args[name] = change(args[name])

    return apply


def weight(i: int, change: Callable[[Any], Any]) -> Change:
    def apply(args: dict[str, Any]) -> None:
        args["weights"][i] = change(args["weights"][i])

    return apply


def sizes(*values: int) -> Change:
    return arg("batch_sizes", lambda _: torch.tensor(values, dtype=torch.int64))


DENSE: dict[str, tuple[Change, str]] = {
    "x rank 2": (arg("x", lambda x: x[0]), "x"),
    "x rank 4": (arg("x", lambda x: x[None]), "x"),
    "x scalar": (arg("x", lambda x: x[0, 0, 0]), "x"),
    "x no steps": (arg("x", lambda x: x[:0]), "x"),
    "x no features": (arg("x", lambda x: x[..., :0]), "x"),
    "x other features": (arg("x", lambda x: x[..., :2]), "x"),
    "x integer": (arg("x", torch.Tensor.int), "x"),
    "x complex": (arg("x", lambda x: x + 0j), "x"),
    "x sparse": (arg("x", torch.Tensor.to_sparse), DISPATCHER),
    "x other dtype": (arg("x", torch.Tensor.float), "weights"),
    "x half": (arg("x", torch.Tensor.half), "weights"),
    "x mkldnn": (arg("x", lambda x: x.float().to_mkldnn()), DISPATCHER),
    "h0 rank": (arg("h0", lambda h: h[0]), "h0"),
    "h0 batch": (arg("h0", lambda h: h.repeat(1, 2, 1)), "h0"),
    "h0 features": (arg("h0", lambda h: h[..., :1]), "h0"),
    "h0 dtype": (arg("h0", torch.Tensor.float), "h0"),
    "h0 directions": (arg("h0", lambda h: h.repeat(2, 1, 1)), "h0"),
    "h0 sparse": (arg("h0", torch.Tensor.to_sparse), DISPATCHER),
    "one weight missing": (arg("weights", lambda w: w[:3]), "weights"),
    "one weight too many": (arg("weights", lambda w: [*w, w[1], w[1]]), "weights"),
    "no weights": (arg("weights", lambda w: []), "weights"),
    "weights without biases": (arg("has_biases", lambda _: False), "weights"),
    "one direction's weights": (arg("bidirectional", lambda _: True), "weights"),
    "w_ih features": (weight(0, lambda w: w[:, :2]), "x"),
    "w_ih transposed": (weight(0, lambda w: w.t().contiguous()[:, :2]), "weights[0] (w_ih)"),
    "w_ih rank": (weight(0, lambda w: w[0]), "weights[0] (w_ih)"),
    "w_ih empty": (weight(0, lambda w: w[:, :0]), "weights[0] (w_ih)"),
    "w_ih sparse": (weight(0, torch.Tensor.to_sparse), DISPATCHER),
    "w_hh rank": (weight(1, lambda w: w[0]), "weights[1] (w_hh)"),
    "w_hh not G*H": (weight(1, lambda w: w.repeat(2, 1)[:-1]), "weights[1] (w_hh)"),
    "w_hh empty": (weight(1, lambda w: w[:0, :0]), "weights[1] (w_hh)"),
    "w_hh dtype": (weight(1, torch.Tensor.float), "weights[1] (w_hh)"),
    "b_ih size": (weight(2, lambda b: b[:1]), "weights[2] (b_ih)"),
    "b_ih dtype": (weight(2, torch.Tensor.half), "weights[2] (b_ih)"),
    "b_hh rank": (weight(3, lambda b: b[None]), "weights[3] (b_hh)"),
    "batch_sizes with a dense x": (sizes(2, 2, 2), "x"),
}

PACKED: dict[str, tuple[Change, str]] = {
    "x dense": (arg("x", lambda x: x[:, None]), "x"),
    "sizes rank": (arg("batch_sizes", lambda s: s[None]), "batch_sizes"),
    "sizes empty": (arg("batch_sizes", lambda s: s[:0]), "batch_sizes"),
    "sizes int32": (arg("batch_sizes", torch.Tensor.int), "batch_sizes"),
    "sizes float": (arg("batch_sizes", torch.Tensor.float), "batch_sizes"),
    "sizes increase": (sizes(3, 1, 3), "batch_sizes"),
    "sizes zero": (sizes(3, 3, 1, 0), "batch_sizes"),
    "sizes negative": (sizes(3, 3, 3, -2), "batch_sizes"),
    "sizes sum too small": (sizes(3, 3), "batch_sizes"),
    "sizes sum too large": (sizes(3, 3, 3), "batch_sizes"),
    "sizes overflow": (sizes(2**62, 2**62, 2**62), "batch_sizes"),
    "h0 batch": (arg("h0", lambda h: h[:, :1]), "h0"),
}

WITH_C: dict[str, tuple[Change, str]] = {
    "c0 batch": (arg("c0", lambda c: c[:, :1]), "c0"),
    "c0 integer": (arg("c0", torch.Tensor.long), "c0"),
    "c0 dtype": (arg("c0", torch.Tensor.float), "c0"),
}

PROJECTED: dict[str, tuple[Change, str]] = {
    "h0 of H": (arg("h0", lambda h: h.repeat(1, 1, 2)), "h0"),
    "c0 of P": (arg("c0", lambda c: c[..., :1]), "c0"),
    "w_hr transposed": (weight(4, lambda w: w.t().contiguous()), "weights[4] (w_hr)"),
    "w_hr rank": (weight(4, lambda w: w[0]), "weights[4] (w_hr)"),
    "w_hr dtype": (weight(4, torch.Tensor.float), "weights[4] (w_hr)"),
    "w_hr left out": (arg("weights", lambda w: w[:4]), "weights[1] (w_hh)"),
}

TABLES: list[tuple[dict[str, tuple[Change, str]], dict[str, Any], tuple[str, ...]]] = [
    (DENSE, {}, CELLS),
    (PACKED, {"packed": True}, CELLS),
    (WITH_C, {}, WITH_CELL_STATE),
    (PROJECTED, {"proj": 1}, WITH_CELL_STATE),
    ({"c0 of a cell without c": (arg("c0", lambda _: torch.zeros(1, 2, 2, dtype=torch.float64)), "c0")}, {}, CELLS[1:]),
]
ROWS = [(cell, options, *row) for table, options, cells in TABLES for cell in cells for row in table.values()]
IDS = [f"{cell}-{name}" for table, _, cells in TABLES for cell in cells for name in table]


def assert_clear(error: Exception, op: str, argument: str) -> None:
    message = str(error).split("\n")[0]
    if argument == DISPATCHER:
        assert re.search(rf"rnnfast::{op}' with arguments from the '\w+' backend", message), message
        return
    assert re.search(rf"rnnfast::{op}: {re.escape(argument)}.*: expected .+, got ", message), message


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("cell", "options", "change", "argument"), ROWS, ids=IDS)
def test_forward(cell: str, options: dict[str, Any], change: Change, argument: str, grad: bool) -> None:
    """Training: under autograd, with an h0 that asks for a gradient."""
    args = good(cell, **options)
    LAYERS[cell](*args.values(), False)
    change(args)
    if grad and args["h0"].is_floating_point():
        args["h0"].requires_grad_()
    with pytest.raises(RuntimeError) as error:
        LAYERS[cell](*args.values(), not grad)
    assert_clear(error.value, f"{cell}_layer", argument)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", ["x", "weights", "has_biases"])
def test_missing(cell: str, name: str) -> None:
    args = good(cell)
    args[name] = None if name != "weights" else [None] * 4
    with pytest.raises((RuntimeError, TypeError)):
        LAYERS[cell](*args.values(), False)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_half(cell: str, dtype: torch.dtype) -> None:
    """Half precision is converted inside, but not mixed with float32 in silence."""
    for i in range(3):
        for grad in (False, True):
            args = good(cell, dtype=dtype)
            if i == 0:
                args["h0"] = args["h0"].float()
            elif i == 1:
                args["weights"][1] = args["weights"][1].float()
            else:
                args["x"] = args["x"].float()
            args["x"].requires_grad_(grad)
            with pytest.raises(RuntimeError, match=rf"{cell}_layer: (h0|weights).*: expected .+, got "):
                LAYERS[cell](*args.values(), False)


BACKWARD: dict[str, Callable[[Any], Any]] = {
    "y": lambda t: t[:-1],
    "saved": lambda t: t[..., :-1],
    "cells": lambda t: t.float(),
    "grad_y": lambda t: t[0],
    "grad_h_n": lambda t: t.int(),
    "grad_c_n": lambda t: t[:, :1],
    "output_mask": lambda m: m[:-1],
}


def backward_arguments(cell: str, **options: Any) -> dict[str, Any]:
    args = good(cell, **options)
    y, h_n, c_n, saved, cells = LAYERS[cell](*args.values(), True)
    full = {"grad_y": y, "grad_h_n": h_n, "grad_c_n": c_n if c_n.numel() else None, **args}
    full |= {"y": y, "saved": saved, "cells": cells, "output_mask": [True] * (3 + len(args["weights"]))}
    return full


@pytest.mark.parametrize("options", [{}, {"packed": True, "D": 2}], ids=["dense", "packed"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", BACKWARD)
def test_backward(cell: str, name: str, options: dict[str, Any]) -> None:
    full = backward_arguments(cell, **options)
    LAYERS_BACKWARD[cell](*full.values())
    if name in ("cells", "grad_c_n") and cell not in WITH_CELL_STATE:
        return
    value = full[name]
    full[name] = BACKWARD[name](value) if name != "saved" or value.numel() else torch.zeros(2, dtype=value.dtype)
    with pytest.raises(RuntimeError) as error:
        LAYERS_BACKWARD[cell](*full.values())
    assert_clear(error.value, f"{cell}_layer_backward", name)


@pytest.mark.parametrize("cell", CELLS)
def test_backward_without_what_was_saved(cell: str) -> None:
    """The empty tensors of an inference call are not taken for those of a training call."""
    full = backward_arguments(cell)
    if not full["saved"].numel():
        return
    full["saved"] = full["saved"].new_empty(0)
    with pytest.raises(RuntimeError) as error:
        LAYERS_BACKWARD[cell](*full.values())
    assert_clear(error.value, f"{cell}_layer_backward", "saved")


@pytest.mark.parametrize("cell", CELLS)
def test_backward_checks_its_layer_too(cell: str) -> None:
    for name in ("x", "h0"):
        full = backward_arguments(cell)
        full[name] = full[name][..., :1]
        with pytest.raises(RuntimeError) as error:
            LAYERS_BACKWARD[cell](*full.values())
        assert_clear(error.value, f"{cell}_layer", name)


@pytest.mark.parametrize("cell", CELLS)
def test_backward_gives_what_is_asked(cell: str) -> None:
    """Each entry of output_mask alone: that gradient as among all, everything else of shape [0]."""
    full = backward_arguments(cell, D=2, packed=True)

    def flat(mask: list[bool]) -> list[torch.Tensor]:
        x, h0, c0, weights = LAYERS_BACKWARD[cell](*(full | {"output_mask": mask}).values())
        return [x, h0, c0, *weights]

    count = len(full["output_mask"])
    every = flat([True] * count)
    for i in range(count):
        one = flat([j == i for j in range(count)])
        for j, gradient in enumerate(one):
            expected = every[j] if j == i else every[j].new_empty(0)
            assert torch.equal(gradient, expected), f"{cell}: asked for {i}, gradient {j}"


@pytest.mark.parametrize("cell", CELLS)
def test_backward_of_no_gradient(cell: str) -> None:
    """Without any incoming gradient all gradients are zero."""
    full = backward_arguments(cell) | {"grad_y": None, "grad_h_n": None, "grad_c_n": None}
    x, h0, c0, weights = LAYERS_BACKWARD[cell](*full.values())
    for t in (x, h0, c0, *weights):
        assert not t.any()
    assert x.shape == full["x"].shape
