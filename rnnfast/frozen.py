# SPDX-License-Identifier: Apache-2.0
"""Inference-only snapshots of recurrent modules, whose weights are packed once instead of at each call."""

from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.jit._trace import is_tracing

from rnnfast import cells, functional, snapshot
from rnnfast.specs import CellSpec

__all__ = ["Frozen", "freeze"]

_CPU = torch.device("cpu")
_ATTRIBUTES = (
    "mode",
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
    "nonlinearity",
)


def freeze(module: nn.Module) -> "Frozen":
    """An inference-only snapshot of a recurrent module, with weights packed for the kernels.

    It saves what a call otherwise spends on packing, which matters most for short sequences and small batches, and on
    autograd. The module itself stays as it is and can go on training; `refresh()` takes its weights again.

    Args:
        module: an RNN, LSTM, GRU or cell of rnnfast or torch.nn (accelerated, parametrized, pruned or neither), on the
            CPU, in float32, float64, float16 or bfloat16.

    Returns:
        A callable with the signature of the module's forward; see :class:`Frozen`.

    Raises:
        TypeError: module is nothing of the kind, or has a forward of its own, which a snapshot would not run.
        ValueError: there are no kernels for its device or dtype, or it has a size of 0.
    """
    return Frozen(module)


class Frozen:
    """What :func:`freeze` returns. Call it as the module: `frozen(input, hx)`.

    Input, state and results have the forms of the module's forward (batched or not, batch_first, PackedSequence), and
    wrong ones raise the same errors. It runs as in eval mode (no dropout) and outside autograd: results never require
    gradients. Function transforms (vmap, grad, jvp), torch.jit.trace, torch.export and torch.compile(fullgraph=True),
    whose graphs cannot hold the packed weights, raise an error. Hooks of the module do not run. Several threads may
    call it at once, and share the packed weights.

    It is no torch.nn.Module, so that a model that has it as an attribute counts no weight twice in `state_dict`,
    `parameters()` or `to()`. It holds the module, for `refresh()`, and cannot be pickled or copied: freeze again.

    The module's `input_size`, `hidden_size`, `num_layers`, ... can be read, as they were when the weights were taken.
    """

    def __init__(self, module: nn.Module) -> None:
        self._rnnfast_module = module
        self._spec = snapshot.check_module(module, "rnnfast.freeze")
        self._is_cell = snapshot.is_cell(module)
        self._parts: tuple[Any, torch.dtype]
        self.refresh()

    def refresh(self) -> None:
        """Takes the module's weights and options again, for the instruction set now in use.

        Raises:
            ValueError: there are no kernels for the device or dtype that the module now has, or it has a size of 0.
        """
        module = self._rnnfast_module
        parts = snapshot.pack(module, self._spec, "rnnfast.freeze")
        for name in _ATTRIBUTES:
            if hasattr(module, name):
                self.__dict__[name] = getattr(module, name)
        self._text = f"{type(module).__name__}({module.extra_repr()})"
        self._parts = parts  # last and at once: calls in other threads see the old or the new

    @property
    def bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._parts[0].bytes)

    def __call__(self, input: Any, hx: Any = None) -> Any:
        """Runs the module's layers, or the cell's step. Shapes and errors: see the class."""
        if is_tracing() or torch.compiler.is_compiling():
            _break_graph()
        if self._is_cell:
            return cells.run_cell(self._spec, input, hx, self._step)
        return self._call_layers(input, hx)

    def __getattr__(self, name: str) -> Any:
        """Only for the type checker and the error message: attributes are set by `refresh`."""
        raise AttributeError(f"a frozen {self.__dict__.get('_text', 'module')} has no attribute {name!r}")

    def __repr__(self) -> str:
        """The module as it was, and the packed size."""
        return f"rnnfast.freeze({self._text}, {self.bytes / 1024:.1f} KB packed)"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """A snapshot is bound to this process: raises TypeError."""
        raise TypeError("a frozen snapshot cannot be pickled or copied: pickle its module and freeze it again")

    def _call_layers(self, input: Any, hx: Any) -> Any:
        """As functional.run_sequence, on packed weights."""
        stack, dtype = self._parts
        spec = self._spec
        directions = 2 if self.bidirectional else 1

        def run(x: Tensor, batch_sizes: Tensor | None, h0: Tensor | None, c0: Tensor | None) -> Any:
            try:
                result = None
                if torch.is_autocast_enabled("cpu"):
                    x, h0, c0, result = _cast(x, h0, c0, dtype, spec.autocast_promotes)
                y, h_n, c_n = stack.forward(x, h0, c0, batch_sizes)
            except RuntimeError as error:
                _check_plain(error, x, h0, c0)
                raise
            if result is not None:
                y, h_n, c_n = y.to(result), h_n.to(result), c_n.to(result)
            return y, h_n, c_n if spec.has_cell else None

        sizes = (self.input_size, self.hidden_size, self.proj_size or self.hidden_size)
        rows = self.num_layers * directions
        return functional.check_and_run(spec, input, hx, dtype, _CPU, sizes, rows, self.batch_first, run)

    def _step(self, spec: CellSpec, x: Tensor, h: Tensor | None, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """As cells.step, on packed weights."""
        stack, dtype = self._parts
        result = None
        if torch.is_autocast_enabled("cpu"):
            x, h, c, result = _cast(x, h, c, dtype, spec.nonlinearity is None)
        try:
            _, h_n, c_n = stack.forward(x[None], None if h is None else h[None], None if c is None else c[None], None)
        except RuntimeError as error:
            _check_plain(error, x, h, c)
            failed = error
        else:
            h_n, c_n = h_n.squeeze(0), c_n.squeeze(0) if spec.has_cell else None
            return (h_n, c_n) if result is None else (h_n.to(result), None if c_n is None else c_n.to(result))
        cells.check_step(x, h, c, self.input_size, self.hidden_size, _CPU)
        raise failed


def _cast(x: Tensor, h: Any, c: Any, dtype: torch.dtype, promotes: bool) -> tuple[Tensor, Any, Any, Any]:
    """Under autocast: computed in the packed weights' dtype, given in the last result, the module's dtype, or None."""
    result = functional.cast_as_autocast(x, h, c, [torch.empty(0, dtype=dtype)], promotes)[4]
    if result is None:
        return x, h, c, None
    return x.to(dtype), None if h is None else h.to(dtype), None if c is None else c.to(dtype), result


def _break_graph() -> None:
    """A trace would keep the results as constants, or worse; torch.compile can run the call between two graphs."""
    message = (
        "rnnfast.freeze: a snapshot runs outside torch's graphs: trace, export or compile the module itself instead"
    )
    if is_tracing() or torch.compiler.is_exporting():
        raise RuntimeError(message)
    torch._dynamo.graph_break(msg=message)


def _check_plain(error: RuntimeError, *tensors: Tensor | None) -> None:
    """Of a failed call: raises what was wrong if the tensors are those of a transform, without values."""
    for tensor in tensors:
        if tensor is not None and (
            isinstance(tensor, FakeTensor) or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        ):
            raise RuntimeError(
                "rnnfast.freeze: a snapshot has no autograd and takes part in no function transform "
                "(torch.func.vmap, grad, jvp, fake tensors): call the module itself there"
            ) from error
