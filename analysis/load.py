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


class RunFileError(Exception):
    """What is wrong with a run: names the file, what was expected, and the next step."""


@dataclass(frozen=True, slots=True)
class Run:
    """One saved run. `frame` has a row per case with the columns of record.tidy_rows; `foreign` counts benchmarks that are not ours."""

    path: Path
    results: list[Result]
    frame: pd.DataFrame
    unmeasured: list[Unmeasured]
    foreign: int


class _Benchmark(msgspec.Struct):
    extra_info: msgspec.Raw
    fullname: str = ""


class _Marked(msgspec.Struct):
    schema: int | None = None
    case: msgspec.Raw = msgspec.Raw()


class _Gradtax(msgspec.Struct):
    schema: int = SCHEMA
    unmeasured: list[Unmeasured] = msgspec.field(default_factory=list)


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]
    gradtax: _Gradtax = msgspec.field(default_factory=_Gradtax)


def find_run(run: str, folder: Path = RESULTS) -> Path:
    """The file of `run`: a path, a number such as `0007`, or `latest` (the newest under `folder`). Raises RunFileError."""
    saved = sorted(folder.glob("*/[0-9][0-9][0-9][0-9]_*.json"), key=lambda path: (path.stat().st_mtime, path.name))
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
    if not path.is_file():
        raise RunFileError(f"{run}: no such file; a run is a path, a number such as 0007, or {LATEST}")
    return path


def load(path: Path) -> Run:
    """Reads one run. Benchmarks of other tests are counted and skipped. Raises RunFileError."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        results = [result for one in file.benchmarks if (result := _result(one)) is not None]
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise RunFileError(f"{path}: not a run of this suite: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunFileError(f"{path}: not JSON ({error}); expected a file that pytest-benchmark saved") from error
    except _SchemaError as error:
        raise RunFileError(
            f"{path}: schema {error} cannot be read by this version (it reads {SCHEMA}); update gradtax"
        ) from error
    frame = pd.DataFrame(tidy_rows(results))
    frame = frame.astype({name: "Int64" for name in frame if str(name).endswith(("_bytes", "_nodes"))})
    return Run(path, results, frame, file.gradtax.unmeasured, foreign=len(file.benchmarks) - len(results))


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The frame's rows as plain values, with None for what is missing."""
    plain = frame.astype(object).where(frame.notna(), None)
    rows: list[dict[str, Any]] = plain.to_dict("records")  # type: ignore[assignment]
    return rows


class _SchemaError(Exception):
    pass


def _result(benchmark: _Benchmark) -> Result | None:
    marked = msgspec.json.decode(benchmark.extra_info, type=_Marked)
    if marked.schema is None or not marked.case:
        return None
    if marked.schema != SCHEMA:
        raise _SchemaError(str(marked.schema))
    return msgspec.json.decode(benchmark.extra_info, type=Result)
