# SPDX-License-Identifier: Apache-2.0
"""Every CUDA path against torch.nn (cuDNN): python -m benchmarks.gpu. One part of the day of a GPU (gpu_day.sh).

Each call is captured in a CUDA graph and replayed between two CUDA events; contenders take turns. A result that is
further from float64 than twice torch's own error and 8 eps is not timed. What there was
no time for is listed. --rehearse runs the same program on the CPU, with tiny shapes: its times mean nothing.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import rnnfast
from benchmarks.gpu_cases import GpuCase, cases, rehearsal
from benchmarks.timing import summary
from rnnfast.ops import _C
from rnnfast.specs import CELLS

PATHS = ("step", "persistent")
CONTENDERS = ("torch.nn", *PATHS)
ROUNDS, SAMPLE = 7, 4e-3  # turns of each contender; seconds of a sample

Run = Callable[[], list[Tensor]]


class Gpu:
    """The CUDA device: graphs and events."""

    device = torch.device("cuda")
    graphs = True

    def facts(self) -> dict[str, Any]:
        found: Any = torch.cuda.get_device_properties(self.device)
        return {
            "device": found.name,
            "architecture": f"sm_{found.major}{found.minor}",
            "processors": found.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }

    def captured(self, run: Run, *, same_bits: bool) -> tuple[Callable[[], object], bool]:
        """A replay of the call's graph; the call itself where it cannot be captured.

        same_bits: a RuntimeError where the replay's results are not the call's (cuDNN's need not be).
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        expected = run() if same_bits else []
        try:
            with torch.cuda.graph(graph):
                results = run()
        except RuntimeError:
            torch.cuda.synchronize()
            return run, False
        graph.replay()
        if not all(torch.equal(a, b) for a, b in zip(results, expected, strict=False)):
            raise RuntimeError("a replay of the call's CUDA graph gives other results than the call")
        return graph.replay, True

    def seconds(self, run: Callable[[], object], times: int) -> float:
        """Of one call, by events around `times` of them."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(times):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / times


class Rehearsal:
    """The CPU in a GPU's place: the same program, no graphs, wall time."""

    device = torch.device("cpu")
    graphs = False

    def facts(self) -> dict[str, Any]:
        return {"device": "rehearsal on the CPU: times mean nothing", "architecture": "none", "processors": 0}

    def captured(self, run: Run, *, same_bits: bool) -> tuple[Callable[[], object], bool]:
        del same_bits  # there is no graph
        return run, False

    def seconds(self, run: Callable[[], object], times: int) -> float:
        begin = time.perf_counter()
        for _ in range(times):
            run()
        return (time.perf_counter() - begin) / times


Machine = Gpu | Rehearsal


def storage_dtype(case: GpuCase) -> torch.dtype:
    """Of a case's tensors."""
    dtype: torch.dtype = getattr(torch, "float32" if case.dtype == "tf32" else case.dtype)
    return dtype


def layer_of(case: GpuCase, kind: str, device: torch.device, dtype: torch.dtype) -> Any:
    """torch.nn's layer or ours, of the same parameters."""
    spec = CELLS[case.cell]
    extra = {"nonlinearity": spec.nonlinearity} if spec.nonlinearity else {}
    torch.manual_seed(0)
    layer = getattr(nn, spec.label)(case.I, case.H, bidirectional=case.directions == 2, **extra)
    if kind != "torch.nn":
        ours = getattr(rnnfast, spec.label)(case.I, case.H, bidirectional=case.directions == 2, **extra)
        ours.load_state_dict(layer.state_dict())
        layer = ours
    return layer.to(device, dtype)


def call_of(case: GpuCase, kind: str, device: torch.device, dtype: torch.dtype) -> Run:
    """What is timed: y, and in training the gradients of x and of every weight."""
    layer = layer_of(case, kind, device, dtype)
    gen = torch.Generator().manual_seed(1)
    x = torch.randn(case.T, case.B, case.I, generator=gen).to(device, dtype)
    grad_y = torch.randn(case.T, case.B, case.directions * case.H, generator=gen).to(device, dtype)
    if case.mode == "inference":

        @torch.no_grad()
        def forward() -> list[Tensor]:
            return [layer(x)[0]]

        return forward
    x.requires_grad_()
    weights = list(layer.parameters())

    def train() -> list[Tensor]:
        y = layer(x)[0]
        return [y, *torch.autograd.grad(y, [x, *weights], grad_y)]

    return train


def worst(results: list[Tensor], reference: list[Tensor]) -> list[float]:
    """The largest error of each tensor, in float64."""
    pairs = zip(results, reference, strict=True)
    return [float((a.detach().double() - b.detach().to(a.device)).abs().max()) for a, b in pairs]


def too_far(case: GpuCase, ours: list[Tensor], theirs: list[Tensor], exact: list[Tensor]) -> str:
    """Which tensor is beyond the project's bound, and by how much; empty where none is."""
    eps = {"tf32": 2.0**-11}.get(case.dtype, torch.finfo(storage_dtype(case)).eps)
    errors = zip(worst(ours, exact), worst(theirs, exact), exact, strict=True)
    for i, (error, allowed, reference) in enumerate(errors):
        bound = 2 * allowed + 8 * eps * float(reference.detach().abs().max())
        if not error <= bound:
            return f"tensor {i}: error {error:.3g}, bound {bound:.3g}"
    return ""


def plan_of(case: GpuCase, machine: Machine, *, backward: bool) -> dict[str, Any]:
    """What the plan says of the path that RNNFAST_CUDA_PATH asks for (of an H100 in rehearsals)."""
    from rnnfast.explain_cuda import properties

    device: Any = "sm_90" if isinstance(machine, Rehearsal) else properties(machine.device)
    name = str(storage_dtype(case)).removeprefix("torch.")
    trains, tf32 = case.mode == "training", case.dtype == "tf32"
    sizes = (case.T, case.B, case.I, case.H, case.H, case.directions)
    return _C.explain_cuda(device, case.cell, *sizes, name, backward, trains, tf32, False)


def set_path(path: str | None) -> None:
    """Which path our layers take; None: the plan's choice."""
    if path in PATHS:
        os.environ["RNNFAST_CUDA_PATH"] = str(path)
    else:
        os.environ.pop("RNNFAST_CUDA_PATH", None)


def measure(case: GpuCase, machine: Machine, rounds: int = ROUNDS, sample: float = SAMPLE) -> dict[str, Any]:
    """One row: each contender's time, or why it has none."""
    rnn: Any = torch.backends.cudnn.rnn
    before = rnn.fp32_precision
    rnn.fp32_precision = "tf32" if case.dtype == "tf32" else "ieee"
    try:
        return _measure(case, machine, rounds, sample)
    finally:
        rnn.fp32_precision = before
        set_path(None)


def _measure(case: GpuCase, machine: Machine, rounds: int, sample: float) -> dict[str, Any]:
    dtype = storage_dtype(case)
    row: dict[str, Any] = {**asdict(case), "contenders": {}, "predicted_us_a_step": {}, "predicted_us_a_call": {}}
    passes = (False, True) if case.mode == "training" else (False,)
    set_path(None)
    row["chosen"] = [plan_of(case, machine, backward=backward)["path"] for backward in passes]
    exact = call_of(case, "torch.nn", machine.device, torch.float64)()
    theirs = call_of(case, "torch.nn", machine.device, dtype)()
    replays: dict[str, tuple[Callable[[], object], int]] = {}
    for name in CONTENDERS:
        set_path(name)
        entry: dict[str, Any] = {}
        row["contenders"][name] = entry
        if name in PATHS:
            plans = [plan_of(case, machine, backward=backward) for backward in passes]
            step = row["predicted_us_a_step"][name] = sum(plan["microseconds"] for plan in plans)
            row["predicted_us_a_call"][name] = sum(plan["fixed_microseconds"] for plan in plans) + case.T * step
            other = [plan for plan in plans if plan["path"] != name]
            if other:
                entry["skipped"] = "; ".join(other[0]["reasons"])
                continue
        try:
            run = call_of(case, name, machine.device, dtype)
            wrong = too_far(case, run(), theirs, exact) if name in PATHS else ""
            if wrong:
                entry["wrong"] = wrong
                continue
            replay, entry["captured"] = machine.captured(run, same_bits=name in PATHS)
            once = machine.seconds(replay, 1)
            replays[name] = (replay, max(1, round(sample / max(machine.seconds(replay, 2), once / 100, 1e-7))))
        except RuntimeError as error:
            entry["failed"] = str(error).splitlines()[0]
    samples: dict[str, list[float]] = {name: [] for name in replays}
    order = list(replays)
    for _ in range(rounds):
        for name in order:
            set_path(name)  # of calls that could not be captured
            samples[name].append(machine.seconds(*replays[name]))
        order.reverse()
    for name, values in samples.items():
        row["contenders"][name].update(asdict(summary(values)))
    return row


def smoke(machine: Machine, until: float) -> int:
    """Every path, cell, dtype and product, tiny, forward and backward: for compute-sanitizer. The number of calls.

    A batch of 9 takes tensor cores where there are some (float32 as tf32, torch's default), one of 3 multiply-adds.
    """
    count = 0
    for path, batch in (("persistent", 9), ("step", 9), ("persistent", 3)):
        for dtype in ("float32", "float16", "float64", "bfloat16"):
            for cell in CELLS:
                if CELLS[cell].torch_name is None or time.monotonic() > until:
                    continue
                set_path(path)
                case = GpuCase(cell, "training", dtype, 3, batch, 5, 40, 2)
                if not all(
                    bool(t.isfinite().all()) for t in call_of(case, path, machine.device, storage_dtype(case))()
                ):
                    raise RuntimeError(f"{case} on the {path} path: not finite")
                count += 1
    set_path(None)
    return count


HEADER = ("case", "torch.nn ms", "step ms", "persistent ms", "chosen ratio", "us/step", "predicted", "plan")


def line_of(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the printed table."""
    case = GpuCase(**{name: row[name] for name in GpuCase.__dataclass_fields__})
    times = {name: entry.get("median") for name, entry in row["contenders"].items()}
    cells = []
    for name in CONTENDERS:
        entry = row["contenders"][name]
        word = next((key for key in ("skipped", "wrong", "failed") if key in entry), "-")
        cells.append(f"{times[name]:.4f}{'' if entry['captured'] else ' *'}" if times[name] else word)
    chosen = chosen_path(row)
    if chosen is None or not times[chosen]:
        return (str(case), *cells, "-", "-", "-", "-")
    ratio = f"{times['torch.nn'] / times[chosen]:.2f}" if times["torch.nn"] else "-"
    predicted = f"{row['predicted_us_a_step'][chosen]:.2f}"
    return (str(case), *cells, ratio, f"{1e3 * times[chosen] / case.T:.2f}", predicted, chosen)


def chosen_path(row: dict[str, Any]) -> str | None:
    """Which path the plan takes by itself; None where forward and BPTT take two."""
    paths = set(row["chosen"])
    return paths.pop() if len(paths) == 1 else None


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """What the plan is to learn from: measured by predicted time of each path, and where it chose the slower one."""
    lines, losses = [], []
    for name in PATHS:
        found = [
            1e3 * row["contenders"][name]["median"] / row["predicted_us_a_call"][name]
            for row in rows
            if "median" in row["contenders"].get(name, {})
        ]
        if found:
            spread = f"{min(found):.2f} to {max(found):.2f}"
            lines.append(f"{name}: measured {median(found):.2f} times the prediction, {spread}, {len(found)} cases")
    compared = 0
    for row in rows:
        times = {name: row["contenders"][name].get("median") for name in PATHS}
        chosen = chosen_path(row)
        if chosen is None or not all(times.values()):
            continue
        compared += 1
        other = next(name for name in PATHS if name != chosen)
        if times[other] < times[chosen]:
            case = GpuCase(**{name: row[name] for name in GpuCase.__dataclass_fields__})
            losses.append((times[chosen] / times[other], f"{case}: {chosen}"))
    if compared:
        lines.append(f"the plan took the slower path in {len(losses)} of {compared} cases where both run")
    lines += [f"  {loss:.2f} times as long, {text}" for loss, text in sorted(losses, reverse=True)[:5]]
    return lines


def main(arguments: list[str] | None = None) -> int:
    """0; 1 where a result of ours was wrong, a call failed or was not captured; 2 where there is no device."""
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150, help="for everything (default: 150)")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON, written after each case")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny shapes")
    parser.add_argument("--smoke", action="store_true", help="every path once, nothing timed: for compute-sanitizer")
    args = parser.parse_args(arguments)
    until = time.monotonic() + args.seconds
    if not args.rehearse and not torch.cuda.is_available():
        print("gpu: no CUDA device that torch can use; --rehearse runs on the CPU", file=sys.stderr)
        return 2
    machine: Machine = Rehearsal() if args.rehearse else Gpu()
    if args.smoke:
        print(f"{smoke(machine, until)} calls")
        return 3 if time.monotonic() > until else 0
    todo = rehearsal() if args.rehearse else cases()
    facts = {**machine.facts(), "torch": torch.__version__, "rnnfast": rnnfast.__version__}
    facts["kernels"] = _C.cuda_architectures()
    report: dict[str, Any] = {"facts": facts, "rows": [], "unfinished": [str(case) for case in todo]}
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(" | ".join(HEADER), flush=True)
    bad, longest = 0, 0.0
    for case in todo:
        begin = time.monotonic()
        if begin + longest > until:
            break
        row = measure(case, machine, *((2, 1e-4) if args.rehearse else ()))
        longest = max(longest, time.monotonic() - begin)
        bad += any(
            "wrong" in entry or "failed" in entry or (machine.graphs and not entry.get("captured", True))
            for name, entry in row["contenders"].items()
            if name in PATHS
        )
        report["rows"].append(row)
        report["unfinished"] = report["unfinished"][1:]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1))
        print(" | ".join(line_of(row)), flush=True)
    if any(not entry.get("captured", True) for row in report["rows"] for entry in row["contenders"].values()):
        print("* not captured in a CUDA graph: the time includes launching")
    for line in verdict(report["rows"]):
        print(line)
    for name in report["unfinished"]:
        print(f"no time left for: {name}")
    print(f"{len(report['rows'])} of {len(todo)} cases measured, {bad} with a wrong result or an error; {args.out}")
    return 1 if bad else 3 if report["unfinished"] else 0


if __name__ == "__main__":
    sys.exit(main())
