"""Which files a RUN on the command line means, what tables call them, and what is said where a file cannot be written."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from analysis.read import JOURNAL, AnalysisError, RunFile

RESULTS = Path("results")
LATEST = "latest"

_STORED = "[0-9][0-9][0-9][0-9]_*.json"


def find_run(run: str) -> RunFile:
    """The one file of `run`: a path, a number such as `0007`, or `latest` (the newest under results/). Raises AnalysisError."""
    path = _one_file(run)
    return RunFile(path, _name_of(path))


def find_runs(runs: Sequence[str]) -> list[RunFile]:
    """The files of `runs`, each once: what find_run finds, or all JSON in a folder and below it. Raises AnalysisError."""
    found: dict[Path, tuple[Path, bool]] = {}
    for run in runs:
        paths = sorted(filter(Path.is_file, Path(run).rglob("*.json"))) if is_folder(run) else [_one_file(run)]
        if not paths:
            raise AnalysisError(f"{run}: there is no saved run in this folder")
        for path in paths:
            first, named = found.get(path.resolve(), (path, False))
            found[path.resolve()] = first, named or not is_folder(run)
    names = _unique_names([path for path, _ in found.values()])
    return [RunFile(path, name, named) for (path, named), name in zip(found.values(), names, strict=True)]


def is_folder(run: str) -> bool:
    return os.path.isdir(run)  # noqa: PTH112 - Path's raises where the text is too long for a path


def _one_file(run: str) -> Path:
    if run == LATEST or re.fullmatch(r"\d{1,4}", run):
        return _stored_run(run)
    if not os.path.isfile(run):  # noqa: PTH113 - see above
        problem = "this is a folder" if is_folder(run) else "no such file"
        raise AnalysisError(f"{run}: {problem}; a run is a file, a number such as 0007, or {LATEST}")
    return Path(run)


def _stored_run(run: str) -> Path:
    stored = sorted(filter(Path.is_file, RESULTS.glob(f"*/{_STORED}")), key=lambda path: (path.stat().st_mtime, path.name))
    if not stored and run == LATEST:
        stored = sorted(RESULTS.glob(f"*/.*{JOURNAL}"))
    if not stored:
        raise AnalysisError(f"there is no saved run under {RESULTS}/; `pytest --benchmark` makes one, or name a file")
    found = stored if run == LATEST else [path for path in stored if path.name.startswith(f"{int(run):04}_")]
    if not found:
        there = ", ".join(path.name[:4] for path in stored)
        raise AnalysisError(f"there is no run {int(run):04} under {RESULTS}/ (there: {there})")
    return found[-1]


def _name_of(path: Path) -> str:
    """The number of a stored run, else the file's name without its ending."""
    return path.name[:4] if path.match(_STORED) else path.stem


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell each path from all others, which differ: number or stem, with its folder, or the whole path."""
    names = list(map(_name_of, paths))
    for longer_names in ([f"{path.parent.name}/{path.stem}" for path in paths], list(map(str, paths))):
        counts = Counter(names)
        names = [name if counts[name] == 1 else longer for name, longer in zip(names, longer_names, strict=True)]
    return names


@contextmanager
def writing() -> Iterator[None]:
    """Raises AnalysisError where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise AnalysisError(f"{error.filename}: cannot be written: {error.strerror}; name another place") from error
