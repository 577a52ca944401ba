# SPDX-License-Identifier: Apache-2.0
"""What RNN, LSTM and GRU share: parameters, their names, copies and checkpoints, and the way to the kernels.

torch.nn's modules are the specification; nothing derives from them, since torch.compile breaks the graph at any
instance of torch.nn.RNN, LSTM and GRU.
"""

import itertools
import math
import numbers
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.utils.rnn import PackedSequence

from rnnfast import functional
from rnnfast.checks import check_input, check_size
from rnnfast.control import NAMES, Control, control, options_text
from rnnfast.init import Init, init_text, initialise
from rnnfast.ops import direct_layers
from rnnfast.script import torch_twin
from rnnfast.specs import MODES

__all__ = ["NO_PROJECTION", "RNNBase", "flat_weights", "own_forward"]

NO_PROJECTION = "proj_size argument is only supported for LSTM, not RNN or GRU"
_MISSING = object()

# What older versions of torch and rnnfast left in pickles and what is derived from the other attributes here.
_STALE = (
    "all_weights",
    "_flat_weights",
    "_flat_weight_refs",
    "_param_buf_size",
    "_data_ptrs",
    "_layer_names",
    "_recorder",
)


def flat_weights(module: nn.Module, names: Iterable[str]) -> list[Any]:
    """The tensors of these names as they are now: parameters, or what parametrizations and pruning put there."""
    parameters = module._parameters
    found = []
    for name in names:
        weight = parameters.get(name, _MISSING)  # nn.Module's own lookup costs ten times as much
        found.append(getattr(module, name) if weight is _MISSING else weight)
    return found


def own_forward(module: nn.Module) -> str | None:
    """Why calling this rnnfast module or cell is not just rnnfast's own forward, or None where it is."""
    kind: Any = next((base for base in type(module).__mro__ if "_torch_class" in vars(base)), RNNBase)
    if "forward" in module.__dict__:
        return "forward is replaced on the object"
    return "its class overrides forward" if type(module).forward is not kind.forward else None


