"""The only reader of saved runs: from a file's bytes to a `Run`, whose `frame` has a row per case."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pandas as pd

from analysis.cases import COLUMNS, frame_of
from analysis.figures import short_text
from benchmarks.record import CASE, NO_COMMIT, SCHEMA, GroupResult, Result, Unmeasured, clean, from_json, to_json
from benchmarks.saving import from_lines

T = TypeVar("T")

JOURNAL = ".jsonl"
"""The ending of the file of a run that is not finished."""


class AnalysisError(Exception):
    """What a command cannot do, in one line: the thing, what was expected, the next step."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """`named` is False for what was only found in a folder: there a file that cannot be read is left out, not refused."""

    path: Path
    name: str
    named: bool = True


@dataclass(frozen=True)
class Run:
    """A saved run, or one just measured.

    `name` is what tables call it; `saved_at` is ISO 8601; `commit` the short hash, with `+` where files were changed since.
    `machine` is the file's machine_info, whose key `gradtax` holds the suite's own facts; `conditions` what varies from run to run.
    """

    results: list[Result]
    unmeasured: list[Unmeasured] = field(default_factory=list)
    name: str = ""
    path: Path | None = None
    saved_at: str = ""
    commit: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per case with all of COLUMNS, in the order of `results`."""
        return frame_of({name: [value(result) for result in self.results] for name, value in COLUMNS.items()})

    @cached_property
    def lost(self) -> pd.DataFrame:
        """A row per case that could not be measured: CASE, `status` and `reason`, all texts."""
        cases = {name: [getattr(gone.case, name) for gone in self.unmeasured] for name in CASE}
        why = {name: [getattr(gone, name) for gone in self.unmeasured] for name in ("status", "reason")}
        return frame_of({**cases, **why})

    def device_name(self, device: str) -> str:
        """The accelerator's name for its cases, else the processor's and how many cores it has."""
        facts = self.machine.get("gradtax", {}).get("devices", {}).get(device, {})
        if device != "cpu" and facts.get("name"):
            return str(facts["name"])
        processor = self.machine.get("cpu", {})
        name = processor.get("brand_raw") or self.machine.get("processor") or self.machine.get("machine") or ""
        cores = facts.get("cores") or processor.get("count")
        return ", ".join(filter(None, [str(name), f"{cores} cores" if cores else ""]))

    def identity(self, device: str) -> dict[str, str]:
        """Values of IDENTITY in the rows of one device."""
        facts = self.machine.get("gradtax", {})
        values = self.name, self.device_name(device), str(facts.get("torch") or ""), self.saved_at[:10]
        return dict(zip(IDENTITY, values, strict=True))


IDENTITY = ("run", "machine", "torch", "date")
"""Columns that tell the rows of one run from another's, in a frame of several runs."""


def read(path: Path, name: str = "") -> Run:
    """Reads one run, or the journal of one that is not finished; benchmarks of other tests in a file are skipped. Raises AnalysisError."""
    try:
        read_content = _unfinished if path.suffix == JOURNAL else _run
        return read_content(path.read_bytes(), path, name or path.stem)
    except OSError as error:
        raise AnalysisError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise AnalysisError(f"{path}: {short_text(str(error), most=500)}") from error


def read_all(files: Iterable[RunFile], columns: Iterable[str], say: Callable[[str], None]) -> pd.DataFrame:
    """The `columns` (names of COLUMNS) and IDENTITY of many runs, one run at a time in memory. One that is there twice counts once.

    Raises AnalysisError for a file that was named; of one that was only found in a folder it is said that it was left out.
    """
    cells: dict[str, list[Any]] = {name: [] for name in (*IDENTITY, *columns)}
    seen = set()
    for file in files:
        try:
            run = read(file.path, file.name)
        except AnalysisError as error:
            if file.named:
                raise
            say(f"left out: {error}")
            continue
        content = (run.saved_at, *(result.seconds for result in run.results))
        if content in seen:
            continue
        seen.add(content)
        identities = {device: run.identity(device) for device in {result.case.device for result in run.results}}
        for column, values in cells.items():
            if column in IDENTITY:
                values.extend(identities[result.case.device][column] for result in run.results)
            else:
                found = map(COLUMNS[column], run.results)
                values.extend(sys.intern(value) if isinstance(value, str) else value for value in found)
    return frame_of(cells)


class _Benchmark(msgspec.Struct):
    extra_info: msgspec.Raw


class _File(msgspec.Struct):
    """What is read of a file. The rounds, most of its bytes, are skipped."""

    benchmarks: list[_Benchmark]
    machine_info: dict[str, Any] = {}
    commit_info: dict[str, Any] = {}
    datetime: str | None = None
    gradtax: dict[str, Any] = {}


class _Ours(msgspec.Struct):
    """What tells our `extra_info` from that of other tests."""

    schema: int
    case: dict[str, Any]


class _Conditions(msgspec.Struct):
    threads: int | None = None
    warnings: list[str] = []
    meters: list[dict[str, Any]] = []


