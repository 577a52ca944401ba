# SPDX-License-Identifier: Apache-2.0
"""The Python blocks of the documents run, in order, as one program each."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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


def test_migration_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The table that the page shows is the one that the block above it prints."""
    test_blocks_run("docs/migration.md", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    shown = re.findall(r"^ {4}(name  class.*?accelerated)\n\n", (ROOT / "docs/migration.md").read_text(), re.M | re.S)
    assert len(shown) == 1
    assert shown[0].replace("\n    ", "\n") in printed
