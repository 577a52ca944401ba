# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark: `rnnfast bench`, `make bench`, or `python -m benchmarks.run` in a checkout."""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from rnnfast import bench
from rnnfast.info import machine_facts

from . import limits, memory, page, plots, report, rivals, runtimes, sweeps, targets, timing
from .cases import Case, all_cases, chosen
from .limits import Limits
from .report import Measured

QUICK_SECONDS, QUICK_ROUNDS = 0.5, 5
QUICK_CASE = 4.0  # seconds after which a case of --quick has had enough rounds: two
QUICK_LIMIT = 75.0  # seconds after which --quick begins no further case, so that it ends within two minutes
SWEEP_SECONDS, SWEEP_ROUNDS = 0.2, 3
LONG_SECONDS, LONG_ROUNDS = 60.0, 5  # of recomputation, whose steps take seconds: at most these, but two rounds
Item = TypeVar("Item", Case, sweeps.Point)


@dataclass
class Found:
    """What a run has measured so far, and what went wrong."""

    measured: list[Measured] = field(default_factory=list)
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # of rnnfast itself
    skipped: list[str] = field(default_factory=list)  # by --quick, on a slow machine
    interrupted: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line, where it is started without `rnnfast bench`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=bench.DESCRIPTION, epilog=bench.EXAMPLES, formatter_class=raw
    )
    bench.add_arguments(parser)
    return run(parser.parse_args(arguments))


def run(args: argparse.Namespace) -> int:
    """Measures, prints and writes the report; returns the exit code: 130 after Ctrl-C, 1 where rnnfast failed."""
    ends = time.monotonic() + QUICK_LIMIT if args.quick else float("inf")
    cases = chosen(all_cases(args.quick), args.cell, args.mode, args.case, not args.no_memory)
    reason = memory.unavailable()
    if reason and any(case.starts_processes for case in cases):
        _say(f"without memory: {reason}")
        cases = chosen(cases, memory=False)
    if not cases:
        _say(f"rnnfast bench: no case matches --cell {args.cell} --mode {args.mode} --case {args.case}")
        return 2
    out = args.out or default_out()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _say(f"rnnfast bench: --out: {error}")
        return 2
    torch.set_num_threads(args.threads)
    facts = {**machine_facts(), **runtimes.versions(), "huge_pages": memory.huge_pages(), "load": os.getloadavg()[0]}
    if facts["load"] > 0.5:
        _say(f"other work runs here (load {facts['load']:.1f}): times will be noise")
    found = Found()
    bounds, without = None, None
    try:
        bounds, without = measure_limits(args.threads)
        measure(cases, points(args, cases), args, found, ends)
    except KeyboardInterrupt:
        found.interrupted = True
        _say(f"interrupted: {len(found.measured)} of {len(cases)} cases measured")
    if bounds is None or not found.measured:
        for failure in found.failures:
            _say(f"failed: {failure}")
        return 130 if found.interrupted else 1
    if not found.interrupted:
        bounds = limits.better(bounds, measure_limits(args.threads)[0])  # before and after
    document = make_document(facts, bounds, without, found)
    print_report(document)
    write(out, document, not args.no_plots)
    return 130 if found.interrupted else 1 if found.failures else 0


def default_out() -> Path:
    """In a checkout, benchmarks/results/local, which git ignores; else a folder where the user is."""
    here = Path(__file__).resolve().parent
    return here / "results/local" if (here.parent / "pyproject.toml").is_file() else Path("rnnfast-bench")


def points(args: argparse.Namespace, cases: Iterable[Case]) -> list[sweeps.Point]:
    """The sweeps to make: of every cell that is measured; in --quick, of one."""
    wanted = args.case is None and args.mode in (None, "inference") if args.sweeps is None else args.sweeps
    cells = list(dict.fromkeys(case.cell for case in cases)) if wanted else []
    return [
        point for cell in cells[: 1 if args.quick else None] for point in sweeps.points(cell, args.threads, args.quick)
    ]


def measure_limits(threads: int) -> tuple[Limits, str | None]:
    """The machine's limits now, and why some are missing."""
    bandwidth, reason = limits.measure_bandwidth(threads)
    return Limits(threads, limits.measure_peak(threads), bandwidth), reason


def measure(cases: list[Case], along: list[sweeps.Point], args: argparse.Namespace, found: Found, ends: float) -> None:
    """Fills `found`, case by case, beginning none after `ends`. A failure of rnnfast is noted, and the next follows."""
    seconds, rounds = args.seconds, args.rounds
    if args.quick:
        seconds, rounds = min(seconds, QUICK_SECONDS), min(rounds, QUICK_ROUNDS)
    for case in progress(cases, ends, found.skipped):
        with noted(case, found):
            found.measured.append(measure_case(case, args, seconds, rounds))
    spent = min(seconds, SWEEP_SECONDS) / (2 if args.quick else 1)
    for point in progress(along, ends, found.skipped):
        with noted(point, found):
            found.sweeps.append(sweeps.measure(point, args.rivals, spent, min(rounds, SWEEP_ROUNDS)))