class RNNBase(nn.Module):
    """Base of :class:`rnnfast.RNN`, :class:`rnnfast.LSTM` and :class:`rnnfast.GRU`; see those."""

    __constants__ = [  # noqa: RUF012
        "mode",
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
    ]

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    _init_option: Init = None  # an attribute of the object only where it was given
    # Attributes of the object where one of them was given.
    bptt_clip: tuple[str, float] | None = None
    bptt_steps: int | None = None
    checkpoint_every: int | str | None = None
    nan_policy: str = "propagate"
    _recorder: int = 0  # rnnfast.diagnostics.gradient_flow sets it

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        init: Init = None,
        bptt_clip: tuple[str, float] | None = None,
        bptt_steps: int | None = None,
        checkpoint_every: int | str | None = None,
        nan_policy: str = "propagate",
    ) -> None:
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        options = (bptt_clip, bptt_steps, checkpoint_every, nan_policy)
        if control(f"rnnfast.{type(self).__name__}", *options) is not None:
            self.__dict__.update(zip(NAMES, options, strict=True))
        _check_constructor(mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)

        gates = MODES[mode].gates * hidden_size
        outputs = proj_size or hidden_size
        directions = 2 if bidirectional else 1
        self._set_names()
        for index, names in enumerate(self._all_weights):
            features = input_size if index < directions else directions * outputs
            shapes: list[tuple[int, ...]] = [(gates, features), (gates, outputs)]
            shapes += [(gates,), (gates,)] if bias else []
            shapes += [(proj_size, hidden_size)] if proj_size else []
            for name, shape in zip(names, shapes, strict=True):
                setattr(self, name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        if init is not None:
            self._init_option = init
        self.reset_parameters()

    def _set_names(self) -> None:
        """Parameter names: _all_weights by layer and direction, _flat_weights_names in one row."""
        kinds = ["weight_ih", "weight_hh"]
        kinds += ["bias_ih", "bias_hh"] if self.bias else []
        kinds += ["weight_hr"] if self.proj_size else []
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        self._all_weights: list[list[str]] = [
            [f"{kind}_l{layer}{suffix}" for kind in kinds] for layer in range(self.num_layers) for suffix in suffixes
        ]
        self._flat_weights_names: list[str] = [name for names in self._all_weights for name in names]

    def reset_parameters(self) -> None:
        """Draws every parameter from U(-1/sqrt(H), 1/sqrt(H)), in torch.nn's order: same seed, same parameters.

        Then `init` sets those that it is about.
        """
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        initialise(self, self._init_option)

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction: weight_ih, weight_hh, bias_ih, bias_hh, weight_hr."""
        return [flat_weights(self, names) for names in self._all_weights]

    @property
    def _flat_weights(self) -> tuple[Tensor, ...]:
        """The weights of all layers in a row, read anew each time: a tuple, since nothing would read what is put in."""
        return tuple(flat_weights(self, self._flat_weights_names))

    @_flat_weights.setter
    def _flat_weights(self, weights: Iterable[Any]) -> None:
        """For code that keeps torch.nn's list up to date: accepts what is already there, and nothing else."""
        if any(a is not b for a, b in itertools.zip_longest(weights, flat_weights(self, self._flat_weights_names))):
            raise AttributeError(
                f"{type(self).__name__}: _flat_weights: the weights are read by name at every call; "
                "set the parameters themselves (weight_ih_l0, ...)"
            )

    def flatten_parameters(self) -> None:
        """Does nothing: rnnfast needs no flat weights. Here for torch.nn's interface."""

    # The upkeep of torch.nn's list of weights by its names, for subclasses that call it: here there is no list.

    def _init_flat_weights(self) -> None:
        """Does nothing: see _flat_weights."""

    def _update_flat_weights(self) -> None:
        """Does nothing: see _flat_weights."""

    def _weights_have_changed(self) -> bool:
        """False: no list of weights that could be stale."""
        return False

    def extra_repr(self) -> str:
        """As torch.nn prints itself."""
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.batch_first is not False:
            text += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            text += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            text += f", bidirectional={self.bidirectional}"
        if self._init_option is not None:
            text += f", init={init_text(self._init_option)}"
        return text + options_text(self)

    def _control(self) -> Control | None:
        """The options that control BPTT, checked anew: they are attributes that may be set."""
        options = (self.bptt_clip, self.bptt_steps, self.checkpoint_every, self.nan_policy)
        return control(f"rnnfast.{type(self).__name__}", *options, self._recorder)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Runs all layers over the sequence. Shapes: see the class."""
        if self.nan_policy == "propagate" and not is_compiling():
            result = direct_layers(self.mode, input, hx, self.__dict__)
            if result is not None:  # plain tensors, no grad: done
                return result
        weights = flat_weights(self, self._flat_weights_names)
        return functional.run_module(self, input, hx, weights, self._control())

    # The checks by torch.nn's names, for subclasses that call them.

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raises as torch.nn for an input of another rank, size or dtype. input: [T, B, I], [B, T, I] or packed."""
        dtype = flat_weights(self, self._flat_weights_names[:1])[0].dtype
        check_input(MODES[self.mode], input, batch_sizes, dtype, self.input_size)

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The size of h_0: (L*D, B, P)."""
        rows = self.num_layers * (2 if self.bidirectional else 1)
        batch = int(batch_sizes[0]) if batch_sizes is not None else input.shape[0 if self.batch_first else 1]
        return rows, batch, self.proj_size or self.hidden_size

    def check_hidden_size(
        self,
        hx: Tensor,
        expected_hidden_size: tuple[int, int, int],
        msg: str = "Expected hidden size {}, got {}",
    ) -> None:
        """Raises RuntimeError for a state of another size."""
        check_size(hx, expected_hidden_size, msg)

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """check_input, and check_hidden_size of the state."""
        self.check_input(input, batch_sizes)
        self.check_hidden_size(hidden, self.get_expected_hidden_size(input, batch_sizes))

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """The state's samples in another order."""
        return functional.permute(MODES[self.mode], hx, permutation)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also of pickles that lack what came later (proj_size), or hold what is derived now (all_weights)."""
        super().__setstate__(state)
        for name in _STALE:
            self.__dict__.pop(name, None)
        self.__dict__.setdefault("proj_size", 0)
        if MODES[self.mode].nonlinearity is not None:
            self.__dict__.setdefault("nonlinearity", MODES[self.mode].nonlinearity)
        self._set_names()

    def __prepare_scriptable__(self) -> nn.Module:
        """torch.jit.script cannot compile this class: it gets torch.nn's on the same parameters, in its place."""
        options = {name: getattr(self, name) for name in ("num_layers", "bias", "batch_first", "dropout")}
        options["bidirectional"] = bool(self.bidirectional)
        if self.proj_size:
            options["proj_size"] = self.proj_size
        return torch_twin(self, MODES[self.mode], self._flat_weights_names, options)


def _check_constructor(
    mode: str,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    batch_first: bool,
    dropout: float,
    proj_size: int,
) -> None:
    """torch.nn's checks, in its order, with its exception types and messages."""
    if not isinstance(dropout, numbers.Number) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
            f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=4,
        )
    for name, value, kind in (("bias", bias, bool), ("batch_first", batch_first, bool)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} should be of type {kind.__name__}, got: {type(value).__name__}")
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(size, int):
            raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
        if size <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")
    if mode not in MODES:
        raise ValueError(f"Unrecognized RNN mode: {mode}")
    if proj_size > 0 and mode != "LSTM":
        raise ValueError(NO_PROJECTION)
