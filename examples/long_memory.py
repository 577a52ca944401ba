#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which networks learn to remember over 150 to 400 steps, and what clipping does: the IRNN paper's adding problem."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from adding_problem import BASELINE, CLIPS, RECIPES, TARGET, Run, Settings, write_json

from rnnfast.demo.report import smooth
from rnnfast.info import missing_packages
from rnnfast.runs import InputError, Interrupt

LENGTHS = (150, 200, 300, 400)
CHECKPOINT_EVERY = 200  # updates
COLOURS = {"none": "tab:red", "norm": "tab:green", "bptt": "tab:blue"}
ERRORS = (1e-4, 10.0)  # of the overview, where one run's spike would hide all others
FLOW_STYLES: dict[str, dict[str, Any]] = {
    "start": {"linewidth": 0.7},
    "peak": {"linewidth": 1.0, "linestyle": "--"},
    "end": {"linewidth": 1.6},
}
NAMES = {"none": "no clipping", "norm": "clip_grad_norm_", "bptt": "clipping inside BPTT"}

Result = dict[str, Any]

DESCRIPTION = """\
The adding problem (Hochreiter and Schmidhuber 1997; Le, Jaitly, Hinton 2015): T numbers, two of them marked; give the
sum of the two at the end. Always answering 1 has a mean squared error of 0.167; below 0.01 counts as solved.

Trains each cell at each length with each kind of clipping, one run after another, and writes to --out for each run
NAME.json (settings, record, result), NAME.png (error and gradient norm at each update), NAME-flow-start.png,
NAME-flow-peak.png and NAME-flow-end.png (the error signal over the steps before training, at the last peak, an update
whose gradient is more than twice that of the peak before, and after training); for each length an overview of all its
runs, T150-seed0.png.
Ctrl-C saves; the same command goes on, and takes finished runs from their JSON."""

