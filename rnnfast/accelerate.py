# SPDX-License-Identifier: Apache-2.0
"""rnnfast under models that are built of torch.nn's recurrent modules, without a change to their code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from rnnfast import cells, modules
from rnnfast.base import RNNBase
from rnnfast.inplace import (
    HELPERS,
    KINDS,
    accelerate_class,
    class_name,
    forward_of_torch,
    is_accelerated,
    restore_class,
)
from rnnfast.script import replaced_original

__all__ = ["Report", "Row", "accelerate", "accelerated", "restore"]

_NAMES = tuple(kind.__name__ for kind in KINDS)
_MODEL_ITSELF = "(the model itself)"


@dataclass(frozen=True)
class Row:
    """What became of one recurrent module at one name."""

    name: str  # as in model.named_modules(); "" is the model itself
    class_name: str
    done: bool
    reason: str = ""  # why not, or a remark


@dataclass(frozen=True)
class Report:
    """One row for each name of a recurrent module. `str()` is a table; `len()` and iteration are over the rows."""

    rows: tuple[Row, ...]
    verb: str = "accelerated"

    @property
    def done(self) -> int:
        """How many of the rows were done."""
        return sum(row.done for row in self.rows)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        """The rows."""
        return iter(self.rows)

    def __str__(self) -> str:
        """A table for people."""
        if not self.rows:
            return f"0 of 0 {self.verb}: no such modules in the model"
        table = [("name", "class", "result")]
        for row in self.rows:
            result = self.verb if row.done else "left alone"
            if row.reason:
                result += f" ({row.reason})" if row.done else f": {row.reason}"
            table.append((row.name or _MODEL_ITSELF, row.class_name, result))
        widths = [max(len(line[column]) for line in table) for column in (0, 1)]
        lines = [f"{name:{widths[0]}}  {kind:{widths[1]}}  {result}" for name, kind, result in table]
        return "\n".join([*lines, f"{self.done} of {len(self.rows)} {self.verb}"])


def accelerate(model: nn.Module, replace: bool = False) -> Report:
    """Runs the torch.nn.RNN, LSTM, GRU and cell objects in a model on rnnfast's kernels.

    Each object stays where it is; its class becomes a generated subclass of its own class that overrides only
    `forward`. isinstance, added methods, hooks, outside references, optimizers, pickling, copies, `state_dict` and
    `repr` go on working; only `type(module) is torch.nn.LSTM` is no longer true. A pickle or a copy of an accelerated
    module is accelerated again (loading the pickle needs rnnfast). `torch.jit.script` compiles torch's own layer and
    leaves the module restored. Threads may run the model meanwhile: a call under way ends as it began.

    Left alone, and reported: modules whose `forward` is overridden (by a subclass, or on the object), scripted and
    quantized ones, rnnfast's own, and those already accelerated.

    Args:
        model: a module that contains recurrent modules, or is one.
        replace: install rnnfast modules that hold the same Parameter objects, hooks and attributes in the parents
            instead: what torch.compile needs, since it breaks the graph at any instance of torch.nn.RNN, LSTM and GRU.
            Subclasses, parametrized modules and the model itself are left alone. References from elsewhere than
            `parent.name` go on meaning the old object.

    Returns:
        A report: one row for each name of a recurrent module (a shared object has several), done or why not.

    Raises:
        TypeError: model is no torch.nn.Module.
    """
    return _accelerate(model, replace)[0]


def restore(model: nn.Module) -> Report:
    """Undoes :func:`accelerate` in a model: the same classes, or the same objects, with the parameters they now have.

    Returns:
        A report with a row for each name of a module that was accelerated or replaced.

    Raises:
        TypeError: model is no torch.nn.Module.
    """
    _check_model(model)
    rows = []
    found = [(name, m) for name, m in model.named_modules(remove_duplicate=False) if _is_ours_to_restore(m)]
    for name, module in found:
        if not _is_replacement(module):
            reason = restore_class(module)
        elif name:
            reason = None
        else:
            reason = "the model itself has no parent to put the original in: restore the model around it"
        rows.append(Row(name, class_name(type(module)), reason is None, reason or ""))
    for parent, key, child in _children(model):
        if _is_replacement(child):
            _put_back(parent, key, child)
    return Report(tuple(rows), "restored")


@contextmanager
def accelerated(model: nn.Module, replace: bool = False) -> Iterator[Report]:
    """`with rnnfast.accelerated(model):` runs the block with :func:`accelerate` and undoes it, also on an exception.

    Nested uses undo what they did themselves. Gives the report.
    """
    report, undo = _accelerate(model, replace)
    try:
        yield report
    finally:
        for step in undo:
            step()


def _accelerate(model: nn.Module, replace: bool) -> tuple[Report, list[Callable[[], object]]]:
    """The report, and the steps that undo what was done."""
    _check_model(model)
    rows: list[Row] = []
    undo: list[Callable[[], object]] = []
    seen: dict[int, Row] = {}
    installed: dict[int, nn.Module] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not _is_candidate(module):
            continue
        first = seen.get(id(module))
        if first is not None:  # known under another name
            remark = first.reason or f"the same object as {first.name or _MODEL_ITSELF}"
            rows.append(Row(name, first.class_name, first.done, remark))
            continue
        label = class_name(type(module))
        reason = _why_not(module)
        if reason is None and replace:
            reason = _why_not_replaced(module, is_model=not name)
            if reason is None:
                installed[id(module)] = _replacement(module)
        elif reason is None:
            reason = accelerate_class(module)
            if reason is None:
                undo.append(partial(restore_class, module))
        row = Row(name, label, reason is None, reason or "")
        rows.append(row)
        seen[id(module)] = row
    for parent, key, child in _children(model):
        new = installed.get(id(child))
        if new is not None:
            parent._modules[key] = new
            undo.append(partial(_put_back, parent, key, new))
    return Report(tuple(rows), "replaced" if replace else "accelerated"), undo


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"rnnfast: model: expected a torch.nn.Module, got {type(model).__name__}")


def _children(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """All (parent, name, child) in a model."""
    parents = list(model.modules())
    return [(p, key, child) for p in parents for key, child in p._modules.items() if child is not None]


def _is_candidate(module: nn.Module) -> bool:
    """Whether a module is of the kind that a report speaks of."""
    if isinstance(module, torch.jit.ScriptModule):
        return getattr(module, "original_name", "") in _NAMES
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | RNNBase | cells.RNNCellBase):
        return True
    return _is_quantized(type(module)) and type(module).__name__ in _NAMES


def _is_quantized(kind: type) -> bool:
    return kind.__module__.startswith(("torch.ao.nn.", "torch.nn.quantized", "torch.nn.quantizable"))


def _is_replacement(module: nn.Module) -> bool:
    return "_rnnfast_replaced" in module.__dict__


def _is_ours_to_restore(module: nn.Module) -> bool:
    return is_accelerated(module) or _is_replacement(module)


def _why_not(module: nn.Module) -> str | None:
    """Why a candidate is left alone, or None."""
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted"
    if any(_is_quantized(kind) for kind in type(module).__mro__):
        return "quantized"
    if isinstance(module, RNNBase | cells.RNNCellBase):
        return "already rnnfast"
    if is_accelerated(module):
        return "already accelerated"
    reason = forward_of_torch(module)
    replaced = [name for name in HELPERS if name in module.__dict__]
    if reason is None and replaced:
        reason = f"{replaced[0]} is replaced on the object"
    return reason


def _why_not_replaced(module: nn.Module, is_model: bool) -> str | None:
    if is_model:
        return "the model itself has no parent to install another in: use rnnfast's class, or accelerate it in place"
    if parametrize.is_parametrized(module):
        return "parametrized: only accelerated in place"
    if type(module) not in KINDS:
        return "a subclass: only accelerated in place"
    return None


def _replacement(module: nn.Module) -> nn.Module:
    """Our module with everything that a torch.nn one holds: the very dicts of parameters, buffers and hooks."""
    name = type(module).__name__
    ours: Any = getattr(cells if name.endswith("Cell") else modules, name)
    new: nn.Module = ours.__new__(ours)
    new.__setstate__(dict(module.__dict__))
    new.__dict__["_rnnfast_replaced"] = (module,)  # in a tuple, out of sight of nn.Module and of state_dict
    return new


def _put_back(parent: nn.Module, key: str, new: nn.Module) -> None:
    """Puts what `new` replaced in its place, with the attributes that `new` now has (the dicts are shared anyway)."""
    if parent._modules.get(key) is not new:
        return
    parent._modules[key] = replaced_original(new)
