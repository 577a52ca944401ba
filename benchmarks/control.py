# SPDX-License-Identifier: Apache-2.0
"""What control over BPTT costs the backward pass: `python benchmarks/control.py --help`.

Every case times the backward pass of one layer (gradients of x, h_0, c_0 and all weights) plainly and with each
control, in turns: limited by value, limited by norm, truncated every 16 steps, recorded. Printed for each: the plain
pass in ms, and the median over all rounds of a control's time as a multiple of the plain one's in the same round. Plain
stands twice: the second one's ratio is the noise.

The machine should be otherwise idle. Only times are measured here; that results are right is the business of the tests.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks import timing  # noqa: E402
from benchmarks.cases import MEASURED, STANDARD, Shape  # noqa: E402
from rnnfast import _C  # noqa: E402
from rnnfast.info import machine_facts  # noqa: E402
from rnnfast.ops import LAYERS, LAYERS_BACKWARD  # noqa: E402
from rnnfast.specs import CELLS  # noqa: E402

# `limit` and `bptt` of the ops (docs/architecture.md), the limits such that they take effect; recording: see backward.
CONTROLS: dict[str, tuple[float, list[int]]] = {
    "plain": (0.0, []),
    "value": (0.05, [1, 0, 0, 0, 0, 0]),
    "norm": (0.1, [2, 0, 0, 0, 0, 0]),
    "steps": (0.0, [0, 16, 0, 0, 0, 0]),
    "record": (0.0, [0, 0, 0, 0, 0, 1]),
    "again": (0.0, []),
}


def backward(cell: str, shape: Shape, name: str, recorder: int) -> Callable[[], Any]:
    """The backward pass of a layer with a control."""
    T, B, I, H = shape
    spec = CELLS[cell]
    torch.manual_seed(0)
    bound = H**-0.5
    sizes = ((spec.gates * H, I), (spec.gates * H, H), (spec.gates * H,), (spec.gates * H,))
    weights = [torch.empty(size).uniform_(-bound, bound) for size in sizes]
    x, h0 = torch.randn(T, B, I), torch.zeros(1, B, H)
    c0 = torch.zeros(1, B, H) if spec.has_cell else None
    y, _, _, saved, cells = LAYERS[cell](x, h0, c0, weights, None, True, False, True)
    limit, codes = CONTROLS[name]
    codes = [*codes[:-1], recorder] if name == "record" else codes
    mask = [True, True, spec.has_cell, *[True] * len(weights)]
    given = (torch.randn_like(y), None, None, x, h0, c0, weights, None, True, False, y, saved, cells, mask)
    return partial(LAYERS_BACKWARD[cell], *given, limit, codes)


def measure(cell: str, shape: Shape, seconds: float, rounds: int) -> dict[str, Any]:
    """A row: the plain pass in ms, the others as multiples of it in the same round; medians and quartiles."""
    recorder = _C.open_recorder()
    try:
        runs = {name: backward(cell, shape, name, recorder) for name in CONTROLS}
        times, ratios = timing.relative(runs, "plain", seconds, rounds)
    finally:
        _C.close_recorder(recorder)
    plain = times["plain"]
    row: dict[str, Any] = {"cell": cell, **dict(zip("TBIH", shape, strict=True)), "rounds": plain.repeats}
    row |= {"plain_ms": plain.median, "plain_low": plain.low, "plain_high": plain.high}
    for name, ratio in ratios.items():
        if name != "plain":
            row |= {name: ratio.median, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
    return row


def shape_of(text: str) -> Shape:
    """Of the command line."""
    T, B, I, H = (int(number) for number in text.split(","))
    return T, B, I, H


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each case, at least --rounds (4)")
    parser.add_argument("--rounds", type=int, default=15, help="the least number of rounds (15)")
    parser.add_argument("--cell", choices=MEASURED, help="only this cell")
    parser.add_argument("--case", type=shape_of, metavar="T,B,I,H", help="only this shape, which may be a new one")
    parser.add_argument("--out", type=Path, help="file for the JSON, such as benchmarks/results/MACHINE/control.json")
    args = parser.parse_args()
    if args.threads < 1 or args.rounds < 1 or args.seconds < 0:
        parser.error("expected --threads and --rounds of at least 1, and --seconds not negative")
    return args


def main() -> int:
    """Measures the chosen cases; returns the exit code."""
    args = arguments()
    torch.set_num_threads(args.threads)
    shapes = STANDARD if args.case is None else (args.case,)
    names = [name for name in CONTROLS if name != "plain"]
    rows = []
    print(f"{args.threads} threads; plain: ms; the others: as multiples of it")
    print(f"{'cell':8} {'T,B,I,H':16} {'plain':>8}  " + "".join(f"{name:>8}" for name in names))
    for cell in MEASURED if args.cell is None else (args.cell,):
        for shape in shapes:
            row = measure(cell, shape, args.seconds, args.rounds)
            rows.append(row)
            ratios = "".join(f"{row[name]:8.3f}" for name in names)
            print(f"{cell:8} {','.join(map(str, shape)):16} {row['plain_ms']:8.2f}  {ratios}", flush=True)
    if args.out:
        report = {"machine": machine_facts(), "threads": args.threads, "rows": rows}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
