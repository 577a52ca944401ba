# SPDX-License-Identifier: Apache-2.0
"""The options of `rnnfast train` and `rnnfast run`."""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

TASKS = {
    "lm": ("LanguageTask", "language model: what comes next in a text"),
    "classify": ("ClassifyTask", "a class for each sequence: digits pixel by pixel, .ts files, texts"),
    "tag": ("TagTask", "a label for each token: a highlighter of Python, words of sentences, slots"),
    "seq2seq": ("Seq2SeqTask", "one sequence to another: spelling to pronunciation, any pairs"),
    "forecast": ("ForecastTask", "the next steps of a series, with intervals"),
}
CELLS = ("rnn", "rnn_relu", "irnn", "lstm", "gru", "none")
INITS = ("orthogonal", "forget_bias", "chrono", "identity", "irnn")
INIT_FORM = "orthogonal, forget_bias, identity or irnn, =VALUE after it for another than 1, or chrono=LENGTH"

TRAIN_EXAMPLES = """examples:
  rnnfast train lm                                        characters of Python's documentation
  rnnfast train lm --text book.txt --minutes 5            any text
  rnnfast train lm --unit word --train a.txt --valid b.txt --test c.txt
  rnnfast train classify --cell irnn                      digits, pixel by pixel
  rnnfast train classify --train X_TRAIN.ts --test X_TEST.ts
  rnnfast train tag                                       a highlighter of Python source
  rnnfast train tag --train en-train.conllu --test en-test.conllu
  rnnfast train tag --data atis/ --unknown-labels wrong   slots and intents
  rnnfast train seq2seq                                   spelling to pronunciation
  rnnfast train forecast --data sales.csv --column sold --season 12
  rnnfast train lm --resume                               go on with the latest run of the task
  rnnfast train tag --backend torch                       the same model on torch.nn
"""
RUN_EXAMPLES = """examples:
  echo "The with statement" | rnnfast run runs/lm-1/model.pt --length 300
  cut -f1 reviews.tsv | rnnfast run runs/classify-1/model.pt
  rnnfast run runs/tag-1/model.pt < program.py
  echo "flights from boston to denver" | rnnfast run runs/tag-2/model.pt
  echo recurrent | rnnfast run runs/seq2seq-1/model.pt --best 3
  tail -f measured.txt | rnnfast run runs/forecast-1/model.pt
"""


def whole(least: int = 1) -> Callable[[str], int]:
    """Parser of a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or value > 2**31:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got '{text}'")
        return value

    return parse


def number(least: float, most: float = float("inf"), open_below: bool = False) -> Callable[[str], float]:
    """Parser of a number from least to most, finite."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (least <= value <= most) or value == float("inf") or (open_below and value == least):
            above = "above" if open_below else "of at least"
            limit = "" if most == float("inf") else f" and at most {most:g}"
            raise argparse.ArgumentTypeError(f"expected a number {above} {least:g}{limit}, got '{text}'")
        return value

    return parse


def task_class(name: str) -> Any:
    """The class of a task; imports torch's part of it."""
    return getattr(importlib.import_module(f"rnnfast.tasks.{name}"), TASKS[name][0])


def add_train(parser: argparse.ArgumentParser, task: str | None) -> None:
    """The options of `rnnfast train`; those of one task where it is known (loading it takes a moment)."""
    raw = argparse.RawDescriptionHelpFormatter
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name, (_, text) in TASKS.items():
        sub = tasks.add_parser(name, help=text, description=text[0].upper() + text[1:] + ". " + _LEAVES,
                               epilog=TRAIN_EXAMPLES, formatter_class=raw)  # fmt: skip
        if name == task:
            chosen = task_class(name)
            _specific(sub, chosen)
            _common(sub, chosen.defaults)


_LEAVES = (
    "Leaves results.json, pictures, model.pt (for rnnfast run) and checkpoint.pt in OUT/NAME. "
    "Ctrl-C saves; --resume goes on."
)


