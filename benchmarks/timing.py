# SPDX-License-Identifier: Apache-2.0
"""Honest timing: verify, warm up, then rivals in turns within one run; medians with quartiles."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one rival."""

    median: float
    low: float  # lower quartile
    high: float  # upper quartile
    repeats: int


def race(rivals: Mapping[str, Callable[[], object]], seconds: float, least: int) -> dict[str, Timing]:
    """Times each rival in turn, A B A B ..., for about `seconds` and at least `least` rounds."""
    for run in rivals.values():
        for _ in range(3):
            run()
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        rounds = 0
        while rounds < least or time.perf_counter() - started < seconds:
            for name, run in rivals.items():
                before = time.perf_counter()
                run()
                samples[name].append(time.perf_counter() - before)
            rounds += 1
    finally:
        if collecting:
            gc.enable()
    result = {}
    for name, values in samples.items():
        low, median, high = (1e3 * q for q in statistics.quantiles(values, n=4, method="inclusive"))
        result[name] = Timing(median, low, high, len(values))
    return result
