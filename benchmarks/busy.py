# SPDX-License-Identifier: Apache-2.0
"""How much rnnfast and torch.nn slow down on a busy machine: `python benchmarks/busy.py --help`.

Every case is timed alone, then beside hogs: processes that compute without end, as many as there are cores, at the
same nice level as this one, so that a fair scheduler owes this process half of the machine. Each rival has time slots
of its own (`--slot` seconds of call after call, as a server or a training loop would make them), in turns for
`--rounds` rounds, all slots alone first: within a slot the thread pool and the scheduler see one rival only.
Printed for each: median, mean and 90th percentile of a call in ms; and the slow-down, the ratio of what is measured
beside hogs to the same alone: by medians (what most calls feel) and by means (throughput). With two hogs on two cores
nothing that uses both cores can slow down less than 2x by means; a single thread alone loses 1.5x.

The machine should be otherwise idle, or this process (and so its hogs) of a higher priority than the rest, for
instance by `nice -n -10`. Only times are measured here; that results are right is the business of the tests.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks import rivals  # noqa: E402
from benchmarks.cases import Case  # noqa: E402
from rnnfast.info import machine_facts  # noqa: E402

SHAPES = ((1, 1, 512, 512), (100, 1, 256, 256), (64, 32, 256, 256))
CELLS = ("lstm", "gru")
# It ends when its parent does.
HOG = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(1000000): pass"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hogs", type=int, default=os.cpu_count(), help="processes beside (as many as cores)")
    parser.add_argument("--slot", type=float, default=1.0, help="seconds of one rival's turn (1)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--cell", choices=CELLS, help="only this cell")
    parser.add_argument("--mode", choices=("inference", "training"), help="only this mode")
    parser.add_argument("--case", metavar="T,B,I,H", help="only this shape, which may be a new one")
    parser.add_argument("--rival", choices=("rnnfast", "torch"), help="only this rival")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    args = parser.parse_args()
    if args.threads < 1 or args.rounds < 1 or args.slot <= 0 or args.hogs < 0:
        parser.error("expected --threads and --rounds of at least 1, --slot positive and --hogs not negative")
    return args


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Runs `count` processes that compute without end."""
    running = [subprocess.Popen([sys.executable, "-S", "-c", HOG]) for _ in range(count)]
    try:
        time.sleep(0.3)  # they start; and the scheduler spreads them
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.wait()


def slot(call: Callable[[], object], seconds: float) -> list[float]:
    """Milliseconds of one call after another, for so many seconds."""
    samples: list[float] = []
    end = time.perf_counter() + seconds
    call()
    before = time.perf_counter()
    while before < end or len(samples) < 3:
        call()
        now = time.perf_counter()
        samples.append(1e3 * (now - before))
        before = now
    return samples


def summary(samples: list[float]) -> dict[str, float]:
    """Median, mean and 90th percentile of a call."""
    return {
        "median": statistics.median(samples),
        "mean": statistics.fmean(samples),
        "p90": statistics.quantiles(samples, n=10, method="inclusive")[-1],
        "calls": len(samples),
    }


def measure(case: Case, args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Of each rival: summaries alone and beside hogs."""
    found, _ = rivals.verified(case, args.threads, ("torch",))
    calls = {name: found[name].run for name in ("rnnfast", "torch") if args.rival in (None, name)}
    result: dict[str, dict[str, dict[str, float]]] = {name: {} for name in calls}
    for state, count in (("alone", 0), ("busy", args.hogs)):
        with hogs(count):
            samples: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(args.rounds):
                for name, call in calls.items():
                    samples[name] += slot(call, args.slot)
        for name in calls:
            result[name][state] = summary(samples[name])
    for row in result.values():
        row["slowdown"] = {key: row["busy"][key] / row["alone"][key] for key in ("median", "mean", "p90")}
    return result


def main() -> int:
    """Measures the chosen cases; returns the exit code."""
    args = arguments()
    torch.set_num_threads(args.threads)
    shapes = SHAPES if args.case is None else (tuple(int(n) for n in args.case.split(",")),)
    rows = []
    print(f"{args.hogs} hogs, {args.threads} threads; ms: median mean p90; slow-down by median, mean")
    for cell in CELLS if args.cell is None else (args.cell,):
        for shape in shapes:
            for mode in ("inference", "training") if args.mode is None else (args.mode,):
                measured = measure(Case(cell, mode, *shape), args)
                rows.append({"cell": cell, "mode": mode, "shape": shape, **measured})
                for name, of in measured.items():
                    times = "  ".join(
                        " ".join(f"{of[state][key]:8.3f}" for key in ("median", "mean", "p90"))
                        for state in ("alone", "busy")
                    )
                    slow = of["slowdown"]
                    label = f"{cell:4} {mode:9} {','.join(map(str, shape)):14} {name:7}"
                    print(f"{label} {times}  {slow['median']:6.2f} {slow['mean']:6.2f}", flush=True)
    if args.out:
        report = {"machine": machine_facts(), "hogs": args.hogs, "threads": args.threads, "rows": rows}
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