class _Gradtax(msgspec.Struct):
    unmeasured: list[Unmeasured] = []
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)


class _Identity(msgspec.Struct):
    torch: str | None = None
    threads: int | None = None
    devices: dict[str, dict[str, Any]] = {}


class _Machine(msgspec.Struct):
    cpu: dict[str, Any] = {}
    gradtax: _Identity = msgspec.field(default_factory=_Identity)


class _Relied(msgspec.Struct):
    """The types of those facts on a run that the analysis relies on; others may be anything."""

    machine_info: _Machine = msgspec.field(default_factory=_Machine)
    gradtax: _Gradtax = msgspec.field(default_factory=_Gradtax)


_FILE, _RESULT, _OURS = msgspec.json.Decoder(_File), msgspec.json.Decoder(Result), msgspec.json.Decoder(_Ours)


def _run(content: bytes, path: Path, name: str) -> Run:
    """Raises ValueError or RecursionError."""
    try:
        content.decode()
        file = _FILE.decode(content)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a file that pytest-benchmark saved: {_located('', error)}") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}; expected a file that pytest-benchmark saved") from error
    machine, gradtax = clean(file.machine_info), clean(file.gradtax)
    _require_schema(gradtax.get("schema"))
    ours = _converted({"machine_info": machine, "gradtax": gradtax}, _Relied).gradtax
    results = _results(file.benchmarks)
    commit = str(file.commit_info.get("id") or "")
    commit = "" if commit in NO_COMMIT else f"{commit[:8]}{'+' if file.commit_info.get('dirty') else ''}"
    if not results and not ours.unmeasured:
        raise ValueError("holds no results of this suite; `pytest --benchmark` saves a run that does")
    return Run(
        results, ours.unmeasured, name, path,
        clean(file.datetime or ""), clean(commit), machine, gradtax.get("conditions", {}),
    )  # fmt: skip


def _converted(value: Any, kind: type[T], place: str = "") -> T:
    try:
        return from_json(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_located(place, error)) from error


class _Head(msgspec.Struct):
    """What the first line of a journal says of its run."""

    identity: dict[str, Any]
    jobs: int
    command: str


class _Done(msgspec.Struct):
    groups: list[GroupResult]


def _unfinished(content: bytes, path: Path, name: str) -> Run:
    """What a journal holds until now. Raises ValueError or RecursionError."""
    lines, _, _ = from_lines(content)
    if not lines or lines[0].kind != "run":
        raise ValueError("line 1 is not what was written; expected the journal of an unfinished run")
    head = _converted(clean(lines[0].payload), _Head, "line 1")
    done = [_converted(clean(line.payload), _Done, f"line {line.number}") for line in lines if line.kind == "done"]
    groups = [group for line in done for group in line.groups]
    results = [timed.result for group in groups for timed in group.timed]
    machine = {"gradtax": head.identity}
    _converted({"machine_info": machine}, _Relied, "line 1")
    unfinished = f"{len(done)} of {head.jobs} jobs are measured; go on with: {head.command}"
    return Run(
        list({result.case: result for result in results}.values()), [lost for group in groups for lost in group.unmeasured],
        name=name, path=path, saved_at=clean(lines[-1].at), machine=machine, conditions={"unfinished": unfinished},
    )  # fmt: skip


def _results(benchmarks: Sequence[_Benchmark]) -> list[Result]:
    """Those of this suite."""
    results: dict[Any, Result] = {}
    for number, benchmark in enumerate(benchmarks):
        place, raw = f"benchmarks[{number}].extra_info", bytes(benchmark.extra_info)
        try:
            _require_schema(_OURS.decode(raw).schema)
        except msgspec.ValidationError:
            continue
        try:
            result = _RESULT.decode(raw)
        except msgspec.ValidationError as error:
            raise ValueError(_located(place, error)) from error
        if not raw.isascii() or b"\\" in raw or b"\x7f" in raw:
            (result,) = as_read([result])
        if result.case in results:
            raise ValueError(f"{place}.case: {result.case} is there twice")
        results[result.case] = result
    return list(results.values())


def _require_schema(schema: Any) -> None:
    if schema not in (None, SCHEMA):
        reason = f"schema {str(schema)[:20]} cannot be read by this version, which reads {SCHEMA}"
        raise ValueError(f"{reason}; measure again with `pytest --benchmark`")


def as_read(records: Iterable[T]) -> list[T]:
    """Records of a run that was just measured, with names as clean as if they had been read."""
    return [from_json(clean(to_json(record)), type(record)) for record in records]


def _located(place: str, error: Exception) -> str:
    """msgspec's message with the whole way to the field in front: `benchmarks[3].extra_info.seconds: expected ...`."""
    reason, _, inner = str(error).partition(" - at `$")
    field_name = f"{place}{inner.rstrip('`')}".removeprefix(".")
    return str(clean(f"{field_name}: {reason[:1].lower()}{reason[1:]}".removeprefix(": ")))
