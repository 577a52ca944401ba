# SPDX-License-Identifier: Apache-2.0
"""The figures of `rnnfast train`: every task with its seeds on both backends, the cells side by side.

    python benchmarks/tasks.py                        everything; about three hours on 2 cores
    python benchmarks/tasks.py forecast classify      these tasks
    python benchmarks/tasks.py --table                only the table of what has been run

Runs are kept in runs/figures/ and not repeated; each one's results.json is copied to docs/results/NAME.json.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS, KEPT = ROOT / "runs/figures", ROOT / "docs/results"
CELLS = ("rnn", "irnn", "gru", "lstm")
RATES = ("1e-4", "3e-4", "1e-3", "3e-3", "1e-2")  # of the digits, one is chosen per cell on the validation part
SEEDS = (0, 1, 2)


def run(name: str, task: str, *options: str) -> dict[str, Any] | None:
    """Trains, unless it has been done; the results, or None of a training that diverged."""
    results = RUNS / name / "results.json"
    if not results.exists():
        resume = ["--resume"] if (RUNS / name / "checkpoint.pt").exists() else []
        command = [
            sys.executable,
            "-m",
            "rnnfast",
            "train",
            task,
            *options,
            *resume,
            "--out",
            str(RUNS),
            "--name",
            name,
        ]
        print("$", *command[2:], flush=True)
        code = subprocess.run(command, check=False).returncode
        if code == 130:
            raise KeyboardInterrupt
        if code != 0:
            return None
    KEPT.mkdir(exist_ok=True)
    shutil.copy(results, KEPT / f"{name}.json")
    document: dict[str, Any] = json.loads(results.read_text())
    return document


def best_rate(cell: str) -> str:
    """The learning rate whose best validation accuracy is highest with seed 0, of runs of a quarter of the epochs."""
    found = {}
    for rate in RATES:
        document = run(
            f"classify-rate-{cell}-{rate}", "classify", "--cell", cell, "--learning-rate", rate, "--epochs", "20"
        )
        found[rate] = document["results"]["validation"] if document else 0.0
    return max(found, key=lambda rate: found[rate])


def seeds(name: str, task: str, *options: str, count: int = 3) -> None:
    """One run a seed on both backends."""
    for seed in SEEDS[:count]:
        for backend in ("rnnfast", "torch"):
            run(f"{name}-{backend}-{seed}", task, *options, "--seed", str(seed), "--backend", backend)


def figures(task: str) -> None:
    """All runs of a task."""
    if task == "forecast":
        for cell in ("lstm", "gru", "rnn"):
            seeds(f"forecast-{cell}", "forecast", "--cell", cell)
    elif task == "classify":
        for cell in CELLS:
            seeds(f"classify-{cell}", "classify", "--cell", cell, "--learning-rate", best_rate(cell))
    elif task == "tag":
        seeds("tag", "tag")
        seeds("tag-online", "tag", "--online")
    else:
        seeds(task, task, count=1)


def table() -> Iterator[str]:
    """The kept results, the seeds of one kind in a row."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(KEPT.glob("*.json")):
        kind, _, last = path.stem.rpartition("-")
        if last.isdecimal():
            groups.setdefault(kind, []).append(json.loads(path.read_text()))
    yield f"{'run':28} {'seeds':>5} {'test':>9} {'spread':>8} {'seconds':>8}  metric"
    for kind, documents in groups.items():
        values = [d["results"]["metric"] for d in documents]
        seconds = statistics.mean(d["results"]["training_seconds"] for d in documents)
        name = documents[0]["results"]["metric_name"]
        mean, spread = statistics.mean(values), max(values) - min(values)
        yield f"{kind:28} {len(values):5} {mean:9.4f} {spread:8.4f} {seconds:8.1f}  {name}"


def main() -> None:
    """See the module."""
    tasks = ("forecast", "classify", "tag", "seq2seq", "lm")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(tasks)} (default: all)")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    unknown = [task for task in args.tasks if task not in tasks]
    if unknown:
        parser.error(f"expected some of {', '.join(tasks)}, got {unknown[0]}")
    for task in [] if args.table else args.tasks or tasks:
        figures(task)
    print("\n".join(table()))


if __name__ == "__main__":
    main()