@contextmanager
def noted(item: object, found: Found) -> Iterator[None]:
    """An error is among the failures, and not raised; Ctrl-C is."""
    try:
        yield
    except Exception as error:
        found.failures.append(f"{item}: {type(error).__name__}: {error}")


def measure_case(case: Case, args: argparse.Namespace, seconds: float, rounds: int) -> Measured:
    """One case. Raises what rnnfast raises, and rivals.Disagreement where its results are wrong."""
    if case.mode == "memory":
        return Measured(case, "rnnfast", memory=memory.measure(case, args.threads, 1 if args.quick else 3))
    if case.mode == "recomputation":
        return measure_recomputation(case, args, seconds, rounds)
    contenders, left_out = rivals.verified(case, args.threads, args.rivals)
    most = QUICK_CASE if args.quick else float("inf")
    timings = timing.race({name: contender.run for name, contender in contenders.items()}, seconds, rounds, most)
    recurrence = limits.recurrence_seconds(case, seconds / 4, rounds) if limits.measures_recurrence(case) else None
    return Measured(case, rivals.ours(case.mode), timings, left_out, recurrence)


def measure_recomputation(case: Case, args: argparse.Namespace, seconds: float, rounds: int) -> Measured:
    """Memory first, a process for each contender, while this one is small; then the time with and without, in turns."""
    grown = memory.measure(case, args.threads, 1)
    contenders, _ = rivals.verified(case, args.threads, ())  # compared with torch.nn, which takes no turn
    most = QUICK_CASE if args.quick else LONG_SECONDS
    runs = {name: contender.run for name, contender in contenders.items()}
    timings = timing.race(runs, seconds, min(rounds, LONG_ROUNDS), most)
    return Measured(case, rivals.ours(case.mode), timings, memory=grown)


def make_document(facts: dict[str, Any], bounds: Limits, without: str | None, found: Found) -> dict[str, Any]:
    """What results.json holds."""
    rows = report.rows_of(found.measured, bounds, facts["isa"])
    machine = {
        **facts,
        "fma_peak_gflops": bounds.peak,
        "read_bandwidth_gbs": {str(size): speed for size, speed in bounds.bandwidth.items()},
    }
    left_out = report.notes([*rows, *({**s, "layers": 1, "directions": 1} for s in found.sweeps)])
    skipped = found.skipped[:3] + (["..."] if len(found.skipped) > 3 else [])
    ended = [f"{len(found.skipped)} cases skipped, since --quick ends within two minutes: {', '.join(skipped)}"]
    return {
        "machine": machine,
        "rows": rows,
        "means": targets.means(rows),
        "outcomes": [asdict(outcome) for outcome in targets.outcomes(rows, facts["isa"], report.label)],
        "sweeps": found.sweeps,
        "notes": [*([without] if without else []), *left_out, *(ended if skipped else [])],
        "failures": found.failures,
        "complete": not found.interrupted,
    }


def print_report(document: dict[str, Any]) -> None:
    """Machine, tables, means, what was left out, and the targets."""
    for name, text in page.describe(document["machine"]).items():
        print(f"{name}: {text}")
    print("\n" + report.tables(document["rows"]) + "\n")
    if document["means"]:
        print(report.means_table(document["means"]) + "\n")
    for note in document["notes"]:
        print(f"note: {note}")
    for failure in document["failures"]:
        print(f"FAILED: {failure}")
    outcomes = [targets.Outcome(**{**fields, "misses": tuple(fields["misses"])}) for fields in document["outcomes"]]
    print(report.summary(outcomes))


def write(out: Path, document: dict[str, Any], with_plots: bool) -> None:
    """results.json and .csv; plots and the page unless they are not wanted."""
    report.write(out, document)
    written = ["results.json", "results.csv"]
    if with_plots:
        images: list[Path] = []
        try:
            images = plots.draw(document, out)
        except ImportError as error:
            print(f"note: no plots: {error}: pip install 'rnnfast[bench]'")
        page.write(out / "report.html", document, images)
        written += ["report.html", *(image.name for image in images)]
    try:
        shown = out.resolve().relative_to(Path.cwd())
    except ValueError:
        shown = out
    print(f"\nwritten to {shown}: {', '.join(written)}")


def progress(items: Sequence[Item], ends: float, skipped: list[str]) -> Iterator[Item]:
    """Each item, its name on a bar with the time left; without tqdm, or in a log, a line for each. Those whose turn
    comes after `ends` (time.monotonic) go to `skipped` instead."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    if tqdm is None or not sys.stderr.isatty():
        for number, item in enumerate(items, 1):
            if time.monotonic() > ends:
                skipped.append(str(item))
                continue
            _say(f"[{number}/{len(items)}] {item}")
            yield item
        return
    with tqdm(total=len(items), unit="case", dynamic_ncols=True, file=sys.stderr, mininterval=0) as bar:
        for item in items:
            if time.monotonic() > ends:
                skipped.append(str(item))
                continue
            bar.set_description_str(str(item))
            yield item
            bar.update()
        bar.set_description_str("measured")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
