# SPDX-License-Identifier: Apache-2.0
"""Readers of data: what they give, and the one line they say about what they cannot read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rnnfast.runs import InputError
from rnnfast.tasks.data import files
from rnnfast.tasks.data.labelled_text import read_labelled_text
from rnnfast.tasks.data.pairs import read_pairs
from rnnfast.tasks.data.python_source import CLASSES, classes_of, library_sources, read_python
from rnnfast.tasks.data.series import read_column
from rnnfast.tasks.data.slots import part_folders, read_slots
from rnnfast.tasks.data.split import by_groups, from_files, stratified
from rnnfast.tasks.data.tagged import Tagged, read_bio, read_conllu
from rnnfast.tasks.data.text import pydoc_topics, read_characters, read_sentences, split_text
from rnnfast.tasks.data.ts import read_ts

TS = "# made up\n@problemName X\n@timeStamps false\n@univariate false\n@dimensions 2\n@classLabel true a b\n@data\n"
CONLLU = """# text = Du cheval
1-2\tDu\t_\t_\t_\t_\t_\t_\t_\t_
1\tDe\tde\tADP\t_\t_\t3\tcase\t_\t_
2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_
2.1\tx\t_\t_\t_\t_\t_\t_\t_\t_
3\tcheval\tcheval\tNOUN\t_\t_\t0\troot\t_\t_