def _specific(parser: argparse.ArgumentParser, task: Any) -> None:
    """The task's own options, whose whole numbers must be positive."""
    task.add_arguments(parser)
    for action in parser._actions:
        if action.type is int:
            action.type = whole()


def _common(parser: argparse.ArgumentParser, defaults: Any) -> None:
    def add(name: str, kind: Callable[[str], Any], text: str) -> None:
        default = defaults.get(name.replace("-", "_"))
        shown = "" if default is None else f" (default: {default:g})"
        parser.add_argument(f"--{name}", type=kind, metavar="X", help=text + shown)

    parser.add_argument(
        "--cell", choices=CELLS, help="none: without recurrence, a baseline of classify and tag (default: lstm)"
    )
    parser.add_argument("--init", metavar="NAME[=X]", help=f"of the recurrent part: {INIT_FORM} (default: as torch.nn)")
    parser.add_argument("--backend", choices=("rnnfast", "torch"), help="torch: the same model on torch.nn's layers")
    add("hidden", whole(), "units of a layer")
    add("layers", whole(), "stacked layers")
    add("embedding", whole(), "features of a symbol")
    add("dropout", number(0, 0.99), "probability")
    add("epochs", whole(), "passes over the training part")
    add("batch", whole(), "sequences of an update")
    add("learning-rate", number(0, open_below=True), "of AdamW, at its highest")
    add("weight-decay", number(0), "of AdamW")
    add("clip", number(0, open_below=True), "limit of the gradient's norm, 1 unless said")
    add("patience", whole(), "evaluations without a better one before training ends")
    add("seed", whole(0), "of data split, parameters, dropout and order; 0 unless said")
    parser.add_argument("--minutes", type=number(0, open_below=True), help="time limit of the training")
    parser.add_argument("--threads", type=whole(), metavar="N", help="of the processor")
    parser.add_argument("--name", help="of the run's folder (default: TASK-time)")
    parser.add_argument("--out", default="runs", metavar="DIR", help="where runs are kept (default: runs)")
    parser.add_argument("--resume", action="store_true", help="go on with the run NAME, or the latest TASK-time")


def add_files(parser: argparse.ArgumentParser, kind: str, text: str) -> None:
    """--data, or --train with --valid and --test."""
    parser.add_argument(
        "--data", metavar=kind, help=f"{text}; a tenth becomes the validation part, a tenth the test part"
    )
    parser.add_argument("--train", metavar=kind, help="instead of --data")
    parser.add_argument("--valid", metavar=kind, help="with --train; else a tenth of it")
    parser.add_argument("--test", metavar=kind, help="with --train; else a tenth of it")


def add_run(parser: argparse.ArgumentParser) -> None:
    """The options of `rnnfast run`."""
    parser.add_argument("model", metavar="MODEL", help="model.pt of a run, or the run's folder")
    parser.add_argument("--backend", choices=("rnnfast", "torch"), help="run on torch.nn's layers")
    parser.add_argument("--threads", type=whole(), metavar="N", help="of the processor")
    parser.add_argument("--length", type=whole(), default=200, help="lm: symbols to generate (default: 200)")
    parser.add_argument(
        "--temperature", type=number(0), default=0.8, help="lm: 0 takes the most probable (default: 0.8)"
    )
    parser.add_argument("--top-k", type=whole(), help="lm: draw among the K most probable")
    parser.add_argument(
        "--top-p", type=number(0, 1, open_below=True), help="lm: among the fewest that hold probability P"
    )
    parser.add_argument("--seed", type=whole(0), default=0, help="lm: of what is drawn (default: 0)")
    parser.add_argument("--best", type=whole(), default=1, metavar="N", help="seq2seq: so many answers (default: 1)")
    parser.add_argument("--beam", type=whole(), default=5, help="seq2seq: hypotheses of the search (default: 5)")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto",
                        help="tag: Python source in colours (default: on a terminal)")  # fmt: skip
