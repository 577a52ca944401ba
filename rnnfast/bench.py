# SPDX-License-Identifier: Apache-2.0
"""`rnnfast bench`: its arguments, and where the benchmark itself is found (benchmarks/ of the repository)."""

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

CELLS = ("lstm", "gru", "rnn_tanh")
MODES = ("inference", "training", "streaming", "overhead", "memory", "recomputation")
RIVALS = ("torch", "onnxruntime", "openvino")

EXAMPLES = """examples:
  rnnfast bench --quick                           a few cases of each cell, under two minutes
  rnnfast bench                                   all modes but recomputation, about a quarter of an hour
  rnnfast bench --cell gru --mode training        one cell, one mode
  rnnfast bench --mode recomputation              T=20,000: minutes, and gigabytes of memory
  rnnfast bench --case 64,32,256,256 --no-memory  one shape, times only
  rnnfast bench --rivals torch,openvino           without ONNX Runtime
  rnnfast bench --out reports/this-machine        where results.json, .csv, report.html and the plots go
"""
DESCRIPTION = """Measures rnnfast against torch.nn, ONNX Runtime and OpenVINO, as far as they are installed, on the same
weights in one run, and against the machine's own limits. Results are verified before they are timed. The last two, and
the plots: pip install 'rnnfast[bench]'. Ctrl-C keeps what has been measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `rnnfast bench`."""
    parser.add_argument("--quick", action="store_true", help="a few cases, half a second or 5 rounds each")
    parser.add_argument("--cell", choices=CELLS, help="only this cell")
    parser.add_argument("--mode", choices=MODES, help="only this mode (recomputation: only if named)")
    parser.add_argument("--case", metavar="T,B,I,H", help="only this shape")
    parser.add_argument(
        "--rivals",
        type=_rivals,
        default=RIVALS,
        metavar="LIST",
        help=f"any of {', '.join(RIVALS)}, with commas between them (default: all)",
    )
    parser.add_argument("--threads", type=_at_least(1), default=2, metavar="N", help="of every contender (default: 2)")
    parser.add_argument(
        "--seconds", type=_seconds, default=2.0, metavar="S", help="spent on each case, at least --rounds (default: 2)"
    )
    parser.add_argument(
        "--rounds", type=_at_least(2), default=15, metavar="N", help="the least number of rounds (default: 15)"
    )
    parser.add_argument("--no-memory", action="store_true", help="without what measures memory, which starts processes")
    parser.add_argument(
        "--sweeps",
        action=argparse.BooleanOptionalAction,
        help="cost against T, B, H and threads (default: yes, unless --cell, --mode or --case choose something else)",
    )
    parser.add_argument("--no-plots", action="store_true", help="no PNG files and no page")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the report (default: benchmarks/results/local, or rnnfast-bench)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    package = find()
    if package is None:
        print("rnnfast bench: this installation has no benchmark: install rnnfast from its repository", file=sys.stderr)
        return 2
    runner: Any = importlib.import_module(f"{package}.run")
    code: int = runner.run(args)
    return code


def find() -> str | None:
    """The package that holds the benchmark: benchmarks in a checkout, rnnfast.benchmarks in a wheel."""
    root = Path(__file__).resolve().parent.parent
    if (root / "benchmarks/run.py").is_file() and (root / "pyproject.toml").is_file():
        if sys.path[:1] != [str(root)]:
            sys.path.insert(0, str(root))  # before a benchmarks/ of the folder that the user is in
        return "benchmarks"
    return "rnnfast.benchmarks" if importlib.util.find_spec("rnnfast.benchmarks") else None


def _rivals(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    for name in names:
        if name not in RIVALS:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(RIVALS)}, got '{name}'")
    return names


def _at_least(bound: int) -> Any:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = bound - 1
        if value < bound:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {bound}, got '{text}'")
        return value

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not negative, got '{text}'")
    return value