1\tOui\toui\tINTJ\t_\t_\t0\troot\t_\t_
"""


def column(path: Path) -> list[float]:
    return read_column(path, "sold")


READERS: dict[str, Callable[[Path], Any]] = {
    "characters": lambda path: read_characters([path]),
    "sentences": lambda path: read_sentences([path]),
    "labelled text": read_labelled_text,
    "pairs": read_pairs,
    "ts": read_ts,
    "conllu": read_conllu,
    "bio": read_bio,
    "python": read_python,
    "csv": column,
}


def written(folder: Path, text: str | bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "empty file"),
        (b" \n\n", "empty file"),
        (b"ok\nx\xff", "line 2: expected UTF-8 text"),
    ],
)
def test_every_reader_on_no_text(reader: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "none" if content is None else written(tmp_path, content)
    with pytest.raises(InputError, match=words) as error:
        READERS[reader](path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("reader", "content", "words"),
    [
        (
            "labelled text",
            "good\tyes\nno label here\n",
            "line 2: expected text, a tab and a label, got a line without a tab",
        ),
        ("labelled text", "good\t\n", "line 1: .*got no label"),
        ("labelled text", "\tyes\n", "line 1: .*got no text"),
        ("pairs", "a\tb\na\tb\tc\n", "line 2: expected source, one tab, target, got 2 tabs"),
        ("pairs", "a\t \n", "got no target"),
        ("bio", "Paris B-city\nis\n", "line 2: expected a token and a label, got 1 fields"),
        ("bio", "Paris city\n", "line 1: expected a label O, B-TYPE or I-TYPE, got 'city'"),
        ("conllu", "1\tword\tNOUN\n", "line 1: expected CoNLL-U: ten fields.*got 3"),
        ("conllu", "x" + "\ta" * 9 + "\n", "line 1: expected a word's number as ID, got 'x'"),
        ("conllu", "1\t\t" + "\ta" * 7 + "\n", "line 1: expected a value in FORM"),
        ("conllu", "# only a comment\n", "expected sentences, got none"),
        ("csv", "day,price\n1,2\n", "line 1: expected one column 'sold' in the header, got 'day', 'price'"),
        ("csv", "sold,sold\n1,2\n", "got twice that"),
        ("csv", "day,sold\n1,2\n2,\n", "line 3: expected a finite number in column 'sold', got ''"),
        ("csv", "day,sold\n1\n", "line 2: expected a finite number"),
        ("csv", "sold\nnan\n", "line 2: expected a finite number"),
        ("csv", "sold\n", "expected rows after the header, got none"),
        ("csv", 'sold\n"1"x\n', "line 2: expected CSV"),
        ("python", "x = (1,\n", "expected Python source"),
        ("ts", "@data\n1:a\n", "line 1: expected @classLabel true and the labels before @data"),
        ("ts", TS, "expected cases after @data, got none"),
        ("ts", TS + "1,2:3,4:c\n", "line 8: expected one of the labels a, b, got 'c'"),
        ("ts", TS + "1,2:a\n", "line 8: expected 2 dimensions, got 1"),
        ("ts", TS + "1,2:3:a\n", "line 8: expected dimensions of one length, got lengths 2, 1"),
        ("ts", TS + "1,?:3,4:a\n", "line 8: .*missing value"),
        ("ts", TS + "1,x:3,4:a\n", "line 8: expected finite numbers .*got 'x'"),
        ("ts", "@missing true\n", "line 1: expected series without missing values"),
        ("ts", "@timeStamps true\n", "line 1: expected series without time stamps"),
        ("ts", "@targetLabel true\n", "regression target"),
        ("ts", "@univariate perhaps\n", "line 1: expected @univariate true or false"),
        ("ts", "@dimensions many\n", "line 1: expected @dimensions and a positive number"),
        ("ts", "1,2:a\n", "line 1: expected a header line"),
        ("ts", "@equalLength true\n@classLabel true a\n@data\n1,2:a\n1:a\n", "line 5: expected 2 values"),
        ("ts", "@problemName x\n", "expected a line @data"),
    ],
)
def test_malformed(reader: str, content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as error:
        READERS[reader](written(tmp_path, content))
    assert "\n" not in str(error.value)


def test_text(tmp_path: Path) -> None:
    a, b = written(tmp_path, "\ufeffone\r\ntwo", "a"), written(tmp_path, "the cat\n\n sat  down \n", "b")
    assert read_characters([a, b]) == "one\ntwo\n\nthe cat\n\n sat  down \n"
    assert read_sentences([b]) == [["the", "cat"], ["sat", "down"]]
    assert split_text("0123456789" * 3) == ("0123456789" * 2 + "0123456", "789")
    assert len(pydoc_topics()) > 100_000
    with pytest.raises(InputError, match="at least 20 characters"):
        split_text("short")


def test_labelled_text_and_pairs(tmp_path: Path) -> None:
    path = written(tmp_path, "a film\twith a tab\tgood\n\nbad\tno\n")
    assert read_labelled_text(path) == [("a film\twith a tab", "good"), ("bad", "no")]
    assert read_pairs(written(tmp_path, "live\tL IH V\nlive\tL AY V\n")) == [("live", "L IH V"), ("live", "L AY V")]


def test_ts(tmp_path: Path) -> None:
    found = read_ts(written(tmp_path, TS + "1,2,3:4,5,6:a\n\n-1e2:0.5:b\n"))
    assert found.labels == ["a", "b"]
    assert found.declared == ("a", "b")
    assert found.features == 2
    torch.testing.assert_close(found.series[0], torch.tensor([[1.0, 4], [2, 5], [3, 6]]))
    torch.testing.assert_close(found.series[1], torch.tensor([[-100.0, 0.5]]))


def test_conllu_and_bio(tmp_path: Path) -> None:
    path = written(tmp_path, CONLLU)
    assert read_conllu(path) == [Tagged(["De", "le", "cheval"], ["ADP", "DET", "NOUN"]), Tagged(["Oui"], ["INTJ"])]
    assert read_conllu(path, "deprel")[0].labels == ["case", "det", "root"]
    with pytest.raises(InputError, match="--column POS: expected one of ID, FORM"):
        read_conllu(path, "POS")
    path = written(tmp_path, "New\tB-city\nYork I-city\n\n\nis O\n")
    assert read_bio(path) == [Tagged(["New", "York"], ["B-city", "I-city"]), Tagged(["is"], ["O"])]


def slot_folder(
    folder: Path, words: str = "to boston\nbye\n", slots: str = "O B-to\nO\n", intents: str = "go\nend\n"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("seq.in", words), ("seq.out", slots), ("label", intents)):
        (folder / name).write_text(text)
    return folder


def test_slots(tmp_path: Path) -> None:
    assert read_slots(slot_folder(tmp_path / "a"))[0] == Tagged(["to", "boston"], ["O", "B-to"], "go")
    assert part_folders(tmp_path / "a") == {"train": tmp_path / "a"}
    for part in ("train", "dev", "test"):
        slot_folder(tmp_path / "all" / part)
    assert part_folders(tmp_path / "all")["valid"] == tmp_path / "all/dev"
    with pytest.raises(InputError, match="or folders train"):
        part_folders(tmp_path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"slots": "O B-to\n"}, "as many lines in each of its files, got seq.in 2, seq.out 1, label 2"),
        ({"slots": "O\nO\n"}, "seq.out, line 1: expected 2 labels, one a token, got 1"),
        ({"slots": "O to\nO\n"}, "line 1: expected a label O"),
        ({"words": "to boston\n\n"}, "seq.in, line 2: expected a sentence, got an empty line"),
        ({"intents": "go\n \n"}, "label, line 2: expected an intent"),
        ({"intents": ""}, "label: expected a sentence a line, got an empty file"),
    ],
)
def test_malformed_slots(changed: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_slots(slot_folder(tmp_path / "a", **changed))


def test_column(tmp_path: Path) -> None:
    path = written(tmp_path, 'day,"sold"\n"mon, early",1.5\n\ntue,-2e3\n')
    assert column(path) == [1.5, -2000.0]


def test_python_classes(tmp_path: Path) -> None:
    source = 'def f(x):  # no\n\treturn "a b" + \\\n    0x1F\n'
    found = dict(zip(("k", "n", "s", "c", "o", "d", "w"), ("keyword", "name", "string", "comment", "operator", "number",
                                                          "whitespace"), strict=True))  # fmt: skip
    expected = "kkkwnonoowwccccwwkkkkkkwssssswowowwwwwddddw"
    assert classes_of(source) == [found[c] for c in expected]
    assert read_python(written(tmp_path, source)).tokens == list(source)
    # A form feed, and characters that str.splitlines takes for ends of lines, move nothing.
    assert classes_of("x = 1\n\f\ny = '\x1c\u2028' + z\n")[-2] == "name"
    assert classes_of("None")[0] == "keyword"


def test_library_is_read() -> None:
    sources = library_sources(8)
    assert len(sources) == 8
    assert {label for s in sources for label in s.labels} == set(CLASSES)
    for s in sources:
        spaces = [c.isspace() for c, label in zip(s.tokens, s.labels, strict=True) if label == "whitespace"]
        assert all(spaces)


def test_split() -> None:
    parts = stratified(["a"] * 50 + ["b"] * 10, (0.6, 0.2, 0.2), seed=1)
    assert [len(p) for p in parts] == [36, 12, 12]
    assert [sum(i >= 50 for i in p) for p in parts] == [6, 2, 2]
    assert sorted(i for p in parts for i in p) == list(range(60))
    assert parts == stratified(["a"] * 50 + ["b"] * 10, (0.6, 0.2, 0.2), seed=1)
    assert parts != stratified(["a"] * 50 + ["b"] * 10, (0.6, 0.2, 0.2), seed=2)
    pairs = [(w, i) for i in range(3) for w in "abcdefghij"]
    cut = by_groups(pairs, lambda pair: pair[0], 0, 0.2, 0.1)
    assert cut.sizes() == {"train": 21, "valid": 6, "test": 3}
    words = [{w for w, _ in part} for part in (cut.train, cut.valid, cut.test)]
    assert sum(map(len, words)) == len(set.union(*words)) == 10
    with pytest.raises(InputError, match="at least 3 examples"):
        by_groups(pairs[:2], lambda pair: pair[0], 0, 0.2, 0.1)


def test_split_of_files(tmp_path: Path) -> None:
    path = written(tmp_path, "".join(f"{i}\t{i}\n" for i in range(50)))
    other = written(tmp_path, "x\ty\n", "other")
    cut = from_files({"data": path}, read_pairs)
    assert cut.sizes() == {"train": 40, "valid": 5, "test": 5}
    cut = from_files({"train": path, "test": other}, read_pairs)
    assert cut.sizes() == {"train": 45, "valid": 5, "test": 1}
    assert cut.test_source == other
    cut = from_files({"train": path, "valid": other}, read_pairs)
    assert cut.sizes() == {"train": 45, "valid": 1, "test": 5}
    assert len({*cut.train, *cut.test}) == 50  # nothing twice, nothing lost
    assert from_files({"train": path, "test": other, "valid": other}, read_pairs).sizes()["train"] == 50
    for options in ({}, {"data": path, "train": path}, {"test": other}):
        with pytest.raises(InputError, match="expected either --data or --train"):
            from_files(options, read_pairs)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"the digits comes with no_such, .*pip install 'rnnfast\[examples\]'"):
        files.package("no_such.datasets", "the digits")
