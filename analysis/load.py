"""The only reader of saved runs: from files to one tidy frame, a row per case."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.decode import NotARun, WrongSchema, decode, decode_rounds
from analysis.find import LATEST, RESULTS, RunFileError, SchemaError, find_run, find_runs, name_of, unique_names
from benchmarks.record import Case, Result, Row, Unmeasured, tidy_columns

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "IDENTITY", "LATEST", "RESULTS", "Run", "RunFileError", "Runs", "SchemaError", "find_run", "find_runs", "load", "load_all", "load_each", "rounds", "rows_of",
]  # fmt: skip

IDENTITY = ("run", "torch", "commit", "machine", "threads", "saved_at")
"""Columns that tell the rows of one run from another's. They stand behind those of record.tidy_rows."""


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
        if not self.results:
            return {}
        devices = [result.case.device for result in self.results]
        identities = {device: self._identity(device) for device in set(devices)}
        identity = {name: [identities[device][name] for device in devices] for name in IDENTITY if not names or name in names}
        return tidy_columns(self.results, names) | identity

    def _identity(self, device: str) -> Row:
        torch, threads = (_inside(self.machine_info, "gradtax", name) for name in ("torch", "threads"))
        values = (
            self.name,
            torch and str(torch),
            self.commit,
            _machine(self.machine_info, device),
            threads if type(threads) is int and 0 < threads < 2**31 else None,
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
    except WrongSchema as error:
        raise SchemaError(f"{path}: {error}") from error
    except NotARun as error:
        raise RunFileError(f"{path}: {error}") from error
    more = f"; and {len(found.wrong) - 1} more" if found.wrong[1:] else ""
    left_out = f"{path}: {found.wrong[0]}{more}" if found.wrong else ""
    if left_out and not keep_going:
        raise RunFileError(left_out)
    return Run(
        path=path,
        name=name or name_of(path),
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


def rounds(run: Run) -> dict[Case, list[float]]:
    """Seconds per call of each case's rounds, from the run's file, which `load` does not read them from. Raises RunFileError."""
    try:
        return decode_rounds(run.path.read_bytes())
    except NotARun as error:
        raise RunFileError(f"{run.path}: {error}") from error


def load_each(paths: Sequence[Path], *, keep_going: bool = False, warnings: list[str] | None = None) -> Iterator[Run]:
    """Reads the runs one after the other, under names that tell them apart. Raises RunFileError.

    With `keep_going`, what cannot be read is left out. `warnings` gets a sentence about that, and about benchmarks of other tests.
    """
    told = [] if warnings is None else warnings
    for path, name in zip(paths, unique_names(paths), strict=True):
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
            told.append(f"{path}: {run.foreign} benchmark{'s' if run.foreign > 1 else ''} of other tests skipped")
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
