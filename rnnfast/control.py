# SPDX-License-Identifier: Apache-2.0
"""The options that control backpropagation through time: their checks, and how the ops are told. docs/training.md."""

import sys
from typing import Any, NamedTuple

import torch

__all__ = ["NAMES", "Control", "arguments", "control", "in_words", "names_of", "options_text"]

NAMES = ("bptt_clip", "bptt_steps", "checkpoint_every", "nan_policy")
POLICIES = ("propagate", "raise")
_CLIPS = {"value": 1, "norm": 2}
_RANGES = {
    name: (torch.finfo(dtype).tiny, torch.finfo(dtype).max)
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64))
}


class Control(NamedTuple):
    """Options of a call, as the ops take them; see docs/architecture.md, "The ops"."""

    clip: int  # 0: none, 1: value, 2: norm
    limit: float
    steps: int  # 0: not truncated
    checkpoint: int  # 0: everything is kept; -1: about sqrt(T)
    check: bool  # raise where something is not finite
    recorder: int  # 0: none


def control(
    who: str,
    bptt_clip: Any = None,
    bptt_steps: Any = None,
    checkpoint_every: Any = None,
    nan_policy: Any = "propagate",
    recorder: int = 0,
) -> Control | None:
    """The options, checked; None where all are as usual. who: for the messages.

    Raises:
        ValueError: what an option cannot be.
    """
    if bptt_clip is None and bptt_steps is None and checkpoint_every is None and nan_policy == "propagate":
        return Control(0, 0.0, 0, 0, False, recorder) if recorder else None
    clip, limit = _clip(who, bptt_clip)
    if bptt_steps is not None and not _is_positive_int(bptt_steps):
        raise ValueError(f"{who}: bptt_steps: expected None or a positive integer, got {bptt_steps!r}")
    auto = isinstance(checkpoint_every, str) and checkpoint_every == "auto"
    if checkpoint_every is not None and not auto and not _is_positive_int(checkpoint_every):
        raise ValueError(
            f"{who}: checkpoint_every: expected None, 'auto' or a positive integer, got {checkpoint_every!r}"
        )
    if nan_policy not in POLICIES:
        raise ValueError(f"{who}: nan_policy: expected 'propagate' or 'raise', got {nan_policy!r}")
    checkpoint = -1 if auto else checkpoint_every or 0
    return Control(clip, limit, bptt_steps or 0, checkpoint, nan_policy == "raise", recorder)


def _clip(who: str, bptt_clip: Any) -> tuple[int, float]:
    """bptt_clip as the ops take it: which kind, and the limit."""
    if bptt_clip is None:
        return 0, 0.0
    if isinstance(bptt_clip, tuple | list) and len(bptt_clip) == 2:
        kind, limit = bptt_clip
        if isinstance(kind, str) and kind in _CLIPS and _is_positive_finite(limit):
            return _CLIPS[kind], float(limit)
    raise ValueError(
        f"{who}: bptt_clip: expected None, ('value', c) or ('norm', c) with a positive finite number c, "
        f"got {bptt_clip!r}"
    )


def _is_positive_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def _check_limit(limit: float, dtype: torch.dtype) -> None:
    """That the kernels' numbers hold it: half precision is computed in float32. Rounded to 0 it would stop all."""
    name = "float64" if dtype == torch.float64 else "float32"
    least, most = _RANGES[name]
    if not least <= limit <= most:
        raise ValueError(
            f"rnnfast: bptt_clip: expected a limit from {least:.2g} to {most:.2g}, which {name} can hold, got {limit:g}"
        )


def _is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def arguments(options: Control | None, dtype: torch.dtype, layer: int = 0) -> tuple[Any, ...]:
    """The last two arguments of the layer ops, `limit` and `bptt`; none where all is as usual.

    Raises:
        ValueError: a limit that tensors of this dtype cannot have.
    """
    if options is None:
        return ()
    clip, limit, steps, checkpoint, check, recorder = options
    if clip:
        _check_limit(limit, dtype)
    steps, checkpoint = min(steps, 1 << 62), min(checkpoint, 1 << 62)  # more than any T, and an int64 still
    return limit, [clip, steps, checkpoint, int(check), layer, recorder]


def names_of(options: Control) -> str:
    """The options in use, for messages."""
    used = (options.clip, options.steps, options.checkpoint, options.check)
    names = [name for name, value in zip(NAMES, used, strict=True) if value]
    return ", ".join(names) if names else "rnnfast.diagnostics.gradient_flow"


def options_text(module: Any) -> str:
    """What a module's repr says of the options that are not as usual."""
    text = ""
    for name in NAMES:
        value = getattr(module, name, None)
        if value is not None and value != "propagate":
            text += f", {name}={value!r}"
    return text


def in_words(options: Control) -> list[str]:
    """What the options do, for rnnfast.explain."""
    words = []
    if options.clip:
        what = "each element of the error signal" if options.clip == 1 else "a sample's norm of the error signal"
        words.append(f"bptt_clip: {what} is limited to {options.limit:g} before it enters the gates of a step")
    if options.steps:
        words.append(f"bptt_steps: the error signal is cut every {options.steps} steps, counted from a sample's last")
    if options.checkpoint:
        every = "about sqrt(T)" if options.checkpoint < 0 else str(options.checkpoint)
        words.append(f"checkpoint_every: states are kept every {every} steps; the backward pass recomputes the rest")
    if options.check:
        words.append("nan_policy: states and error signals are checked; the first that is not finite raises")
    if options.recorder:
        words.append("the error signal is being recorded (rnnfast.diagnostics.gradient_flow)")
    return words
