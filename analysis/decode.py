"""From the bytes of one saved run to record's dataclasses, or to what is wrong with which field. Knows no files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import msgspec

from benchmarks.record import SCHEMA, Case, Memory, Result, Unmeasured


class NotARun(Exception):
    """Names the field and what was expected."""


class WrongSchema(NotARun):
    """Saved by a version whose schema this one does not read."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """`foreign` counts benchmarks that are not ours; `wrong` says of each of ours that is not in `results` why."""

    machine_info: dict[str, Any]
    commit: str | None
    saved_at: str | None
    conditions: dict[str, Any]
    results: list[Result]
    unmeasured: list[Unmeasured]
    broken_invariants: list[str]
    foreign: int
    wrong: list[str]


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


_FILE = msgspec.json.Decoder(_File)
_RESULT = msgspec.json.Decoder(Result)
_MARKED = msgspec.json.Decoder(_Marked)


def decode(content: bytes) -> Decoded:
    """Raises NotARun if the whole cannot be read; a single result that cannot is told in `wrong`. The rounds are skipped."""
    try:
        file = _FILE.decode(content)
        _check_schema(file.gradtax.schema)
        results, foreign, wrong = _results(file.benchmarks)
    except (msgspec.ValidationError, RecursionError) as error:
        raise NotARun(f"not a run of this suite: {_field('', error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotARun(f"not JSON ({_why_not_json(content, error)}); expected a file that pytest-benchmark saved") from error
    try:
        unmeasured = msgspec.json.decode(file.gradtax.unmeasured, type=list[Unmeasured])
    except msgspec.ValidationError as error:
        raise NotARun(_field("gradtax.unmeasured", error)) from error
    return Decoded(
        machine_info=file.machine_info,
        commit=str(file.commit_info) or None,
        saved_at=file.datetime,
        conditions=file.gradtax.conditions,
        results=results,
        unmeasured=unmeasured,
        broken_invariants=file.gradtax.broken_invariants,
        foreign=foreign,
        wrong=wrong,
    )


class _CaseOnly(msgspec.Struct):
    case: Case | None = None


class _Stats(msgspec.Struct):
    data: list[float]


class _Timed(msgspec.Struct):
    extra_info: _CaseOnly
    stats: _Stats


class _TimedFile(msgspec.Struct):
    benchmarks: list[_Timed]


def decode_rounds(content: bytes) -> dict[Case, list[float]]:
    """Seconds per call of each case's rounds in the order they were run: those of one group with the same number are pairs.

    Raises NotARun if they were not saved.
    """
    try:
        file = msgspec.json.decode(content, type=_TimedFile)
    except msgspec.ValidationError as error:
        raise NotARun(f"no rounds are saved: {_field('', error)}") from error
    return {one.extra_info.case: one.stats.data for one in file.benchmarks if one.extra_info.case is not None}


def _results(benchmarks: Sequence[_Benchmark]) -> tuple[list[Result], int, list[str]]:
    found: dict[Case, Result] = {}
    foreign, wrong = 0, []
    for number, one in enumerate(benchmarks):
        place = f"benchmarks[{number}].extra_info"
        try:
            result = _RESULT.decode(one.extra_info)
        except msgspec.ValidationError as error:
            if _is_ours(one.extra_info):
                wrong.append(_field(place, error))
            else:
                foreign += 1
            continue
        _check_schema(result.schema)
        if field := _senseless(result):
            wrong.append(f"{place}.{field}")
        elif result.case in found:
            wrong.append(f"{place}.case: {result.case} is there twice")
        else:
            found[result.case] = result
    return list(found.values()), foreign, wrong


def _is_ours(extra_info: msgspec.Raw) -> bool:
    """Raises NotARun if it is, by a schema that this version does not read."""
    if not bytes(extra_info).lstrip().startswith(b"{"):
        return False
    marked = _MARKED.decode(extra_info)
    schema = bytes(marked.schema)
    if not (schema.removeprefix(b"-").isdigit() and bytes(marked.case).startswith(b"{")):
        return False
    _check_schema(int(schema))
    return True


def _check_schema(schema: int) -> None:
    if schema != SCHEMA:
        raise WrongSchema(f"schema {schema} cannot be read by this version, which reads {SCHEMA}")


_DIFFERENCES = ("graph_heap_bytes", "held_bytes_per_step", "heap_bytes_per_step")
_RATIOS = ("speedup", "placebo", "over_no_grad", "kept_pages")
_AMOUNTS = (
    "seconds", "device_seconds", "cold_seconds", "page_faults", "model.parameters", "model.parameter_bytes",
    *(f"memory.{one.name}" for one in fields(Memory) if "int" in str(one.type) and one.name not in _DIFFERENCES),
)  # fmt: skip
"""What cannot be below 0."""
_ratios, _amounts, _differences = attrgetter(*_RATIOS), attrgetter(*_AMOUNTS), attrgetter(*_DIFFERENCES)
_TOO_MANY = 2**63
"""More bytes than fit a column, or any machine."""
_ROUNDING = 1 + 1e-9
"""The middle and the ends of an interval of no width are rounded on their own."""


def _senseless(result: Result) -> str:
    """The first field of the right type whose value cannot be, and why; empty where there is none."""
    if result.seconds <= 0:
        return f"seconds: expected more than 0, got {result.seconds:g}"
    if result.steps < 1:
        return f"steps: expected 1 or more, got {result.steps}"
    for name, ratio in zip(_RATIOS, _ratios(result), strict=True):
        if ratio is not None and not 0 < ratio.low <= ratio.estimate * _ROUNDING <= ratio.high * _ROUNDING**2:
            return f"{name}: expected 0 < low <= estimate <= high, got {ratio.low:g}, {ratio.estimate:g}, {ratio.high:g}"
    amounts = _amounts(result)
    known = [amount for amount in amounts if amount is not None]
    if min(known) < 0 or max(known) >= _TOO_MANY:
        pairs = zip(_AMOUNTS, amounts, strict=True)
        name, amount = next((name, one) for name, one in pairs if one is not None and not 0 <= one < _TOO_MANY)
        return f"{name}: expected 0 or more, and less than 2**63, got {amount:g}"
    wild = [name for name, size in zip(_DIFFERENCES, _differences(result.memory), strict=True) if abs(size or 0) >= _TOO_MANY]
    return f"memory.{wild[0]}: expected less than 2**63" if wild else ""


_PLACE = re.compile(r" - at `\$(.*)`$")


def _field(outer: str, error: Exception) -> str:
    """msgspec's message with the whole way to the field in front: `benchmarks[3].extra_info.seconds: expected ...`."""
    text = str(error)
    inner = _PLACE.search(text)
    reason = text[: inner.start()] if inner else text
    place = f"{outer}{inner[1] if inner else ''}".removeprefix(".")
    reason = reason[:1].lower() + reason[1:]
    return f"{place}: {reason}" if place else reason


def _why_not_json(content: bytes, error: Exception) -> str:
    """NaN and Infinity are no JSON, but Python writes them: those are told by their field."""
    if not content.strip():
        return "the file is empty"
    try:
        place = next(_not_finite(json.loads(content)), "")
    except (ValueError, RecursionError):
        place = ""
    return f"{place} is NaN or infinite" if place else str(error)


def _not_finite(value: Any, place: str = "") -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place.removeprefix(".")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _not_finite(one, f"{place}.{key}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _not_finite(one, f"{place}[{number}]")
