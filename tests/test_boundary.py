# SPDX-License-Identifier: Apache-2.0
"""Bad input to the raw ops: a clear exception with operation, argument, expected and got; never a crash."""

import pytest
import torch

from rnnfast.ops import lstm_layer, lstm_layer_backward
from tests.test_autograd import inputs

NAMES = ("x", "h0", "c0", "weights", "batch_sizes", "has_biases", "bidirectional")


def good(**options) -> dict:
    return dict(zip(NAMES, inputs(grad=False, **options), strict=True)) | {"save": True}


def weight(i: int, change):
    def apply(args: dict) -> None:
        args["weights"][i] = change(args["weights"][i])

    return apply


def arg(name: str, change):
    def apply(args: dict) -> None:
        args[name] = change(args[name])

    return apply


def sizes(*values: int, **options):
    return arg("batch_sizes", lambda _: torch.tensor(values, **{"dtype": torch.int64, **options}))


DENSE = {
    "x rank 2": (arg("x", lambda x: x[0]), "x"),
    "x rank 4": (arg("x", lambda x: x[None]), "x"),
    "x no steps": (arg("x", lambda x: x[:0]), "x"),
    "x no features": (arg("x", lambda x: x[..., :0]), "x"),
    "x integer": (arg("x", torch.Tensor.int), "x"),
    "x half": (arg("x", torch.Tensor.half), "x"),
    "x complex": (arg("x", lambda x: x + 0j), "x"),
    "x sparse": (arg("x", torch.Tensor.to_sparse), "x|Could not run"),
    "x other dtype": (arg("x", torch.Tensor.float), "weights"),
    "h0 rank": (arg("h0", lambda h: h[0]), "h0"),
    "h0 batch": (arg("h0", lambda h: h.repeat(1, 2, 1)), "h0"),
    "h0 hidden": (arg("h0", lambda h: h[..., :1]), "h0"),
    "h0 dtype": (arg("h0", torch.Tensor.float), "h0"),
    "h0 directions": (arg("h0", lambda h: h.repeat(2, 1, 1)), "h0"),
    "c0 shape": (arg("c0", lambda c: c[:, :1]), "c0"),
    "c0 integer": (arg("c0", torch.Tensor.long), "c0"),
    "one weight missing": (arg("weights", lambda w: w[:3]), "weights"),
    "no weights": (arg("weights", lambda w: []), "weights"),
    "weights without biases": (arg("has_biases", lambda _: False), "weights"),
    "one direction's weights": (arg("bidirectional", lambda _: True), "weights"),
    "w_ih features": (weight(0, lambda w: w[:, :2]), "w_ih"),
    "w_ih transposed": (weight(0, torch.Tensor.t), "w_ih"),
    "w_hh rank": (weight(1, lambda w: w[0]), "w_hh"),
    "w_hh not 4H": (weight(1, lambda w: w[:7]), "w_hh"),
    "w_hh empty": (weight(1, lambda w: w[:0, :0]), "w_hh"),
    "w_hh dtype": (weight(1, torch.Tensor.float), "w_hh"),
    "b_ih size": (weight(2, lambda b: b[:3]), "b_ih"),
    "b_hh rank": (weight(3, lambda b: b[None]), "b_hh"),
    "batch_sizes with a dense x": (sizes(2, 2, 2), "x"),
}

PACKED = {
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

CASES = [({}, n, *c) for n, c in DENSE.items()] + [({"packed": True}, n, *c) for n, c in PACKED.items()]


@pytest.mark.parametrize(("options", "name", "change", "argument"), CASES, ids=[c[1] for c in CASES])
def test_forward(options: dict, name: str, change, argument: str) -> None:
    args = good(**options)
    lstm_layer(*args.values())
    change(args)
    with pytest.raises((RuntimeError, NotImplementedError)) as error:
        lstm_layer(*args.values())
    message = str(error.value)
    if "Could not run" not in message:
        assert "lstm_layer" in message
        assert "expected" in message
        assert "got" in message
    assert any(a in message for a in argument.split("|")), message


@pytest.mark.parametrize("name", ["x", "weights", "has_biases"])
def test_missing(name: str) -> None:
    args = good()
    args[name] = None if name != "weights" else [None] * 4
    with pytest.raises((RuntimeError, TypeError)):
        lstm_layer(*args.values())


BACKWARD = {
    "y": lambda t: t[:-1],
    "gates": lambda t: t[..., :-1],
    "cells": lambda t: t.float(),
    "grad_y": lambda t: t[0],
    "grad_h_n": lambda t: t.int(),
    "grad_c_n": lambda t: t[:, :1],
    "output_mask": lambda m: m[:-1],
}


@pytest.mark.parametrize("name", BACKWARD)
def test_backward(name: str) -> None:
    args = good()
    del args["save"]
    y, h_n, c_n, gates, cells = lstm_layer(*args.values(), True)
    full = {"grad_y": y, "grad_h_n": h_n, "grad_c_n": c_n, **args, "y": y, "gates": gates, "cells": cells}
    full["output_mask"] = [True] * (3 + len(args["weights"]))
    lstm_layer_backward(*full.values())
    full[name] = BACKWARD[name](full[name])
    with pytest.raises(RuntimeError, match=f"lstm_layer_backward: {name}: expected .* got"):
        lstm_layer_backward(*full.values())
