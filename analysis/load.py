"""The only reader of saved runs: from pytest-benchmark's JSON to one tidy frame, a row per case."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from benchmarks.record import SCHEMA, Result, Row, Unmeasured, tidy_rows

RESULTS = Path("results")
LATEST = "latest"
_STORED = re.compile(r"(\d{4})_.*\.json$")


class RunFileError(Exception):
    """What is wrong with a run: names the file, what was expected, and the next step."""


class SchemaError(RunFileError):
    """The run was saved by a version whose schema this one does not read."""


@dataclass(frozen=True, slots=True)
class Run:
    """One saved run. `frame` has a row per case with the columns of record.tidy_rows; `foreign` counts benchmarks that are not ours.

    `name` is what tables call it: the number of a stored run, else the file's name without its ending. `saved_at` is ISO 8601, `commit` the
    short hash, with `+` where files were changed since, and None outside git. `machine_info` and `conditions` are the file's own.
    """

    path: Path
    name: str
    saved_at: str | None
    commit: str | None
    machine_info: dict[str, Any]
    conditions: dict[str, Any]
    results: list[Result]
    frame: pd.DataFrame
    unmeasured: list[Unmeasured]
    broken_invariants: list[str]
    foreign: int


class _Benchmark(msgspec.Struct):
    extra_info: msgspec.Raw


class _Marked(msgspec.Struct):
    """What tells our `extra_info` from other tests': a whole number as schema, and a case that is an object."""

    schema: msgspec.Raw = msgspec.Raw()
    case: msgspec.Raw = msgspec.Raw()


class _Commit(msgspec.Struct):
    id: str | None = None
    dirty: bool | None = None

    def __str__(self) -> str:
        return f"{(self.id or '')[:8]}{'+' if self.dirty else ''}"


class _Gradtax(msgspec.Struct):
    schema: int = SCHEMA
    unmeasured: msgspec.Raw = msgspec.Raw(b"[]")
    broken_invariants: list[str] = []
    conditions: dict[str, Any] = {}


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]
    machine_info: dict[str, Any] = {}
    commit_info: _Commit = msgspec.field(default_factory=_Commit)
    datetime: str | None = None
    gradtax: _Gradtax = msgspec.field(default_factory=_Gradtax)


def find_run(run: str, folder: Path = RESULTS) -> Path:
    """The file of `run`: a path, a number such as `0007`, or `latest` (the newest under `folder`). Raises RunFileError."""
    there = (path for path in folder.glob("*/[0-9][0-9][0-9][0-9]_*.json") if path.is_file())
    saved = sorted(there, key=lambda path: (path.stat().st_mtime, path.name))
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


def load(path: Path) -> Run:
    """Reads one run. Benchmarks of other tests are counted and skipped. Raises RunFileError."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        _check(file.gradtax.schema)
        results = [result for one in file.benchmarks if (result := _result(one)) is not None]
        unmeasured = msgspec.json.decode(file.gradtax.unmeasured, type=list[Unmeasured])
        frame = _frame(tidy_rows(results))
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        raise RunFileError(f"{path}: not a run of this suite: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunFileError(f"{path}: not JSON ({error}); expected a file that pytest-benchmark saved") from error
    except _SchemaError as error:
        raise SchemaError(f"{path}: schema {error} cannot be read by this version, which reads {SCHEMA}") from error
    return Run(
        path=path,
        name=found[1] if (found := _STORED.match(path.name)) else path.stem,
        saved_at=file.datetime,
        commit=str(file.commit_info) or None,
        machine_info=file.machine_info,
        conditions=file.gradtax.conditions,
        results=results,
        frame=frame,
        unmeasured=unmeasured,
        broken_invariants=file.gradtax.broken_invariants,
        foreign=len(file.benchmarks) - len(results),
    )


def _frame(rows: list[Row]) -> pd.DataFrame:
    """Counts and bytes as nullable integers from the start, so that none of them passes through a float."""
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    whole = ("_bytes", "_nodes", "parameters")
    return pd.DataFrame(
        {name: pd.array(values, dtype="Int64") if name.endswith(whole) else values for name, values in columns.items()}
    )


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The frame's rows as plain values, with None for what is missing."""
    plain = frame.astype(object).where(frame.notna(), None)
    rows: list[dict[str, Any]] = plain.to_dict("records")  # type: ignore[assignment]
    return rows


class _SchemaError(Exception):
    pass


def _check(schema: int) -> None:
    if schema != SCHEMA:
        raise _SchemaError(str(schema))


def _result(benchmark: _Benchmark) -> Result | None:
    if not bytes(benchmark.extra_info).lstrip().startswith(b"{"):
        return None
    marked = msgspec.json.decode(benchmark.extra_info, type=_Marked)
    schema = bytes(marked.schema)
    if not (schema.removeprefix(b"-").isdigit() and bytes(marked.case).startswith(b"{")):
        return None
    _check(int(schema))
    return msgspec.json.decode(benchmark.extra_info, type=Result)
