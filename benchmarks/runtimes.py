# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime and OpenVINO as rivals: inputs and outputs are bound once, so that a call is nothing but inference."""

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from . import onnx_models
from .cases import Case

Made = tuple[Callable[[], object], Callable[[], list[Tensor]]]  # the call; what it has computed

PACKAGES = ("onnxruntime", "openvino", "onnx")


def versions() -> dict[str, str | None]:
    """Of the packages that this needs; None: not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        found[name] = None
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def onnxruntime(case: Case, module: nn.Module, x: Tensor, state: tuple[Tensor, ...], threads: int) -> Made:
    """ONNX Runtime's CPU provider, with I/O binding."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(onnx_models.model(case, module), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, tensor in _inputs(case, x, state).items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(tensor.numpy(), "cpu", 0))
    outputs = {}
    for output in session.get_outputs():
        outputs[output.name] = ort.OrtValue.ortvalue_from_numpy(torch.empty(output.shape).numpy(), "cpu", 0)
        binding.bind_ortvalue_output(output.name, outputs[output.name])

    def run() -> None:
        session.run_with_iobinding(binding)

    def results() -> list[Tensor]:
        run()
        return onnx_models.results(case, {k: torch.from_numpy(v.numpy()) for k, v in outputs.items()})

    return run, results


_core: Any = None


def openvino(case: Case, module: nn.Module, x: Tensor, state: tuple[Tensor, ...], threads: int) -> Made:
    """OpenVINO's CPU plugin on the same ONNX model, latency hint, in float32 even where the processor has bfloat16."""
    import openvino as ov

    global _core
    _core = _core or ov.Core()
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = _core.compile_model(_core.read_model(onnx_models.model(case, module)), "CPU", hints)
    request = compiled.create_infer_request()
    bound = _inputs(case, x, state)  # OpenVINO does not keep them alive: the function below does
    outputs = {}
    for port in compiled.outputs:
        (name,) = port.get_names() & set(onnx_models.output_names(case))
        outputs[name] = torch.empty(tuple(port.get_shape()))
    kept = [(name, ov.Tensor(tensor.numpy(), shared_memory=True)) for name, tensor in {**bound, **outputs}.items()]
    for name, tensor in kept:
        request.set_tensor(name, tensor)

    def run(kept: Any = (bound, kept)) -> None:
        request.infer(share_outputs=True)  # no copies: faster than start_async() and wait()

    def results() -> list[Tensor]:
        run()
        return onnx_models.results(case, outputs)

    return run, results


def _inputs(case: Case, x: Tensor, state: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {"x": x, **onnx_models.states(case, state)}
