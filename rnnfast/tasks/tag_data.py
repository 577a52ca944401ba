# SPDX-License-Identifier: Apache-2.0
"""Which reader a tagging task's files want, and its three parts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnfast.runs import InputError
from rnnfast.tasks.data.python_source import library_sources, read_python
from rnnfast.tasks.data.slots import is_slot_folder, part_folders, read_slots
from rnnfast.tasks.data.split import Parts, by_groups, from_files
from rnnfast.tasks.data.tagged import Tagged, read_bio, read_conllu

FORMATS = ("python", "conllu", "bio", "slots")


def format_of(path: Path) -> str:
    """What a file or folder seems to be."""
    if path.is_dir():
        return "slots" if is_slot_folder(path) else "python"
    return {".conllu": "conllu", ".py": "python"}.get(path.suffix.lower(), "bio")


def read_parts(options: Mapping[str, Any], seed: int) -> tuple[str, Parts[Tagged]]:
    """(format, parts). Whole files of Python source, whole sentences of the rest.

    Raises:
        InputError: from reading, or too little to split.
    """
    main = options.get("data") or options.get("train")
    limit = options["limit"]
    if not main:
        if options.get("valid") or options.get("test"):
            raise InputError("--valid and --test: expected --train with them")
        if options.get("format") not in (None, "python"):
            raise InputError(f"--format {options['format']}: expected --data or --train with it")
        sources = library_sources(limit)
        return "python", _split(sources, seed)
    kind = options.get("format") or format_of(Path(main))
    given = dict(options)
    if kind == "slots" and options.get("data"):
        folders = part_folders(Path(options["data"]))
        if len(folders) > 1:
            given |= {"data": None, **{part: str(folder) for part, folder in folders.items()}}

    def read(path: Path) -> list[Tagged]:
        if kind == "python":
            return _python_files(path)[:limit]
        found = {"conllu": lambda p: read_conllu(p, options["column"]), "bio": read_bio, "slots": read_slots}[kind](
            path
        )
        return found[:limit]

    return kind, from_files(given, read, seed=seed)


def _python_files(path: Path) -> list[Tagged]:
    """A file, or all .py files under a folder that hold anything (an `__init__.py` need not)."""
    files = [path]
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*.py")) if file.is_file() and file.read_bytes().strip()]
    found = [read_python(file) for file in files]
    if not found:
        raise InputError(f"{path}: expected .py files, got none")
    return found


def _split(files: list[Tagged], seed: int) -> Parts[Tagged]:
    number = {id(file): str(i) for i, file in enumerate(files)}
    return by_groups(files, lambda file: number[id(file)], seed, valid=0.05, test=0.1)
