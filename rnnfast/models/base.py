# SPDX-License-Identifier: Apache-2.0
"""What all models share: a configuration, one file that holds everything, and the recurrent part."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from rnnfast.init import Init, initialise, irnn_
from rnnfast.models.vocabulary import Vocabulary
from rnnfast.modules import GRU, LSTM, RNN
from rnnfast.version import __version__

__all__ = ["BACKENDS", "CELLS", "Model", "load", "recurrent"]

FORMAT = "rnnfast.model"
VERSION = 1

CELLS = ("rnn", "rnn_relu", "irnn", "lstm", "gru")
BACKENDS = ("rnnfast", "torch")

ModelType = TypeVar("ModelType", bound="type[Model]")


class Model(nn.Module):
    """Base of the models.

    A subclass has a `kind` (the name in its files), keeps its constructor's arguments in `_config`, and gives

    - `forward`: what the network computes;
    - `loss`: a scalar for `.backward()`, the mean over what is predicted;
    - one or more methods that use the trained model (eval mode and no autograd inside).

    Sequences are [T, B] (int64 symbols) or [T, B, F] (real values), padded at the end, with `lengths` [B] (integers,
    each from 1 to T) or None where every sample fills T. What stands in the padding is never read: samples run packed.

    `vocabulary` (names to :class:`Vocabulary`) and `extra` (JSON values) travel in the model's file; the network itself
    uses neither.
    """

    kind: ClassVar[str]

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = dict(config)
        self.vocabulary: dict[str, Vocabulary] = {}
        self.extra: dict[str, Any] = {}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values: `type(model)(**model.config())` is an untrained twin."""
        return json.loads(json.dumps(self._config))

    def save(
        self,
        path: str | os.PathLike[str],
        vocabulary: Mapping[str, Vocabulary] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes weights, configuration, vocabulary and `extra` to one file: whole, or not at all.

        Args:
            path: the file; an existing one is replaced.
            vocabulary, extra: by default the model's own.

        Raises:
            TypeError: extra holds what JSON does not know.
            OSError: the file cannot be written.
        """
        vocabulary = self.vocabulary if vocabulary is None else vocabulary
        data = {
            "format": FORMAT,
            "version": VERSION,
            "rnnfast": __version__,
            "kind": self.kind,
            "config": json.dumps(self._config),
            "dtype": str(next(self.parameters()).dtype).removeprefix("torch."),
            "vocabulary": json.dumps({name: v.state() for name, v in vocabulary.items()}),
            "extra": json.dumps(dict(self.extra if extra is None else extra)),
            "weights": self.state_dict(),
        }
        data["digest"] = _digest(data)
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            with open(partial, "wb") as file:
                torch.save(data, file)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of a file's content: torch's reader does not notice a changed byte among the weights."""
    digest = hashlib.sha256()
    for key in ("kind", "config", "dtype", "vocabulary", "extra"):
        digest.update(f"{key}={data[key]}\0".encode())
    for name, tensor in data["weights"].items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


_KINDS: dict[str, type[Model]] = {}


def register(model: ModelType) -> ModelType:
    """Class decorator: makes the kind known to :func:`load`."""
    _KINDS[model.kind] = model
    return model


def load(path: str | os.PathLike[str], backend: str | None = None) -> Any:
    """The model in a file that :meth:`Model.save` wrote, in eval mode on the CPU, with its `vocabulary` and `extra`.

    Nothing of the file is executed (`weights_only`).

    Args:
        path: the file.
        backend: "rnnfast" or "torch", if another than the one it was saved with.

    Raises:
        FileNotFoundError, PermissionError: as open.
        ValueError: the file is damaged, no model of rnnfast, or of a newer format; the message says which.
    """
    with open(path, "rb"):  # its own errors: no such file, no permission, a folder
        pass
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Foreign bytes make the reader raise anything; to the user all of it means the same.
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"rnnfast.models.load: {path}: damaged, or no model of rnnfast ({reason})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"rnnfast.models.load: {path}: expected a model that rnnfast saved, got another torch file")
    version = data.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(
            f"rnnfast.models.load: {path}: format version {version} is newer than this rnnfast reads ({VERSION}); "
            f"it was written by rnnfast {data.get('rnnfast')}, this is {__version__}"
        )
    try:
        if data["digest"] != _digest(data):
            raise ValueError("its content is not what was written: the file is damaged")
        model = _build(data, backend)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise ValueError(
            f"rnnfast.models.load: {path}: damaged, or its parts do not fit together ({reason})"
        ) from error
    return model


def _build(data: dict[str, Any], backend: str | None) -> Model:
    """The model of a file's content."""
    config = json.loads(data["config"])
    if data["kind"] not in _KINDS:
        raise ValueError(f"kind: expected one of {sorted(_KINDS)}, got {data['kind']!r}")
    if backend is not None:
        config["backend"] = backend
    with torch.random.fork_rng(devices=[]):  # initial weights, soon overwritten: the user's draws stay as they are
        model = _KINDS[data["kind"]](**config).to(getattr(torch, data["dtype"]))
    model.load_state_dict(data["weights"])
    model.vocabulary = {name: Vocabulary.of(state) for name, state in json.loads(data["vocabulary"]).items()}
    model.extra = json.loads(data["extra"])
    return model.eval()


def recurrent(
    cell: str,
    input_size: int,
    hidden_size: int,
    layers: int = 1,
    *,
    backend: str = "rnnfast",
    bias: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    init: Init = None,
) -> nn.Module:
    """The recurrent part of a model: an RNN, LSTM or GRU of rnnfast, or the very same one of torch.nn.

    Args:
        cell: "rnn" (tanh), "rnn_relu", "irnn" (ReLU, started as Le, Jaitly and Hinton 2015 do), "lstm" or "gru".
        input_size, hidden_size, layers, bias, bidirectional: as torch.nn.
        backend: "rnnfast" or "torch": with the same seed the same parameters, and the same results but for rounding.
        dropout: between the layers.
        init: what the parameters start from, of either backend: a name of :mod:`rnnfast.init`, a pair of a name and a
            value, or a function of the module; None: torch.nn's initialisation (of "irnn" its own). No part of a
            model's configuration: a loaded model has its weights from the file.

    Raises:
        ValueError: an unknown cell or backend; an init that is unknown or does not fit the cell; what torch.nn refuses.
    """
    if cell not in CELLS:
        raise ValueError(f"rnnfast.models: cell: expected one of {', '.join(CELLS)}, got {cell!r}")
    if backend not in BACKENDS:
        raise ValueError(f"rnnfast.models: backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    ours: dict[str, type[nn.Module]] = {"lstm": LSTM, "gru": GRU}
    theirs: dict[str, type[nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU}
    options: dict[str, Any] = {"bias": bias, "bidirectional": bidirectional, "dropout": dropout if layers > 1 else 0.0}
    if cell in ("rnn_relu", "irnn"):
        options["nonlinearity"] = "relu"
    kind = (ours if backend == "rnnfast" else theirs).get(cell, RNN if backend == "rnnfast" else nn.RNN)
    module = kind(input_size, hidden_size, layers, **options)
    if cell == "irnn":
        irnn_(module)
    initialise(module, init)
    return module
