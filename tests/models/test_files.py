# SPDX-License-Identifier: Apache-2.0
"""Model files that are foreign, newer, damaged or dangerous: one clear error, and nothing of them is executed."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rnnfast.models
from rnnfast.models import LanguageModel, Vocabulary, base


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "m.pt"
    LanguageModel(5, 4, 1, 3).save(path, {"symbols": Vocabulary("abcde")})
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        rnnfast.models.load(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).startswith("rnnfast.models.load: ")


def changed(path: Path, **entries: Any) -> None:
    data = torch.load(path, weights_only=True)
    data.update(entries)
    if all(data.get(key) is not None for key in ("kind", "weights", "digest")):
        data["digest"] = base._digest(data)
    torch.save({k: v for k, v in data.items() if v is not None}, path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rnnfast.models.load(tmp_path / "none.pt")
    with pytest.raises(IsADirectoryError):
        rnnfast.models.load(tmp_path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"hello\n", bytes(range(256)) * 9):
        path.write_bytes(content)
        refused(path, "damaged, or no model of rnnfast")
    for value in ({"weights": {}}, [1, 2], torch.zeros(3), LanguageModel(5, 4).state_dict()):
        torch.save(value, path)
        refused(path, "expected a model that rnnfast saved, got another torch file")


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (str(Evil.path),)

    path: Path


def test_code_is_not_executed(tmp_path: Path) -> None:
    Evil.path = tmp_path / "executed"
    torch.save({"format": "rnnfast.model", "version": 1, "weights": Evil()}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "damaged, or no model of rnnfast")
    assert not Evil.path.exists()


def test_newer_and_odd_versions(saved: Path) -> None:
    for version in (2, 99, "1", None):
        changed(saved, version=version, rnnfast="9.0")
        refused(saved, re.escape(f"format version {version} is newer than this rnnfast reads (1)") + ".*rnnfast 9.0")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "poet"}, "kind: expected one of .*'lm'.*, got 'poet'"),
        ({"kind": None}, "KeyError: 'kind'"),
        ({"digest": None}, "KeyError: 'digest'"),
        ({"config": "{"}, "JSONDecodeError"),
        ({"config": '{"symbols": 5, "colour": 3}'}, "unexpected keyword argument 'colour'"),
        ({"config": '{"symbols": 6}'}, "size mismatch|Error.* in loading state_dict"),
        ({"weights": {}}, "loading state_dict"),
        ({"weights": None}, "KeyError: 'weights'"),
        ({"vocabulary": '{"x": {"symbols": ["a", "a"], "padding": null, "unknown": null}}'}, "'a' stands there twice"),
        ({"dtype": "float31"}, "float31"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(saved: Path, entries: dict[str, Any], message: str) -> None:
    changed(saved, **entries)
    refused(saved, f"damaged, or its parts do not fit together .*({message})")


def test_truncated(saved: Path) -> None:
    content = saved.read_bytes()
    for keep in (1, 30, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:keep])
        refused(saved, "damaged, or no model of rnnfast")


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bits_are_noticed_or_harmless(saved: Path, at: int, bit: int) -> None:
    """One flipped bit anywhere: either the file is refused, or all values are those that were saved."""
    content = bytearray(saved.read_bytes())
    want = rnnfast.models.load(saved)
    at %= len(content)
    content[at] ^= 1 << bit
    bad = saved.with_name("bad.pt")
    bad.write_bytes(content)
    try:
        got = rnnfast.models.load(bad)
    except ValueError:
        return
    assert got.config() == want.config()
    assert got.vocabulary == want.vocabulary
    for key, value in want.state_dict().items():
        assert torch.equal(got.state_dict()[key], value), f"byte {at}, bit {bit}: {key} changed unnoticed"


def test_saving_replaces_whole_or_not_at_all(saved: Path) -> None:
    before = saved.read_bytes()
    model = LanguageModel(5, 4, 1, 3)
    with pytest.raises(TypeError, match="not JSON serializable"):
        model.save(saved, extra={"x": object()})
    assert saved.read_bytes() == before
    with pytest.raises(FileNotFoundError):
        model.save(saved.parent / "no" / "m.pt")
    assert [p.name for p in saved.parent.iterdir()] == ["m.pt"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(tmp_path: Path, dtype: torch.dtype) -> None:
    model = LanguageModel(5, 4, 1, 4, tied=True).to(dtype)
    model.save(tmp_path / "m.pt")
    back = rnnfast.models.load(tmp_path / "m.pt")
    assert {p.dtype for p in back.parameters()} == {dtype}
    assert back.output.weight is back.embedding.weight, "tied weights stay tied"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))
