# SPDX-License-Identifier: Apache-2.0
"""Truncated BPTT over streams that are too long for one backward pass."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnfast.base import RNNBase
from rnnfast.cells import RNNCellBase

__all__ = ["tbptt"]


def tbptt(
    model: Callable[[Tensor, Any], tuple[Any, Any]],
    x: Tensor,
    chunk: int,
    state: Any = None,
    *,
    batch_first: bool | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Truncated BPTT: runs a model over x in chunks of time steps; the state is carried on, the gradient is not.

    Each chunk is a graph of its own, whose backward pass ends at its first step (P. Werbos 1990; R. Williams, J. Peng
    1990), so memory depends on the chunk, not on the length of x::

        for (y, state), target in zip(rnnfast.tbptt(lstm, x, 64), targets.split(64)):
            loss(y, target).backward()
            optimizer.step()
            optimizer.zero_grad()

    A chunk runs when it is asked for, with the weights of that moment.

    Args:
        model: an RNN, LSTM or GRU, or any callable (x, state) -> (y, state). First called with `state`, then with what
            it returned, detached: tensors, and None, in tuples, lists and dicts, as LSTM's (h, c).
        x: the time steps lie in dimension 0, or in dimension 1 where batch_first: [T, B, I] or [B, T, I]; of an RNN,
            LSTM or GRU also unbatched [T, I]; of other models of any further shape.
        chunk: time steps of a chunk; the last one may be shorter.
        state: before the first step, None for the model's own. It is passed on as it is, so a learned one gets its
            gradient, from the first chunk.
        batch_first: None: as the attribute `model.batch_first` says, and False where there is none.

    Returns:
        An iterator of (y, state): y as the model returned it for the chunk, and the state after it, detached, with
        which another call can go on.

    Raises:
        ValueError: x is packed or has no time steps; chunk is not a positive whole number; the model is, or has in it,
            a bidirectional layer, whose reverse direction would have to begin with the last chunk; layers in it are
            batch_first, and neither the model nor the argument says whether x is.
        TypeError: x is no tensor; the model is a cell, whose loop over steps is the caller's; it returns no pair, or a
            state of something else than tensors.
    """
    if isinstance(x, PackedSequence):
        raise ValueError(
            "rnnfast.tbptt: x: expected a tensor, got a PackedSequence: its samples end at different steps, so chunks "
            "of it have different batches; use bptt_steps=k on the module, or pad"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"rnnfast.tbptt: x: expected a tensor, got {type(x).__name__}")
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1:
        raise ValueError(f"rnnfast.tbptt: chunk: expected a whole number of steps >= 1, got {chunk!r}")
    if isinstance(model, nn.RNNCellBase | RNNCellBase):
        raise TypeError(
            "rnnfast.tbptt: model: expected (x, state) -> (y, state) over time steps, "
            f"got the cell {type(model).__name__}"
        )
    recurrent = _recurrent(model)
    _check_directions(recurrent)
    if batch_first is None:
        batch_first = _is_batch_first(model, recurrent)
    unbatched = x.dim() == 2 and hasattr(model, "input_size")
    axis = 1 if batch_first and not unbatched else 0
    if x.dim() <= axis or x.shape[axis] == 0:
        raise ValueError(
            f"rnnfast.tbptt: x: expected time steps in dimension {axis}, got a tensor of shape {list(x.shape)}"
        )
    return _chunks(model, x.split(chunk, axis), state)


def _recurrent(model: Any) -> dict[str, Any]:
    """The model itself, and the recurrent layers in it, by name."""
    layers = model.named_modules() if isinstance(model, nn.Module) else [("", model)]
    return {name: m for name, m in layers if name == "" or isinstance(m, nn.RNNBase | RNNBase)}


def _check_directions(recurrent: dict[str, Any]) -> None:
    for name, layer in recurrent.items():
        if getattr(layer, "bidirectional", False):
            hint = f" (a function around the model, if {name} does not run over x's time steps)" if name else ""
            raise ValueError(
                f"rnnfast.tbptt: model: expected one direction, got bidirectional=True{name and f' in {name}'}: the "
                f"reverse direction begins at the end of the stream; use bptt_steps=k on the module{hint}"
            )


def _is_batch_first(model: Any, recurrent: dict[str, Any]) -> bool:
    """Whether x is [B, T, ...], as the model says; raises ValueError where it does not and its layers are."""
    if hasattr(model, "batch_first"):
        return bool(model.batch_first)
    inner = [name for name, layer in recurrent.items() if getattr(layer, "batch_first", False)]
    if inner:
        raise ValueError(
            f"rnnfast.tbptt: batch_first: expected True or False, got None, and {type(model).__name__} has no "
            f"batch_first, but its {', '.join(inner)} is batch_first=True: say whether x is [B, T, ...]"
        )
    return False


def _chunks(model: Any, parts: tuple[Tensor, ...], state: Any) -> Iterator[tuple[Any, Any]]:
    for part in parts:
        result = model(part, state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"rnnfast.tbptt: model: expected it to return (y, state), got {_kind(result)}")
        y, state = result[0], _detached(result[1])
        del result
        yield y, state
        del y  # else its graph would live on beside the next chunk's


def _detached(state: Any) -> Any:
    """The same structure with every tensor detached."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*map(_detached, state))
    if isinstance(state, tuple | list):
        return type(state)(map(_detached, state))
    if isinstance(state, dict):
        return {key: _detached(value) for key, value in state.items()}
    raise TypeError(
        f"rnnfast.tbptt: model: expected a state of tensors, tuples, lists, dicts or None, got {type(state).__name__}"
    )


def _kind(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
