"""The only reader of saved runs: from files to one tidy frame, a row per case."""

from __future__ import annotations

import gc
import glob
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from analysis.decode import NotARun, decode
from benchmarks.record import Result, Row, Unmeasured, tidy_rows

if TYPE_CHECKING:
    import pandas as pd

RESULTS = Path("results")
LATEST = "latest"
IDENTITY = ("run", "torch", "commit", "machine", "threads", "saved_at")
"""Columns that tell the rows of one run from another's. They stand behind those of record.tidy_rows."""

_STORED = re.compile(r"(\d{4})_.*\.json$")


class RunFileError(Exception):
    """What is wrong with a run: names the file, the field, what was expected, and the next step."""


@dataclass(frozen=True)
class Run:
    """One saved run. `foreign` counts benchmarks that are not ours, `left_out` says which of ours could not be read, and why.

    `name` is what tables call it: the number of a stored run, else the file's name without its ending, and more of its path where two of
    one call would be called the same. `saved_at` is ISO 8601, `commit` the short hash, with `+` where files were changed since, and
    None outside git. `machine_info` and `conditions` are the file's own.
    """

    path: Path
    name: str
    saved_at: str | None
    commit: str | None
    machine_info: dict[str, Any]
    conditions: dict[str, Any]
    results: list[Result]
    unmeasured: list[Unmeasured]
    broken_invariants: list[str]
    foreign: int
    left_out: str = ""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per case with the columns of record.tidy_rows and IDENTITY; no columns where there are no cases."""
        return _frame(self.columns())

    def columns(self, names: Sequence[str] = ()) -> dict[str, list[Any]]:
        """The columns `names` of `frame` (none named: all) as plain values; none where there are no cases."""
        rows = tidy_rows(self.results)
        identities = {device: self._identity(device) for device in {row["device"] for row in rows}}
        for row in rows:
            row.update(identities[row["device"]])
        return {name: [row[name] for row in rows] for name in names or rows[0]} if rows else {}

    def _identity(self, device: str) -> Row:
        torch, threads = (_inside(self.machine_info, "gradtax", name) for name in ("torch", "threads"))
        values = (
            self.name,
            torch and str(torch),
            self.commit,
            _machine(self.machine_info, device),
            threads if isinstance(threads, int) else None,
            self.saved_at,
        )
        return dict(zip(IDENTITY, values, strict=True))


@dataclass(frozen=True, slots=True)
class Runs:
    """Several runs as one frame, and what they hold beside it. `warnings` are sentences about what was not read."""

    names: list[str]
    frame: pd.DataFrame
    unmeasured: list[Unmeasured]
    broken_invariants: list[str]
    warnings: list[str]


def load(path: Path, name: str = "", *, keep_going: bool = False) -> Run:
    """Reads one run. Benchmarks of other tests are counted and skipped.

    Raises RunFileError; with `keep_going` cases that cannot be read are left out, and only a file that cannot be read at all raises.
    """
    try:
        found = decode(path.read_bytes())
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {error.strerror}") from error
    except NotARun as error:
        raise RunFileError(f"{path}: {error}") from error
    more = f"; and {len(found.wrong) - 1} more" if found.wrong[1:] else ""
    left_out = f"{path}: {found.wrong[0]}{more}" if found.wrong else ""
    if left_out and not keep_going:
        raise RunFileError(left_out)
    return Run(
        path=path,
        name=name or _name(path),
        saved_at=found.saved_at,
        commit=found.commit,
        machine_info=found.machine_info,
        conditions=found.conditions,
        results=found.results,
        unmeasured=found.unmeasured,
        broken_invariants=found.broken_invariants,
        foreign=found.foreign,
        left_out=left_out,
    )


def load_each(paths: Sequence[Path], *, keep_going: bool = False, warnings: list[str] | None = None) -> Iterator[Run]:
    """Reads the runs one after the other, under names that tell them apart. Raises RunFileError.

    With `keep_going`, what cannot be read is left out. `warnings` gets a sentence about that, and about benchmarks of other tests.
    """
    told = [] if warnings is None else warnings
    for path, name in zip(paths, _unique_names(paths), strict=True):
        try:
            run = load(path, name, keep_going=keep_going)
        except RunFileError as error:
            if not keep_going:
                raise
            told.append(f"left out: {error}")
            continue
        if run.left_out:
            told.append(f"left out: {run.left_out}")
        if run.foreign:
            told.append(f"{path}: {run.foreign} benchmarks of other tests skipped")
        yield run


def load_all(paths: Sequence[Path], *, keep_going: bool = False, columns: Sequence[str] = ()) -> Runs:
    """Reads the runs into one frame of the named `columns` (none named: all), in the order of `paths`. Raises RunFileError.

    The results of one run at a time are in memory: 60,000 cases take 10 MB or so for the columns that a mean needs, 100 MB for all.
    """
    runs = Runs([], _frame({}), [], [], [])
    cells: dict[str, list[Any]] = {}
    texts: dict[Any, Any] = {}
    with _collector_off():
        for run in load_each(paths, keep_going=keep_going, warnings=runs.warnings):
            runs.names.append(run.name)
            runs.unmeasured.extend(run.unmeasured)
            runs.broken_invariants.extend(run.broken_invariants)
            for name, values in run.columns(columns).items():
                same = [texts.setdefault(value, value) for value in values] if isinstance(values[0], str) else values
                cells.setdefault(name, []).extend(same)
    return replace(runs, frame=_frame(cells))


@contextmanager
def _collector_off() -> Iterator[None]:
    """Nothing in a result refers back to it, and looking for that would take a third of the time of reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _frame(columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Counts and bytes as nullable integers from the start, so that none of them passes through a float."""
    import pandas as pd  # half a second, which finding a run need not wait for

    whole = ("_bytes", "_nodes", "parameters", "threads")
    return pd.DataFrame(
        {name: pd.array(values, dtype="Int64") if name.endswith(whole) else values for name, values in columns.items()}
    )


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The frame's rows as plain values, with None for what is missing."""
    plain = frame.astype(object).where(frame.notna(), None)
    rows: list[dict[str, Any]] = plain.to_dict("records")  # type: ignore[assignment]
    return rows


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
        paths = _in_folder(run, warnings) if Path(run).is_dir() else _of_glob(run) or [find_run(run, folder)]
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _in_folder(folder: str, warnings: list[str] | None) -> list[Path]:
    files = sorted(path for path in Path(folder).rglob("*.json") if path.is_file())
    others = [path for path in files if _is_something_else(path)]
    passed_over = f"{others[0]}{f' and {len(others) - 1} more' if others[1:] else ''}" if others else ""
    if len(files) == len(others):
        raise RunFileError(f"{folder}: there is no saved run in this folder{f' (no runs: {passed_over})' if others else ''}")
    if others and warnings is not None:
        warnings.append(f"passed over, for pytest-benchmark did not save it: {passed_over}")
    return [path for path in files if path not in set(others)]


def _of_glob(run: str) -> list[Path]:
    """The files that `run` matches if it is a pattern and not itself a file."""
    if not glob.has_magic(run) or Path(run).exists():
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


def _name(path: Path) -> str:
    return found[1] if (found := _STORED.match(path.name)) else path.stem


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell each path from all others, which differ: number or stem, with its folder, or the whole path."""
    names = [_name(path) for path in paths]
    for longer in (lambda path: f"{path.parent.name}/{path.stem}", str):
        counts = Counter(names)
        names = [name if counts[name] == 1 else longer(path) for name, path in zip(names, paths, strict=True)]
    return names


def _inside(value: Any, *keys: str) -> Any:
    """What lies in objects within `value`; None where there is nothing, or no plain text or number."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str | int | float) else None


def _machine(machine_info: Mapping[str, Any], device: str) -> str | None:
    """The GPU's name for its cases, else the CPU's and how many cores it has."""
    own = "gradtax", "devices", device
    if device != "cpu" and (name := _inside(machine_info, *own, "name")):
        return str(name)
    brand = _inside(machine_info, "cpu", "brand_raw") or _inside(machine_info, "processor") or _inside(machine_info, "machine")
    cores = _inside(machine_info, *own, "cores") or _inside(machine_info, "cpu", "count")
    return ", ".join([*([str(brand)] if brand else []), *([f"{cores} cores"] if cores else [])]) or None
