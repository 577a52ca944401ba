# SPDX-License-Identifier: Apache-2.0
"""torch's own samples for its recurrent modules (torch.testing._internal.common_modules), errors included."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import rnnfast
from tests.torchs import CELLS, LAYERS, assert_near, run

pytest.importorskip("expecttest", reason="torch's common_modules needs it: pip install 'rnnfast[test]'")

from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

pytestmark = pytest.mark.usefixtures("one_thread")

INFOS = {info.module_cls.__name__: info for info in module_db if info.name.split(".")[-1] in (*LAYERS, *CELLS)}


def samples(name: str, dtype: torch.dtype, training: bool, errors: bool = False) -> list[Any]:
    """torch's samples of a module, the same ones each time."""
    info = INFOS[name]
    function = info.module_error_inputs_func if errors else info.module_inputs_func
    torch.manual_seed(0)
    return list(function(info, device="cpu", dtype=dtype, requires_grad=True, training=training))


def test_all_six_are_there() -> None:
    assert set(INFOS) == {*LAYERS, *CELLS}
    assert all(info.module_error_inputs_func for info in INFOS.values())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_samples(name: str, dtype: torch.dtype, training: bool) -> None:
    found = samples(name, dtype, training)
    assert found
    for index, sample in enumerate(found):
        made = sample.constructor_input
        torch.manual_seed(1)
        theirs = getattr(nn, name)(*made.args, **made.kwargs, dtype=dtype).train(training)
        torch.manual_seed(1)
        ours = getattr(rnnfast, name)(*made.args, **made.kwargs, dtype=dtype).train(training)
        args, kwargs = sample.forward_input.args, sample.forward_input.kwargs
        x, hx = args[0], args[1] if len(args) > 1 else kwargs.get("hx")
        double = [t.double() if isinstance(t, torch.Tensor) else t and tuple(s.double() for s in t) for t in (x, hx)]
        reference = run(copy.deepcopy(theirs).double(), *double)
        expected, got = run(theirs, x, hx), run(ours, x, hx)
        assert got.keys() == expected.keys()
        for key, tensor in got.items():
            where = f"{name} sample {index} ({made.args}, {made.kwargs}), seeds 0, 1, 5"
            assert_near(key, tensor, [expected[key]], reference[key], where)
        if sample.reference_fn is not None:
            want = sample.reference_fn(ours, *args, **kwargs)
            torch.testing.assert_close(ours(*args, **kwargs), want)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_error_samples(name: str, dtype: torch.dtype, training: bool) -> None:
    for sample in samples(name, dtype, training, errors=True):
        made, called = sample.module_error_input.constructor_input, sample.module_error_input.forward_input
        options = {"dtype": dtype} | made.kwargs
        if sample.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(sample.error_type, match=sample.error_regex) as got:
                getattr(rnnfast, name)(*made.args, **options)
        else:
            ours = getattr(rnnfast, name)(*made.args, **options).train(training)
            with pytest.raises(sample.error_type, match=sample.error_regex) as got:
                ours(*called.args, **called.kwargs)
        assert type(got.value) is sample.error_type
