# SPDX-License-Identifier: Apache-2.0
"""The Python blocks of the documents run, in order, as one program each; links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", ["README.md", "docs/migration.md", "docs/streaming.md", "docs/training.md"])
def test_blocks_run(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / document).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks, f"{document} has no Python block"
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], str(ROOT / document), "exec"), namespace)


def test_training_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The spectral reports that the page shows are those that the block above them prints."""
    test_blocks_run("docs/training.md", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    shown = re.findall(r"^(?: {4}.*\n)+", (ROOT / "docs/training.md").read_text(), re.M)
    (reports,) = [text for text in shown if "the recurrent matrices" in text]
    assert re.sub(r"^ {4}", "", reports, flags=re.M) in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_migration_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The table that the page shows is the one that the block above it prints."""
    test_blocks_run("docs/migration.md", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    shown = re.findall(r"^ {4}(name  class.*?accelerated)\n\n", (ROOT / "docs/migration.md").read_text(), re.M | re.S)
    assert len(shown) == 1
    assert shown[0].replace("\n    ", "\n") in printed
