# SPDX-License-Identifier: Apache-2.0
"""Honest timing: rivals in turns within one run; medians with quartiles. Outputs are verified before (rivals.py)."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

SAMPLE = 2e-4  # seconds: shorter calls are timed several at once, and their mean is one sample
TURN = 1e-2  # seconds of samples in a rival's turn, or one call
WARM = 2e-3  # seconds at the beginning of a turn that do not count, or one call
SHORT = 3e-2  # seconds: longer calls need no such beginning
LONG = 1.0  # seconds: a call of which one is enough before the first turn
QUIET = 0.1  # seconds that a turn waits at most for the other rivals' threads to fall asleep


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one rival."""

    median: float
    low: float  # lower quartile
    high: float  # upper quartile
    repeats: int  # samples


def race(
    rivals: Mapping[str, Callable[[], object]], seconds: float, least: int, most: float = float("inf")
) -> dict[str, Timing]:
    """Times the rivals in turns, A B C, C B A, A B C, ..., for about `seconds` and at least `least` rounds, but no more
    than two once `most` seconds have gone.

    After a call, the threads of torch's pool spin for 10 ms and those of ONNX Runtime for up to 50 (measured), on the
    cores that the next rival needs. So a turn begins when the process uses no time any more, and, where calls are
    short, with some that do not count: they wake the rival's own threads and bring its weights back into the caches.
    """
    turns = _turns(rivals, seconds, least, most)
    return {name: summary([value for turn in found for value in turn]) for name, found in turns.items()}


def relative(
    runs: Mapping[str, Callable[[], object]], base: str, seconds: float, least: int
) -> tuple[dict[str, Timing], dict[str, Timing]]:
    """The same for variants of one call: their times, and the ratios to the base's in the same round, which leave out
    what disturbs the machine for longer than a round; medians and quartiles."""
    turns = _turns(runs, seconds, least, float("inf"))
    middle = {name: [statistics.median(turn) for turn in found] for name, found in turns.items()}
    ratios = {n: [a / b for a, b in zip(values, middle[base], strict=True)] for n, values in middle.items()}
    return {n: summary(v) for n, v in middle.items()}, {n: _quartiles(v) for n, v in ratios.items()}


def _turns(
    rivals: Mapping[str, Callable[[], object]], seconds: float, least: int, most: float
) -> dict[str, list[list[float]]]:
    """Seconds of the samples of each turn of each."""
    once = {name: _warm(run) for name, run in rivals.items()}
    samples: dict[str, list[list[float]]] = {name: [] for name in rivals}
    order = list(rivals)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        rounds = 0
        while rounds < least or time.perf_counter() - started < seconds:
            for name in order:
                samples[name].append(_turn(rivals[name], once[name]))
            order.reverse()
            rounds += 1
            if rounds >= 2 and time.perf_counter() - started > most:
                break
    finally:
        if collecting:
            gc.enable()
    return samples


def summary(samples: list[float]) -> Timing:
    """Median and quartiles of seconds, in milliseconds."""
    return _quartiles([1e3 * value for value in samples])


def _quartiles(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(median, low, high, len(values))


def _warm(run: Callable[[], object]) -> float:
    """Seconds of one call, after the first ones."""
    best = float("inf")
    for _ in range(3):
        before = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - before)
        if best > LONG:
            break
    return max(best, 1e-7)


def _turn(run: Callable[[], object], once: float) -> list[float]:
    calls = ceil(SAMPLE / once)
    _wait_for_quiet()
    if once < SHORT:
        until = time.perf_counter() + WARM
        run()
        while time.perf_counter() < until:
            run()
    values = []
    for _ in range(max(1, round(TURN / (calls * once)))):
        before = time.perf_counter()
        for _ in range(calls):
            run()
        values.append((time.perf_counter() - before) / calls)
    return values


def _wait_for_quiet() -> None:
    until = time.perf_counter() + QUIET
    while time.perf_counter() < until:
        used = time.process_time()
        time.sleep(1e-3)
        if time.process_time() - used < 2e-4:
            return
