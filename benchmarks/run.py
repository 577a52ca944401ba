# SPDX-License-Identifier: Apache-2.0
"""Measures rnnfast against torch.nn, time and memory: `make bench`, or `python benchmarks/run.py --help`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks import memory, report, rivals, timing  # noqa: E402
from benchmarks.cases import MEASURED, MODES, Case, all_cases, chosen  # noqa: E402
from rnnfast.info import machine_facts  # noqa: E402
from rnnfast.ops import _C  # noqa: E402

EXAMPLES = """\
examples:
  python benchmarks/run.py --quick                               a few cases of each cell, under two minutes
  python benchmarks/run.py --cell gru --mode training            one cell, one mode
  python benchmarks/run.py --case 64,32,256,256 --no-memory      one shape, times only
  python benchmarks/run.py --out benchmarks/results/zen3-avx2    a report to keep
"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="spent on each case, at least --rounds (2)")
    parser.add_argument("--rounds", type=int, default=15, help="the least number of rounds (15)")
    parser.add_argument("--cell", choices=MEASURED, help="only this cell")
    parser.add_argument("--mode", choices=MODES, help="only this mode")
    parser.add_argument("--case", metavar="T,B,I,H", help="only this shape")
    parser.add_argument("--quick", action="store_true", help="a few cases, half a second or 5 rounds each")
    parser.add_argument("--no-memory", action="store_true", help="without the mode memory, which starts processes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/local", help="folder for JSON and CSV")
    args = parser.parse_args()
    if args.threads < 1 or args.rounds < 2 or args.seconds < 0:
        parser.error("expected --threads of at least 1, --rounds of at least 2 and --seconds not negative")
    return args


def measure(case: Case, args: argparse.Namespace) -> Callable[[float], report.Row]:
    """Measures one case; returns what makes its row, given the FMA peak."""
    if case.mode == "memory":
        measured = memory.measure(case, args.threads, 1 if args.quick else 3)
        return lambda peak: report.memory_row(case, measured)
    seconds, rounds = args.seconds, args.rounds
    if args.quick:
        seconds, rounds = min(seconds, 0.5), min(rounds, 5)
    timings = timing.race(rivals.verified(case), seconds, rounds)
    return lambda peak: report.time_row(case, timings, peak)


def fma_peak(threads: int) -> float:
    """The machine's limit in GF/s, measured now."""
    return max(_C.fma_peak(threads) for _ in range(5))


def main() -> int:
    """Runs the chosen cases; returns the exit code."""
    args = arguments()
    torch.set_num_threads(args.threads)
    cases = chosen(all_cases(args.quick), args.cell, args.mode, args.case, not args.no_memory)
    reason = memory.unavailable()
    if reason and any(case.mode == "memory" for case in cases):
        print(f"without memory: {reason}", file=sys.stderr)
        cases = chosen(cases, memory=False)
    if not cases:
        print(f"no case matches --cell {args.cell} --mode {args.mode} --case {args.case}", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    machine: dict[str, Any] = {**machine_facts(), "huge_pages": memory.huge_pages(), "load": load}
    if load > 0.5:
        print(f"other work runs here (load {load:.1f}): times will be noise", file=sys.stderr)
    peak = fma_peak(args.threads)
    measured: list[Callable[[float], report.Row]] = []
    code = 0
    try:
        for number, case in enumerate(cases, 1):
            print(f"\r[{number}/{len(cases)}] {case}".ljust(78), end="", file=sys.stderr, flush=True)
            measured.append(measure(case, args))
    except KeyboardInterrupt:
        code = 130
    print("\r" + " " * 78 + "\r", end="", file=sys.stderr)
    if code:
        print(f"interrupted: {len(measured)} of {len(cases)} cases", file=sys.stderr)
    if not measured:
        return code
    machine["fma_peak_gflops"] = peak = max(peak, fma_peak(args.threads))  # before and after: the better one
    rows = [row(peak) for row in measured]
    print(
        f"{machine['processor']}, {machine['cores']} cores, {args.threads} threads, {machine['isa']}; "
        f"torch {machine['torch']}; fp32 FMA peak {peak:.0f} GF/s\n"
    )
    print(report.table(rows))
    report.write(args.out, rows, machine)
    try:
        print(f"written: {args.out.resolve().relative_to(Path.cwd())}/results.json and .csv")
    except ValueError:
        print(f"written: {args.out}/results.json and .csv")
    return code


if __name__ == "__main__":
    sys.exit(main())
