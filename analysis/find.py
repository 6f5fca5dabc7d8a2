"""Which files a RUN on the command line means, and what tables call them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from analysis.read import JOURNAL, AnalysisError, RunFile

RESULTS = Path("results")
LATEST = "latest"

_STORED = "[0-9][0-9][0-9][0-9]_*.json"


def find_run(run: str, folder: Path = RESULTS) -> RunFile:
    """The one file of `run`: a path, a number such as `0007`, or `latest` (the newest under `folder`). Raises AnalysisError."""
    path = _one_file(run, folder)
    return RunFile(path, name_of(path))


def find_runs(runs: Sequence[str], folder: Path = RESULTS) -> list[RunFile]:
    """The files of `runs`, each once: what find_run finds, or all JSON in a folder and below it. Raises AnalysisError."""
    found: dict[Path, tuple[Path, bool]] = {}
    for run in runs:
        paths = sorted(filter(Path.is_file, Path(run).rglob("*.json"))) if is_folder(run) else [_one_file(run, folder)]
        if not paths:
            raise AnalysisError(f"{run}: there is no saved run in this folder")
        for path in paths:
            first, named = found.get(path.resolve(), (path, False))
            found[path.resolve()] = first, named or not is_folder(run)
    names = unique_names([path for path, _ in found.values()])
    return [RunFile(path, name, named) for (path, named), name in zip(found.values(), names, strict=True)]


def is_folder(run: str) -> bool:
    return os.path.isdir(run)  # noqa: PTH112 - Path's raises where the text is too long for a path


def _one_file(run: str, folder: Path) -> Path:
    if run == LATEST or re.fullmatch(r"\d{1,4}", run):
        return _stored_run(run, folder)
    path = Path(run)
    try:
        problem = None if path.is_file() else "this is a folder" if path.is_dir() else "no such file"
    except (OSError, ValueError) as error:  # too long, or with a null character
        problem = getattr(error, "strerror", None) or str(error)
    if problem is not None:
        raise AnalysisError(f"{run}: {problem}; a run is a file, a number such as 0007, or {LATEST}")
    return path


def _stored_run(run: str, folder: Path) -> Path:
    stored = sorted(filter(Path.is_file, folder.glob(f"*/{_STORED}")), key=lambda path: (path.stat().st_mtime, path.name))
    if not stored and run == LATEST:
        stored = sorted(folder.glob(f"*/.*{JOURNAL}"))
    if not stored:
        raise AnalysisError(f"there is no saved run under {folder}/; `pytest --benchmark` makes one, or name a file")
    found = stored if run == LATEST else [path for path in stored if path.name.startswith(f"{int(run):04}_")]
    if not found:
        there = ", ".join(path.name[:4] for path in stored)
        raise AnalysisError(f"there is no run {int(run):04} under {folder}/ (there: {there})")
    return found[-1]


def name_of(path: Path) -> str:
    """The number of a stored run, else the file's name without its ending."""
    return path.name[:4] if path.match(_STORED) else path.stem


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell each path from all others, which differ: number or stem, with its folder, or the whole path."""
    names = [name_of(path) for path in paths]
    for longer_names in ([f"{path.parent.name}/{path.stem}" for path in paths], list(map(str, paths))):
        counts = Counter(names)
        names = [name if counts[name] == 1 else longer for name, longer in zip(names, longer_names, strict=True)]
    return names
