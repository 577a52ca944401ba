# SPDX-License-Identifier: Apache-2.0
"""The table of benchmarks/tasks.py: which runs are compared, and what is said of their times and figures."""

from typing import Any

import pytest

from benchmarks.tasks import COLUMNS, Comparison, compared, table


def document(metric: float, seconds: float, updates: int = 100, task: str = "tag", threads: int = 2) -> dict[str, Any]:
    machine = {"processor": "P", "cores": 2, "isa": "avx2", "threads": threads, "torch": "2", "system": "unimportant"}
    results = {
        "metric": metric, "metric_name": "accuracy", "training_seconds": seconds, "updates": updates,
        "items_per_second": 10 * updates / seconds,
    }  # fmt: skip
    return {"task": task, "machine": machine, "results": results}


KEPT = {
    "tag-rnnfast-0": document(0.90, 10),
    "tag-rnnfast-1": document(0.94, 12),
    "tag-torch-0": document(0.91, 30, 120),
    "tag-torch-1": document(0.97, 36, 120),
    "tag-online-rnnfast-0": document(0.5, 1),
    "tag-online-rnnfast-1": document(0.6, 1),
    "lm-rnnfast-0": document(1.5, 100, task="lm"),
    "lm-torch-0": document(1.6, 50, task="lm"),
    "classify-rate-irnn-1e-3": document(0.1, 1, task="classify"),  # the choice of a learning rate: no seed
    "other": document(0.1, 1),
}


def rows(kept: dict[str, dict[str, Any]], *tasks: str) -> dict[str, dict[str, str]]:
    """The Markdown table, by run and column."""
    lines = list(table(compared(kept, tasks) if tasks else compared(kept), markdown=True))
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert tuple(found[0]) == COLUMNS
    assert set(found[1]) == {"---"}
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in found[2:]}


def test_both_backends_by_hand() -> None:
    """Means 11 and 33 s: three times the wall time, of 120 instead of 100 updates; 91.67 and 36.67 items/s."""
    found = rows(KEPT)
    assert list(found) == ["lm", "tag", "tag-online"]
    assert found["tag"] == {
        "run": "tag", "seeds": "2", "metric": "accuracy", "rnnfast": "0.9200 (0.9000 to 0.9400)",
        "torch": "0.9400 (0.9100 to 0.9700)", "within spread": "yes", "rnnfast s": "11.0", "torch s": "33.0",
        "torch / rnnfast": "3.00", "rnnfast items/s": "92", "torch items/s": "37", "rnnfast / torch": "2.50",
        "updates": "100, 120",
    }  # fmt: skip


def test_one_seed_has_no_spread_and_one_backend_no_ratio() -> None:
    found = rows(KEPT)
    assert found["lm"]["within spread"] == "one seed"
    assert (found["lm"]["rnnfast"], found["lm"]["torch / rnnfast"]) == ("1.5000", "0.50")
    online = found["tag-online"]
    assert (online["seeds"], online["rnnfast"], online["torch"]) == ("2", "0.5500 (0.5000 to 0.6000)", "-")
    assert {online[c] for c in ("within spread", "torch s", "torch / rnnfast", "rnnfast / torch")} == {"-"}
    assert online["updates"] == "100, -"


def test_only_seeds_of_both_backends_count() -> None:
    """A third seed on one side changes nothing; without a common seed there is nothing to compare."""
    assert rows(KEPT | {"tag-rnnfast-2": document(0.1, 900)})["tag"] == rows(KEPT)["tag"]
    assert "a" not in rows({"a-rnnfast-0": document(0.9, 1), "a-torch-1": document(0.9, 1)})


@pytest.mark.parametrize(("torch", "within"), [((0.95, 0.97), False), ((0.93, 0.95), True), ((0.70, 1.0), True)])
def test_the_larger_spread_decides(torch: tuple[float, float], within: bool) -> None:
    """rnnfast: 0.92 on average, from 0.90 to 0.94."""
    ours = [document(metric, 1) for metric in (0.90, 0.94)]
    theirs = [document(metric, 1) for metric in torch]
    assert Comparison("tag", {"rnnfast": ours, "torch": theirs}).within_spread is within


def test_times_of_other_machines_are_not_compared() -> None:
    other = KEPT | {"tag-torch-1": document(0.97, 36, threads=1)}
    found = rows(other)["tag"]
    assert (found["torch / rnnfast"], found["rnnfast / torch"], found["torch s"]) == ("-", "-", "33.0")
    assert "not made on the same machine: tag." in "\n".join(table(compared(other)))
    assert "not made" not in "\n".join(table(compared(KEPT)))


def test_plain_table_and_choice_of_tasks() -> None:
    assert list(rows(KEPT, "lm")) == ["lm"]
    lines = list(table(compared(KEPT)))
    assert [lines[1].index("1.5000"), lines[2].index("0.9200")] == [lines[0].index("rnnfast")] * 2
    assert lines[4] == ""
