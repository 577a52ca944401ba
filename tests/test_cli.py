# SPDX-License-Identifier: Apache-2.0
"""The command line and the demo as a user runs them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rnnfast.demo.text import Corpus, compressed_bits, entropy_bits, streams, unigram_bits
from rnnfast.demo.training import Settings, Trainer
from rnnfast.runs import InputError, resumed_folder
from tests.helpers import interrupted

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # the models are tiny, and the machine may be busy
TEXT = "the quick brown fox jumps over the lazy dog. " * 120


def rnnfast(*args: str, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rnnfast", *args]
    kwargs = {"env": ENVIRONMENT} | kwargs
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, **kwargs)


def test_info() -> None:
    result = rnnfast("info")
    assert result.returncode == 0
    for word in ("rnnfast:", "torch:", "instructions:", "threads:", "CUDA:", "for more:"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "COMMAND"),
        (["dmeo"], "invalid choice: 'dmeo'"),
        (["demo", "--steps", "0"], "expected a positive number, got '0'"),
        (["demo", "--minutes", "nan"], "expected a positive number"),
        (["demo", "--text", "no/such/file"], "No such file"),
        (["demo", "--text", "."], "Is a directory"),
        (["demo", "--text", "short.txt"], "at least 2000 characters"),
        (["demo", "--text", "binary.bin"], "expected UTF-8 text"),
        (["demo", "--resume", "--name", "nothing"], "no checkpoint"),
        (["demo", "--resume"], "there is no run"),
        (["demo", "--batch", "1000000"], "--batch"),
        (["demo", "--out", "short.txt"], "cannot make"),
    ],
)
def test_bad_arguments(args: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe" * 5000)
    result = rnnfast(*args, cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 2, result
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_demo_quick(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    args = ("demo", "--quick", "--text", str(text), "--out", str(tmp_path), "--name", "a")
    result = rnnfast(*args)
    assert result.returncode == 0, result.stderr
    last = result.stdout.strip().splitlines()[-1]
    assert last.endswith("bits per char")
    report = json.loads((tmp_path / "a/report.json").read_text())
    assert f"{report['results']['bits_per_char']:.3f}" in last
    assert report["results"]["steps"] == 30
    assert report["results"]["race"]["ratio"] > 0
    assert (tmp_path / "a/loss.png").read_bytes().startswith(b"\x89PNG")
    assert rnnfast(*args).returncode == 2  # an existing run is never overwritten
    other = rnnfast(*args, "--resume", "--hidden", "32")
    assert other.returncode == 2
    assert "got hidden 32 where it has 64; only --steps and --minutes may change" in other.stderr
    (tmp_path / "a/checkpoint.pt").write_bytes(b"damaged")
    damaged = rnnfast(*args, "--resume")
    assert damaged.returncode == 2
    assert "cannot be read" in damaged.stderr


def test_interrupt_and_resume(tmp_path: Path) -> None:
    """Ctrl-C saves and exits with 130; the resumed run ends with the numbers of an uninterrupted one."""
    args = ["--hidden", "32", "--steps", "400", "--batch", "4", "--chunk", "16", "--out", str(tmp_path)]
    whole = rnnfast("demo", *args, "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "rnnfast", "demo", *args, "--name", "cut"]
    code, stderr = interrupted(command, tmp_path / "cut/checkpoint.pt", env=ENVIRONMENT)
    assert code == 130, stderr
    assert "--resume --name cut" in stderr
    resumed = rnnfast("demo", "--resume", "--name", "cut", "--out", str(tmp_path))
    assert resumed.returncode == 0, resumed.stderr
    reports = [json.loads((tmp_path / name / "report.json").read_text())["results"] for name in ("whole", "cut")]
    for key in ("loss_bits", "gradient_norm", "held_out", "bits_per_char", "sample"):
        assert reports[0][key] == reports[1][key], key


def test_training_learns_and_repeats() -> None:
    corpus = Corpus.of(TEXT)
    settings = Settings(steps=60, batch=4, chunk=32, hidden=48, evaluate_every=30)
    results = []
    for _ in range(2):
        trainer = Trainer(corpus, settings)
        assert trainer.run(lambda *_: None)
        results.append(trainer.progress)
    assert results[0].loss_bits == results[1].loss_bits
    assert results[0].best_bits < 0.7 * unigram_bits(corpus.train, corpus.held_out, corpus.symbols)


def test_the_latest_run_is_one_of_its_kind(tmp_path: Path) -> None:
    for age, name in enumerate(("tag-2", "demo-9", "demo-1", "lm-3", "named")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint.pt").write_bytes(b"")
        os.utime(tmp_path / name / "checkpoint.pt", (1000 - age, 1000 - age))
    assert resumed_folder(tmp_path, None, "demo") == tmp_path / "demo-9"
    assert resumed_folder(tmp_path, None, "lm") == tmp_path / "lm-3"
    assert resumed_folder(tmp_path, "named", "lm") == tmp_path / "named"
    with pytest.raises(InputError, match="there is no run of seq2seq in"):
        resumed_folder(tmp_path, None, "seq2seq")


def test_checkpoint_of_another_text(tmp_path: Path) -> None:
    trainer = Trainer(Corpus.of(TEXT), Settings(steps=2, batch=2, hidden=8))
    trainer.save(tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="another text"):
        Trainer.load(tmp_path / "checkpoint.pt", Corpus.of(TEXT.upper()))


def test_corpus() -> None:
    corpus = Corpus.of("ab" * 1800 + "abz?" * 100)
    assert corpus.characters == "ab"
    assert corpus.held_out.numel() == 400
    assert corpus.decode(corpus.held_out[:4]) == "ab\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert torch.equal(corpus.encode("ba"), torch.tensor([2, 1]))
    rows = streams(torch.arange(11), 3)
    assert rows.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_entropies_by_hand() -> None:
    assert entropy_bits("aabb") == pytest.approx(1.0)
    assert entropy_bits("aaab") == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    # counts 4 and 2, plus one each: 5/8 and 3/8
    train, held_out = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 1])
    assert unigram_bits(train, held_out, 2) == pytest.approx(-(math.log2(5 / 8) + math.log2(3 / 8)) / 2)
    bits = compressed_bits("a" * 10000)
    assert 0 < bits["xz"] < 0.2
    assert 0 < bits["gzip"] < 0.2
