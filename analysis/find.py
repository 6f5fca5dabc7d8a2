"""Which files a RUN on the command line means, and what tables call them."""

from __future__ import annotations

import glob
import os.path
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

RESULTS = Path("results")
LATEST = "latest"

_STORED = re.compile(r"(\d{4})_.*\.json$")


class RunFileError(Exception):
    """What is wrong with a run: names the file, the field, what was expected, and the next step."""


class SchemaError(RunFileError):
    """The run was saved by a version whose schema this one does not read."""


def find_run(run: str, folder: Path = RESULTS) -> Path:
    """The one file of `run`: a path, a number such as `0007`, or `latest` (the newest under `folder`). Raises RunFileError."""
    saved = _stored(folder)
    if run == LATEST:
        if not saved:
            raise RunFileError(f"there is no saved run under {folder}/; `pytest --benchmark` makes one, or name a file")
        return saved[-1]
    if re.fullmatch(r"\d{1,4}", run):
        numbered = [path for path in saved if path.name.startswith(f"{int(run):04}_")]
        if not numbered:
            known = ", ".join(path.name[:4] for path in saved) or "none"
            raise RunFileError(f"there is no run {int(run):04} under {folder}/ (there: {known})")
        return numbered[-1]
    path = Path(run)
    try:
        what = None if path.is_file() else "this is a folder" if path.is_dir() else "no such file"
    except OSError as error:
        what = error.strerror
    if what is not None:
        raise RunFileError(f"{run}: {what}; a run is a file, a number such as 0007, or {LATEST}")
    return path


def stored_numbers(folder: Path = RESULTS) -> list[str]:
    """The numbers of the runs under `folder`, the newest first."""
    return list(dict.fromkeys(path.name[:4] for path in reversed(_stored(folder))))


def _stored(folder: Path) -> list[Path]:
    there = (path for path in folder.glob("*/[0-9][0-9][0-9][0-9]_*.json") if path.is_file())
    return sorted(there, key=lambda path: (path.stat().st_mtime, path.name))


def find_runs(runs: Sequence[str], folder: Path = RESULTS, warnings: list[str] | None = None) -> list[Path]:
    """The files of `runs`, each only once: what find_run finds, all runs in a folder and those below it, or those of a glob.

    Raises RunFileError. JSON in a folder that pytest-benchmark did not save is passed over; `warnings` gets a sentence about it.
    """
    found: dict[Path, Path] = {}
    for run in runs:
        is_folder = os.path.isdir(run)  # noqa: PTH112 - Path's raises for a text that is too long for a path
        paths = _in_folder(run, warnings) if is_folder else _of_glob(run) or [find_run(run, folder)]
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _in_folder(folder: str, warnings: list[str] | None) -> list[Path]:
    runs: list[Path] = []
    others: list[Path] = []
    for path in sorted(path for path in Path(folder).rglob("*.json") if path.is_file()):
        (others if _is_something_else(path) else runs).append(path)
    passed_over = f"{others[0]}{f' and {len(others) - 1} more' if others[1:] else ''}" if others else ""
    if not runs:
        raise RunFileError(f"{folder}: there is no saved run in this folder{f' (no runs: {passed_over})' if others else ''}")
    if others and warnings is not None:
        warnings.append(f"passed over, for pytest-benchmark did not save it: {passed_over}")
    return runs


def _of_glob(run: str) -> list[Path]:
    """The files that `run` matches if it is a pattern and not itself a file."""
    if not glob.has_magic(run) or os.path.exists(run):  # noqa: PTH110 - as above
        return []
    files = [Path(name) for name in sorted(glob.glob(run, recursive=True)) if Path(name).is_file()]  # noqa: PTH207 - a pattern may start at /
    if not files:
        raise RunFileError(f"{run}: no file matches this pattern")
    return files


def _is_something_else(path: Path) -> bool:
    """Whether `path` holds good JSON without what every file of pytest-benchmark holds, near its beginning."""
    try:
        with path.open("rb") as file:
            content = file.read(2**16)
            if b'"benchmarks"' in content:
                return False
            content += file.read()
        return b'"benchmarks"' not in content and msgspec.json.decode(content, type=msgspec.Raw) is not None
    except (OSError, msgspec.DecodeError, RecursionError):
        return False


def name_of(path: Path) -> str:
    return found[1] if (found := _STORED.match(path.name)) else path.stem


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell each path from all others, which differ: number or stem, with its folder, or the whole path."""
    names = [name_of(path) for path in paths]
    for longer in (lambda path: f"{path.parent.name}/{path.stem}", str):
        counts = Counter(names)
        names = [name if counts[name] == 1 else longer(path) for name, path in zip(names, paths, strict=True)]
    return names
