# SPDX-License-Identifier: Apache-2.0
"""Inference one step or one chunk at a time, with the state inside: for speech, sensors, control, games."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from rnnfast import snapshot
from rnnfast.ops import _C

__all__ = ["Stream"]

_WHO = "rnnfast.Stream"


class Stream(_C.StreamEngine):
    """A recurrent module that is fed as its input arrives, and keeps its state in between.

    `stream(x, out=None)`: x [B, I] is one step and gives [B, H] (or [B, P]) of the last layer; x [T, B, I] is a chunk
    of steps and gives [T, B, H]. All layers run in one call, on weights packed once; a call of one step on a small
    module costs little more than its arithmetic. With `out`, a contiguous tensor of the result's shape, nothing is
    allocated, and `out` is returned.

    It computes what the module does on the whole sequence in eval mode, outside autograd. The module's `batch_first`
    is ignored. float16 and bfloat16 modules are computed in float32, which is also what the state is kept in.

    The weights are a snapshot: call `refresh()` after the module's have changed. A stream belongs to one thread at a
    time (a second one that calls it meanwhile gets a RuntimeError); any number of streams of one module may run in
    any number of threads. Long calls release the GIL.

    Args:
        module: an RNN, LSTM, GRU or cell of rnnfast or torch.nn (accelerated, parametrized, pruned or neither), on
            the CPU, in float32, float64, float16 or bfloat16; unidirectional.
        batch_size: B, samples that run side by side.

    Raises:
        TypeError: module is nothing of the kind, or has a forward of its own, which a stream would not run.
        ValueError: it is bidirectional (the second direction begins at the end of the sequence, which a stream has
            not seen yet); there are no kernels for its device or dtype; it has a size of 0; batch_size is less than 1.
        RuntimeError: (a call) x or out of another shape or dtype.
    """

    def __init__(self, module: nn.Module, batch_size: int = 1) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int):
            raise TypeError(f"{_WHO}: batch_size: expected an int, got {type(batch_size).__name__}")
        if batch_size < 1:
            raise ValueError(f"{_WHO}: batch_size: expected at least 1, got {batch_size}")
        self._spec = snapshot.check_module(module, _WHO)
        if getattr(module, "bidirectional", False):
            raise ValueError(
                f"{_WHO}: module: expected a unidirectional one, got bidirectional=True: the reverse direction begins "
                "at the last step of the sequence, which a stream has not seen yet"
            )
        stack, self._dtype = snapshot.pack(module, self._spec, _WHO)
        super().__init__(stack, batch_size)
        self._rnnfast_module = module
        self._layers = not snapshot.is_cell(module)
        self.batch_size = batch_size

    def refresh(self) -> None:
        """Takes the module's weights again; the state stays.

        Raises:
            ValueError: the module is no longer of the sizes and dtype that the stream began with.
        """
        self.set_stack(snapshot.pack(self._rnnfast_module, self._spec, _WHO)[0])

    @property
    def state(self) -> Any:
        """A copy of the state, as the module returns it: h_n, or (h_n, c_n); [L, B, .] of layers, [B, .] of a cell.

        It can be set to such a value, or to None for zeros. Also float32 where the module is of half precision.
        """
        states = [(s if self._layers else s[0]).to(self._dtype, copy=True) for s in self._states().values()]
        return (states[0], states[1]) if self._spec.has_cell else states[0]

    @state.setter
    def state(self, value: Any) -> None:
        if value is None:
            self.reset()
            return
        own = self._states()
        given = value if self._spec.has_cell else (value,)
        if not isinstance(given, tuple | list) or len(given) != len(own):
            what = "a tuple (h, c)" if self._spec.has_cell else "a tensor"
            raise TypeError(f"{_WHO}: state: expected {what} or None, got {_describe(value)}")
        pairs = [
            (name, part, mine if self._layers else mine[0])
            for (name, mine), part in zip(own.items(), given, strict=True)
        ]
        self._copy("state", pairs)

    def reset(self, rows: int | Sequence[int] | Tensor | None = None) -> None:
        """Sets the state to zeros: of all samples, or of those that begin anew.

        Args:
            rows: an index of the batch, several, or a bool tensor [B]; None: all.
        """
        for state in self._states().values():
            if rows is None:
                state.zero_()
            else:
                index = torch.as_tensor(rows)
                if index.dtype == torch.bool and index.shape != (self.batch_size,):
                    raise IndexError(f"{_WHO}.reset: rows: expected a mask [{self.batch_size}], got {_describe(index)}")
                state[:, index.long() if index.numel() == 0 else index] = 0

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of the state ("h", "c"), in the precision it is kept in, to be continued from by load_state_dict."""
        return {name: state.clone() for name, state in self._states().items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Continues from what state_dict gave, of a stream of the same sizes.

        Raises:
            KeyError: other keys.
            RuntimeError: a tensor of another shape or dtype.
        """
        own = self._states()
        if set(state_dict) != set(own):
            raise KeyError(f"{_WHO}.load_state_dict: expected the keys {sorted(own)}, got {sorted(state_dict)}")
        self._copy("load_state_dict", [(name, state_dict[name], mine) for name, mine in own.items()])

    def __repr__(self) -> str:
        """The module, the batch and the packed size."""
        module: Any = self._rnnfast_module
        text = f"{type(module).__name__}({module.extra_repr()})"
        return f"rnnfast.Stream({text}, batch_size={self.batch_size}, {self.bytes / 1024:.1f} KB packed)"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Packed weights are bound to this process: raises TypeError."""
        raise TypeError("a stream cannot be pickled or copied: pickle its module and its state_dict")

    def _states(self) -> dict[str, Tensor]:
        """The memory of the state itself."""
        return {"h": self._hidden} | ({} if self._cell is None else {"c": self._cell})

    def _copy(self, what: str, pairs: Sequence[tuple[str, Any, Tensor]]) -> None:
        """Checks all, then copies all: a wrong one leaves the state as it was."""
        for name, given, mine in pairs:
            fits = isinstance(given, Tensor) and given.shape == mine.shape and given.dtype in (self._dtype, mine.dtype)
            if not fits:
                dtypes = " or ".join(str(d) for d in dict.fromkeys((self._dtype, mine.dtype)))
                raise RuntimeError(
                    f"{_WHO}: {what}: {name}: expected a tensor of shape {list(mine.shape)}, {dtypes}; "
                    f"got {_describe(given)}"
                )
        with torch.no_grad():
            for _, given, mine in pairs:
                mine.copy_(given)


def _describe(value: Any) -> str:
    """For messages: shape and dtype of a tensor, the type of anything else."""
    return f"shape {list(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
