# SPDX-License-Identifier: Apache-2.0
"""The machine's own limits, measured in the same run, and what they allow for a case.

A case can be no faster than its arithmetic at the FMA peak, and no faster than its sequential steps read their weights:
max(flops / peak, passes * bytes of a step / bandwidth at as many bytes a thread). Weights stay in no register from step
to step, and a layer's steps follow each other, so no kernel can escape the second. Activations are not counted.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import log

from rnnfast.ops import _C

from . import rivals
from .cases import Case

KB = 1024
SIZES = tuple(kb * KB for kb in (32, 64, 128, 256, 512, 1024, 1536, 2048, 4096, 8192, 16384))  # bytes a thread
RECURRENCE_INPUT = 8  # I, where the recurrence alone is measured


@dataclass(frozen=True)
class Limits:
    """peak: fp32 FMA, GF/s. bandwidth: bytes a thread -> GB/s of all threads together. Of `threads` threads."""

    threads: int
    peak: float
    bandwidth: Mapping[int, float]

    def bandwidth_at(self, size: float) -> float | None:
        """GB/s at this many bytes a thread, on the line between the sizes measured (in the logarithm of the size)."""
        points = sorted(self.bandwidth.items())
        if not points:
            return None
        if size <= points[0][0]:
            return points[0][1]
        for (low, before), (high, after) in pairwise(points):
            if size <= high:
                return before + (after - before) * log(size / low) / log(high / low)
        return points[-1][1]

    def step_seconds(self, case: Case) -> float | None:
        """What reading the weights of one step of one layer takes at least."""
        bandwidth = self.bandwidth_at(case.step_bytes / self.threads)
        return None if bandwidth is None else case.step_bytes / bandwidth * 1e-9

    def of(self, case: Case) -> tuple[float, str]:
        """(milliseconds that the case takes at least, what binds: "flops" or "bytes")."""
        flops = case.flops / self.peak * 1e-6
        step = self.step_seconds(case)
        moved = 0.0 if step is None else 1e3 * case.passes * step
        return (flops, "flops") if flops >= moved else (moved, "bytes")


def measure_peak(threads: int) -> float:
    """GF/s of fp32 FMA, the best of a few."""
    return max(float(_C.fma_peak(threads)) for _ in range(5))


def measure_bandwidth(threads: int) -> tuple[dict[int, float], str | None]:
    """GB/s by bytes a thread, the best of three each; or nothing, and why."""
    read: Callable[[int, int], float] | None = getattr(_C, "read_bandwidth", None)
    if read is None:
        return {}, "this build of rnnfast cannot measure the read bandwidth: limits are those of arithmetic alone"
    return {size: max(float(read(size, threads)) for _ in range(3)) for size in SIZES}, None


def better(first: Limits, second: Limits) -> Limits:
    """Of two measurements of the same machine, at each point the faster one: a limit is what can be reached."""
    sizes = {*first.bandwidth, *second.bandwidth}
    bandwidth = {s: max(first.bandwidth.get(s, 0.0), second.bandwidth.get(s, 0.0)) for s in sorted(sizes)}
    return Limits(first.threads, max(first.peak, second.peak), bandwidth)


def measures_recurrence(case: Case) -> bool:
    """Whether the case's recurrence is measured alone: one row, one layer, in inference."""
    return case.mode == "inference" and case.B == 1 and case.layers == case.directions == 1


def recurrence_seconds(case: Case, seconds: float, least: int) -> float:
    """One step of the recurrence alone, of rnnfast's module with the case's H.

    The module has only 8 inputs and is called in turns with T and with 2T steps; the difference, divided by T, is a
    step: without the call, without packing the weights, and nearly without the input's share. Median over the turns.
    """
    narrow = [Case(case.cell, case.mode, steps, 1, RECURRENCE_INPUT, case.H) for steps in (case.T, 2 * case.T)]
    calls = [rivals.call(c, rivals.module(c, "rnnfast"), *rivals.data(c)) for c in narrow]
    for run in calls * 2:
        run()
    differences: list[float] = []
    started = time.perf_counter()
    while len(differences) < max(least, 5) or time.perf_counter() - started < seconds:
        marks = [time.perf_counter()]
        for run in calls:
            run()
            marks.append(time.perf_counter())
        differences.append((marks[2] - marks[1]) - (marks[1] - marks[0]))
    return max(statistics.median(differences), 1e-9) / case.T
