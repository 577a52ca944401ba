# SPDX-License-Identifier: Apache-2.0
"""The command line: `rnnfast info | demo | bench | train | run`, also as `python -m rnnfast`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from rnnfast import bench
from rnnfast.tasks import arguments as tasks
from rnnfast.version import __version__

EXAMPLES = """examples:
  rnnfast info                          what this installation is and has
  rnnfast demo                          train a character model on Python's documentation
  rnnfast demo --text book.txt          ... on any UTF-8 text
  rnnfast demo --resume                 go on with the latest run
  rnnfast bench --quick                 measure against torch.nn, ONNX Runtime and OpenVINO
  rnnfast train tag                     train a model on real data; lm, classify, tag, seq2seq, forecast
  rnnfast run runs/NAME/model.pt        use it, in a pipe
"""


def _positive(kind: type) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a positive number, got '{text}'") from None
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a positive number, got '{text}'")
        return value

    return parse


class _Parser(argparse.ArgumentParser):
    """Exit code 2 and one clear line for bad arguments."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser(task: str | None = None) -> argparse.ArgumentParser:
    """All commands; of `train` the options of this task."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="rnnfast",
        description="Recurrent networks at hardware speed.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"rnnfast {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("info", help="version, torch, instruction sets, threads, CUDA, and what is missing for more")
    demo = commands.add_parser(
        "demo",
        help="train a character language model on real text",
        description="Trains a character LSTM by truncated BPTT, judges it on held-out text, races torch.nn.LSTM, "
        "and leaves report.json, loss.png and checkpoint.pt in OUT/NAME.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    count, number = _positive(int), _positive(float)
    demo.add_argument("--text", metavar="FILE", help="UTF-8 text to learn (default: Python's documentation)")
    demo.add_argument("--name", help="of the run's folder (default: demo-N)")
    demo.add_argument("--out", default="runs", metavar="DIR", help="where runs are kept (default: runs)")
    demo.add_argument("--resume", action="store_true", help="go on with the run NAME, or the latest demo-N")
    demo.add_argument("--quick", action="store_true", help="a tiny model for a few seconds")
    demo.add_argument("--minutes", type=number, default=2.3, help="time limit of the training (default: 2.3)")
    demo.add_argument("--seed", type=int, help="of parameters and dropout (default: 0)")
    demo.add_argument("--steps", type=count, help="updates (default: 1800)")
    demo.add_argument("--hidden", type=count, help="units of a layer (default: 256)")
    demo.add_argument("--layers", type=count, help="stacked layers (default: 1)")
    demo.add_argument("--batch", type=count, help="streams side by side (default: 32)")
    demo.add_argument("--chunk", type=count, help="characters of one update's BPTT (default: 64)")
    measure = commands.add_parser(
        "bench",
        help="measure against torch.nn, ONNX Runtime, OpenVINO and the machine's limits",
        description=bench.DESCRIPTION,
        epilog=bench.EXAMPLES,
        formatter_class=raw,
    )
    bench.add_arguments(measure)
    train = commands.add_parser(
        "train",
        help="train a model on real data: lm, classify, tag, seq2seq, forecast",
        description="Trains a model on real data and leaves it, figures and pictures in OUT/NAME.",
        epilog=tasks.TRAIN_EXAMPLES,
        formatter_class=raw,
    )
    tasks.add_train(train, task)
    use = commands.add_parser(
        "run",
        help="use a trained model: reads stdin line by line and answers as it goes",
        description="Generates, classifies, labels, pronounces or forecasts, as the model has learned.",
        epilog=tasks.RUN_EXAMPLES,
        formatter_class=raw,
    )
    tasks.add_run(use)
    return parser


def _info() -> int:
    from rnnfast.info import info_text

    print(info_text())
    return 0


def _demo(args: argparse.Namespace) -> int:
    from rnnfast.info import missing_packages
    from rnnfast.runs import InputError

    missing = missing_packages("demo")
    if missing:
        return _fail("demo", f"needs {' and '.join(missing)}: pip install 'rnnfast[demo]'")
    from rnnfast.demo.run import demo

    try:
        return demo(args)
    except InputError as error:
        return _fail("demo", str(error))


def _train(args: argparse.Namespace) -> int:
    from rnnfast.info import missing_packages
    from rnnfast.runs import InputError

    missing = missing_packages("demo")
    if missing:
        return _fail(f"train {args.task}", f"needs {' and '.join(missing)}: pip install 'rnnfast[examples]'")
    from rnnfast.tasks.train import train

    try:
        return train(args)
    except InputError as error:
        return _fail(f"train {args.task}", str(error))


def _run(args: argparse.Namespace) -> int:
    from rnnfast.runs import InputError
    from rnnfast.tasks.run import run

    try:
        return run(args)
    except InputError as error:
        return _fail("run", str(error))
    except BrokenPipeError:
        # Whoever read has gone. What is still buffered must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _fail(command: str, message: str) -> int:
    print(f"rnnfast {command}: {message}", file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    task = words[1] if words[:1] == ["train"] and len(words) > 1 and words[1] in tasks.TASKS else None
    args = _parser(task).parse_args(words)
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "bench": bench.run, "demo": _demo, "info": lambda _: _info(), "run": _run, "train": _train,
    }  # fmt: skip
    try:
        return commands[args.command](args)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
