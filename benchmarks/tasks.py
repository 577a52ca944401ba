# SPDX-License-Identifier: Apache-2.0
"""The figures of `rnnfast train`: every task with its seeds on both backends, the cells side by side.

    python benchmarks/tasks.py                        everything; about three hours on 2 cores
    python benchmarks/tasks.py forecast classify      these tasks
    python benchmarks/tasks.py --table                only the table of what has been run
    python benchmarks/tasks.py --table --markdown tag as a Markdown table, for docs/tasks/tag.md

Runs are kept in runs/figures/ and not repeated; each one's results.json is copied to docs/results/NAME.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS, KEPT = ROOT / "runs/figures", ROOT / "docs/results"
CELLS = ("rnn", "irnn", "gru", "lstm")
TASKS = ("forecast", "classify", "tag", "seq2seq", "lm")
RATES = ("1e-4", "3e-4", "1e-3", "3e-3", "1e-2")  # of the digits, one is chosen per cell on the validation part
SEEDS = (0, 1, 2)
BACKENDS = ("rnnfast", "torch")
MACHINE = ("processor", "cores", "isa", "threads", "torch")  # what two runs must share for their times to be compared
COLUMNS = (
    "run", "seeds", "metric", "rnnfast", "torch", "within spread", "rnnfast s", "torch s", "torch / rnnfast",
    "rnnfast items/s", "torch items/s", "rnnfast / torch", "updates",
)  # fmt: skip


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
        for backend in BACKENDS:
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


@dataclass(frozen=True)
class Comparison:
    """The runs of one kind on both backends, seed by seed; a backend that has not run has no documents.

    `documents` of a backend: results.json of each seed, the same seeds in the same order.
    """

    kind: str
    documents: Mapping[str, Sequence[Mapping[str, Any]]]

    def values(self, backend: str, key: str) -> list[float]:
        """What the seeds' results say under a key."""
        return [d["results"][key] for d in self.documents[backend]]

    @property
    def both(self) -> bool:
        """Whether there is something to compare."""
        return all(self.documents.values())

    @property
    def same_machine(self) -> bool:
        """Whether all its runs were made under the same conditions, as far as the documents know them."""
        return len({tuple(d["machine"][key] for key in MACHINE) for ds in self.documents.values() for d in ds}) == 1

    def ratio(self, key: str) -> float | None:
        """rnnfast's mean over torch's; None where that says nothing: other machines, or one backend only."""
        if not (self.both and self.same_machine):
            return None
        return mean(self.values("rnnfast", key)) / mean(self.values("torch", key))

    @property
    def within_spread(self) -> bool | None:
        """Whether the backends' mean metrics differ by no more than the seeds of one backend do among themselves (the
        larger of both spreads, largest less smallest); None of fewer than two seeds, which have no spread."""
        if not self.both or len(self.documents["rnnfast"]) < 2:
            return None
        metrics = [self.values(backend, "metric") for backend in BACKENDS]
        return abs(mean(metrics[0]) - mean(metrics[1])) <= max(max(m) - min(m) for m in metrics)


def compared(kept: Mapping[str, Mapping[str, Any]], tasks: Iterable[str] = TASKS) -> list[Comparison]:
    """Comparisons of these tasks, from documents named KIND-BACKEND-SEED; others are passed over.

    Of a kind that has run on both backends only the seeds that both have count.
    """
    found: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
    for name, document in kept.items():
        kind, backend, seed = ["", "", *name.rsplit("-", 2)][-3:]
        if kind and backend in BACKENDS and seed.isdecimal() and document["task"] in tasks:
            found.setdefault(kind, {b: {} for b in BACKENDS})[backend][int(seed)] = document
    comparisons = []
    for kind in sorted(found):
        runs = found[kind]
        common = runs["rnnfast"].keys() & runs["torch"].keys()
        chosen = {b: sorted(common) if all(runs.values()) else sorted(runs[b]) for b in BACKENDS}
        documents = {b: [runs[b][seed] for seed in chosen[b]] for b in BACKENDS}
        if any(documents.values()):
            comparisons.append(Comparison(kind, documents))
    return comparisons


def cells(c: Comparison) -> list[str]:
    """A row of the table, under COLUMNS."""

    def each(key: str, form: Callable[[list[float]], str]) -> list[str]:
        return [form(values) if (values := c.values(backend, key)) else "-" for backend in BACKENDS]

    def spread(values: list[float]) -> str:
        about = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
        return f"{mean(values):.4f}{about}"

    documents = [d for ds in c.documents.values() for d in ds]
    seconds, rate = c.ratio("training_seconds"), c.ratio("items_per_second")
    within = {True: "yes", False: "no", None: "one seed" if c.both else "-"}[c.within_spread]
    return [
        c.kind,
        str(max(map(len, c.documents.values()))),
        documents[0]["results"]["metric_name"],
        *each("metric", spread),
        within,
        *each("training_seconds", lambda v: f"{mean(v):.1f}"),
        "-" if seconds is None else f"{1 / seconds:.2f}",
        *each("items_per_second", lambda v: f"{mean(v):.0f}"),
        "-" if rate is None else f"{rate:.2f}",
        ", ".join(each("updates", lambda v: f"{mean(v):.0f}")),
    ]


def table(comparisons: Sequence[Comparison], markdown: bool = False) -> Iterator[str]:
    """Lines: a row a kind, and what its columns mean.

    Seconds are those of the updates, evaluation not counted. Where early stopping ends the backends' runs after
    different numbers of updates, items/s compare what seconds do not.
    """
    rows = [cells(c) for c in comparisons]
    if markdown:
        yield f"| {' | '.join(COLUMNS)} |"
        yield f"|{' --- |' * len(COLUMNS)}"
        yield from (f"| {' | '.join(row)} |" for row in rows)
    else:
        widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
        for row in (COLUMNS, *rows):
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    yield (
        "Means over seeds, of the test part's metric with the smallest and the largest. Within spread: the backends' "
        "means differ by no more than one backend's seeds do. Seconds and items/s of the updates, evaluation not "
        "counted; updates done by rnnfast, torch."
    )
    other = [c.kind for c in comparisons if c.both and not c.same_machine]
    if other:
        yield f"No ratio of times where the runs were not made on the same machine: {', '.join(other)}."


def kept() -> dict[str, dict[str, Any]]:
    """What docs/results holds, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)} (default: all)")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--markdown", action="store_true", help="the table for a page of docs/tasks")
    args = parser.parse_args()
    unknown = [task for task in args.tasks if task not in TASKS]
    if unknown:
        parser.error(f"expected some of {', '.join(TASKS)}, got {unknown[0]}")
    chosen = args.tasks or TASKS
    for task in [] if args.table else chosen:
        figures(task)
    print("\n".join(table(compared(kept(), chosen), args.markdown)))


if __name__ == "__main__":
    main()
