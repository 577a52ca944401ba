# SPDX-License-Identifier: Apache-2.0
"""The pages' Python runs; the examples run, briefly; and every argument of a model is explained."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import rnnfast.models
from rnnfast.models import Model

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "models").glob("*.md"))
ADDING_PROBLEM = ("adding_problem", "long_memory")  # no models: tests/test_long_memory.py
EXAMPLES = sorted(p for p in (ROOT / "examples").glob("*.py") if p.stem not in ADDING_PROBLEM)
MODELS = [m for m in vars(rnnfast.models).values() if inspect.isclass(m) and issubclass(m, Model) and m is not Model]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks, f"{page} has no Python block"
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{example.stem}", example)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(updates=2) is not None
    assert capsys.readouterr().out


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_arguments_are_explained(model: type[Model]) -> None:
    arguments = (model.__doc__ or "").partition("Args:")[2].partition("Raises:")[0]
    for name in inspect.signature(model).parameters:
        assert re.search(rf"^        (\w+, )*{name}(, \w+)*:", arguments, re.MULTILINE), name
