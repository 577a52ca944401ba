# SPDX-License-Identifier: Apache-2.0
"""Measures rnnfast.LSTM against torch.nn.LSTM: `make bench`, or `python benchmarks/run.py --help`."""

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks import report, rivals, timing  # noqa: E402
from benchmarks.cases import all_cases  # noqa: E402
from rnnfast.info import machine_facts  # noqa: E402
from rnnfast.ops import _C  # noqa: E402


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="spent on each case, at least 15 rounds")
    parser.add_argument("--rounds", type=int, default=15, help="the least number of rounds")
    parser.add_argument("--mode", choices=("inference", "training", "streaming"))
    parser.add_argument("--case", metavar="T,B,I,H", help="only this shape")
    parser.add_argument("--quick", action="store_true", help="a few cases, half a second each")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/local", help="folder for JSON and CSV")
    args = parser.parse_args()
    if args.threads < 1 or args.rounds < 2 or args.seconds < 0:
        parser.error("expected --threads of at least 1, --rounds of at least 2 and --seconds not negative")
    return args


def main() -> int:
    """Runs the chosen cases; returns the exit code."""
    args = arguments()
    torch.set_num_threads(args.threads)
    cases = [
        case
        for case in all_cases(args.quick)
        if (args.mode in (None, case.mode)) and args.case in (None, ",".join(map(str, case.shape)))
    ]
    if not cases:
        print(f"no case matches --mode {args.mode} --case {args.case}", file=sys.stderr)
        return 2
    # The machine's limit, measured in the same run.
    peak = max(_C.fma_peak(args.threads) for _ in range(5))
    machine: dict[str, Any] = {**machine_facts(), "fma_peak_gflops": peak}
    print(
        f"{machine['processor']}, {machine['cores']} cores, {args.threads} threads, {machine['isa']}; "
        f"torch {machine['torch']}; fp32 FMA peak {peak:.0f} GF/s"
    )
    rows = []
    for number, case in enumerate(cases, 1):
        print(f"\r[{number}/{len(cases)}] {case}".ljust(60), end="", file=sys.stderr, flush=True)
        seconds = min(args.seconds, 0.5) if args.quick else args.seconds
        timings = timing.race(rivals.verified(case), seconds, args.rounds)
        rows.append(report.row(case, timings, peak, "avx512" in _C.isas_available()))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    print(report.table(rows))
    report.write(args.out, rows, machine)
    try:
        print(f"written: {args.out.resolve().relative_to(Path.cwd())}/results.json and .csv")
    except ValueError:
        print(f"written: {args.out}/results.json and .csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