EXAMPLES = """\
examples:
  python examples/long_memory.py --quick                          T = 150 alone: minutes to half an hour
  python examples/long_memory.py                                  the full table: hours; Ctrl-C and go on at will
  python examples/long_memory.py --cell irnn --length 200 --clip none norm bptt
  python examples/long_memory.py --cell gru --length 150 --clip none --learning-rate 1e-3
  python examples/long_memory.py --quick --seed 1 --out runs/second"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--quick", action="store_true", help="T = 150 only")
    p.add_argument("--cell", nargs="+", choices=RECIPES, default=list(RECIPES), help="default: all")
    p.add_argument("--length", nargs="+", type=_at_least(2), metavar="T", help="steps; default: 150 200 300 400")
    p.add_argument(
        "--clip",
        nargs="+",
        choices=CLIPS,
        default=CLIPS,
        help="none; norm: clip_grad_norm_ after the backward pass; bptt: the error signal inside it, step by step "
        "(bptt_clip); default: all three",
    )
    p.add_argument("--seed", type=_at_least(0), default=0, help="of weights and data; default: 0")
    p.add_argument("--updates", type=_at_least(1), help=f"at most, each run; default: {Settings.updates}")
    p.add_argument(
        "--learning-rate", type=positive_number, default=0.0, help="default: the cell's own, at every length"
    )
    p.add_argument("--no-flow", action="store_true", help="no pictures of the gradient flow")
    p.add_argument("--out", type=Path, default=Path("runs/long_memory"), help="default: runs/long_memory")
    return p


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {least}, got {text}")
        return value

    return whole_number


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def plan(args: argparse.Namespace) -> list[Settings]:
    """The runs that the command line asks for, shortest sequences first."""
    lengths = args.length or (LENGTHS[:1] if args.quick else LENGTHS)
    more: dict[str, Any] = {} if args.updates is None else {"updates": args.updates}
    return [
        Settings(cell, length, clip, args.seed, learning_rate=args.learning_rate, **more)
        for length in lengths
        for cell in args.cell
        for clip in args.clip
    ]


def finished_result(folder: Path, settings: Settings) -> Result | None:
    """The result of a run that is done, from its JSON; None where there is none.

    Raises:
        InputError: the file cannot be read, or is of a run with other settings.
    """
    path = folder / f"{settings.name}.json"
    if not path.exists():
        return None
    result = read_result(path)
    _check_settings(path, Settings(**result["settings"]), settings)
    if result["recipe"] != settings.recipe:
        raise InputError(
            f"{path} is of a run with another recipe ({result['recipe']}, not {settings.recipe}); remove it, or choose "
            "another --out"
        )
    return result


def read_result(path: Path) -> Result:
    """A run's JSON; raises InputError where it is none."""
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
        Settings(**result["settings"])
        dict(result["recipe"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it, or choose another --out") from None
    return result


def kept_results(folder: Path, length: int, seed: int, rate: float = 0.0) -> list[Result]:
    """All finished runs of a length, seed and learning rate that the folder has, also those of earlier commands."""
    names = [Settings(cell, length, clip, seed, learning_rate=rate).name for cell in RECIPES for clip in CLIPS]
    return [read_result(path) for name in names if (path := folder / f"{name}.json").exists()]


def open_run(folder: Path, settings: Settings) -> Run:
    """The run, from its checkpoint if it was interrupted.

    Raises:
        InputError: the checkpoint cannot be read, or is of a run with other settings.
    """
    path = folder / f"{settings.name}.pt"
    if not path.exists():
        return Run(settings)
    try:
        run = Run.load(path)
    except Exception as error:  # whatever a damaged file makes the reader raise, the user can do one thing about it
        raise InputError(f"{path}: cannot be read ({error}); remove it, or choose another --out") from None
    _check_settings(path, run.settings, settings)
    return run


def _check_settings(path: Path, found: Settings, settings: Settings) -> None:
    if found != settings:
        names = [name for name in vars(found) if getattr(found, name) != getattr(settings, name)]
        differences = ", ".join(f"{name} {getattr(found, name)}, not {getattr(settings, name)}" for name in names)
        raise InputError(f"{path} is of a run with other settings ({differences}); remove it, or choose another --out")


def train(run: Run, folder: Path, interrupt: Interrupt, flow: bool) -> bool:
    """Runs to the end or to Ctrl-C, which saves; says whether it came to the end."""
    from tqdm import tqdm

    s, p = run.settings, run.progress
    checkpoint = folder / f"{s.name}.pt"
    if flow and "start" not in p.flow and p.update == 0:
        run.record_flow(folder / f"{s.name}-flow-start.png", "start")
    with tqdm(total=s.updates, initial=p.update, desc=f"T={s.length} {s.cell} {s.clip}", mininterval=0.3) as bar:
        while not run.finished and not interrupt.asked:
            run.advance(folder / f"{s.name}-flow-peak.png" if flow else None)
            error = f", held out {p.test[-1][1]:.4f}" if p.test else ""
            bar.set_postfix_str(f"error {p.loss[-1]:.4f}{error}", refresh=False)
            bar.update()
            if p.update % CHECKPOINT_EVERY == 0:
                run.save(checkpoint)
    if not run.finished:
        run.save(checkpoint)
        return False
    if flow:
        run.record_flow(folder / f"{s.name}-flow-end.png", "end")
    write_json(folder / f"{s.name}.json", run.result())
    checkpoint.unlink(missing_ok=True)
    return True


def curve(values: Iterable[float | str]) -> list[float]:
    """Of a JSON record, up to the first value that is not finite."""
    numbers = []
    for value in values:
        if isinstance(value, str):
            break
        numbers.append(value)
    return numbers


def _draw_curves(top: Any, bottom: Any, result: Result, colour: str, label: str) -> None:
    """Error on batches and held out in one, gradient norm in the other."""
    loss, norm = curve(result["loss"]), curve(result["gradient_norm"])
    top.plot(range(1, len(loss) + 1), loss, color=colour, alpha=0.2, linewidth=0.5)
    top.plot(range(1, len(loss) + 1), smooth(loss), color=colour, linewidth=1.2, label=label)
    bottom.plot(range(1, len(norm) + 1), norm, color=colour, alpha=0.2, linewidth=0.5)
    bottom.plot(range(1, len(norm) + 1), smooth(norm), color=colour, linewidth=1.2, label=label)
    if result["diverged"]:
        for axes in (top, bottom):
            axes.axvline(result["updates"], color=colour, linestyle="--", linewidth=1)


def _draw_flow(axes: Any, result: Result, colour: str) -> None:
    """The error signal over the steps: before training thin, after it thick, at its last peak dashed; by c paler."""
    for when, style in FLOW_STYLES.items():
        for key, alpha in (("signal", 1.0), ("signal_c", 0.4)):
            signal = [float(norm) or math.nan for norm in result["gradient_flow"].get(when, {}).get(key, [])]
            axes.plot(range(len(signal)), signal, color=colour, alpha=alpha, **style)


def _draw_frame(top: Any, bottom: Any) -> None:
    top.axhline(BASELINE, color="grey", linestyle=":", linewidth=1)
    top.axhline(TARGET, color="grey", linestyle="--", linewidth=1)
    bottom.set_xlabel("update")
    for axes in (top, bottom):
        axes.set_yscale("log")
        axes.grid(alpha=0.3)


def draw_run(path: Path, result: Result) -> None:
    """Error and gradient norm of one run."""
    from matplotlib import pyplot

    s = result["settings"]
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    _draw_curves(top, bottom, result, COLOURS[s["clip"]], "batches, mean of 25")
    test = [(update, error) for update, error in result["test"] if not isinstance(error, str)]
    if test:
        top.plot(*zip(*test, strict=True), ".-", color="black", markersize=3, linewidth=0.8, label="held out")
    _draw_frame(top, bottom)
    top.set_title(f"adding problem, T = {s['length']}: {s['cell']}, {NAMES[s['clip']]}, seed {s['seed']}")
    top.set_ylabel("mean squared error (dotted: answering 1; dashed: solved)")
    bottom.set_ylabel("gradient norm")
    top.legend(fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_overview(path: Path, results: Sequence[Result]) -> None:
    """All runs of one length, a column for each cell; below, what is left of the error signal at each step."""
    from matplotlib import pyplot

    cells = list(dict.fromkeys(result["settings"]["cell"] for result in results))
    flow = any(result["gradient_flow"] for result in results)
    size = (4 * len(cells) + 1, 10 if flow else 7)
    figure, axes = pyplot.subplots(3 if flow else 2, len(cells), figsize=size, squeeze=False, layout="constrained")
    for column, cell in enumerate(cells):
        top, bottom = axes[:2, column]
        for result in results:
            s = result["settings"]
            if s["cell"] == cell:
                _draw_curves(top, bottom, result, COLOURS[s["clip"]], NAMES[s["clip"]])
                if flow:
                    _draw_flow(axes[2, column], result, COLOURS[s["clip"]])
        _draw_frame(top, bottom)
        top.set_ylim(*ERRORS)  # spikes above it show in the gradient
        if flow:
            axes[2, column].sharey(axes[2, 0])
            axes[2, column].set_yscale("log")
            axes[2, column].set_xlabel("time step")
            axes[2, column].grid(alpha=0.3)
        top.set_title(f"{cell}, T = {results[0]['settings']['length']}")
        top.legend(fontsize=8)
    axes[0, 0].set_ylabel("mean squared error")
    axes[1, 0].set_ylabel("gradient norm")
    if flow:
        axes[2, 0].set_ylabel("norm of dL/dh_t, paler: dL/dc_t\n(thin: untrained; dashed: at a peak)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def table(results: Sequence[Result]) -> str:
    """One row a run."""
    rows = [("T", "cell", "clipping", "best error", "solved after", "updates", "time", "")]
    for result in results:
        s = result["settings"]
        note = "diverged" if result["diverged"] else ""
        solved = f"{result['solved_at']} updates" if result["solved_at"] else "not solved"
        minutes, seconds = divmod(round(result["seconds"]), 60)
        best = result["best_test_error"]
        error = best if isinstance(best, str) else f"{best:.4f}"
        rows.append(
            (
                str(s["length"]),
                s["cell"],
                s["clip"],
                error,
                solved,
                str(result["updates"]),
                f"{minutes}:{seconds:02}",
                note,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def run_all(args: argparse.Namespace) -> int:
    """All runs of the command line; 130 where Ctrl-C ended it."""
    import matplotlib

    matplotlib.use("Agg")
    folder: Path = args.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be made ({error.strerror})") from None
    results: list[Result] = []
    with Interrupt() as interrupt:
        for settings in plan(args):
            result = finished_result(folder, settings)
            if result is None:
                if not train(open_run(folder, settings), folder, interrupt, not args.no_flow):
                    print(table(results) if results else "", file=sys.stderr)
                    print(f"interrupted; saved in {folder}/. The same command goes on.", file=sys.stderr)
                    return 130
                result = finished_result(folder, settings)
                assert result is not None  # train has written it
                draw_run(folder / f"{settings.name}.png", result)
            results.append(result)
            kept = kept_results(folder, settings.length, settings.seed, settings.learning_rate)
            draw_overview(folder / f"{settings.group}.png", kept)
    print(table(results))
    print(f"mean squared error on held-out samples (answering 1: {BASELINE:.3f}); JSON and pictures in {folder}/")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    missing = missing_packages("demo")
    if missing:
        print(f"long_memory.py: {', '.join(missing)} missing: pip install 'rnnfast[demo]'", file=sys.stderr)
        return 2
    args = parser().parse_args(argv)
    try:
        return run_all(args)
    except InputError as error:
        print(f"long_memory.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
