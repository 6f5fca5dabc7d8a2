"""Two runs joined on the case: speedups as a ratio of ratios with a verdict, memory in exact bytes, and the cases that came and went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from types import MappingProxyType

import pandas as pd

from analysis.differences import differences, other_machine
from analysis.figures import bytes_text, percent_text
from analysis.load import Run, rows_of
from benchmarks.record import Case, Interval, Row, Unmeasured
from benchmarks.statistics import verdict

CASE = [field.name for field in fields(Case)]
VANISHED, NEWLY_UNMEASURED, NEWLY_MEASURED, NEW = "vanished", "newly unmeasured", "newly measured", "new"

_SPEEDUP = ("speedup", "speedup_low", "speedup_high")
_TIMING = ("seconds", *_SPEEDUP, "verdict", "placebo", "trusted", "processes", "parameters", "inputs")


class CompareError(Exception):
    """What was asked for cannot be compared: names what was expected, and the next step."""


class NotComparableError(CompareError):
    """The runs hold nothing that can be held against each other."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much more than base a figure of head may be: a fraction of base, and bytes."""

    fraction: float = 0.0
    bytes: int = 0

    def allows(self, base: float, head: float) -> bool:
        return head - base <= self.fraction * base + self.bytes

    def __str__(self) -> str:
        parts = [percent_text(self.fraction)] * bool(self.fraction) + [bytes_text(self.bytes)] * bool(self.bytes)
        return " + ".join(parts) or "0 B"


MEMORY: Mapping[str, Allowance] = MappingProxyType(
    {
        "peak_tensor_bytes": Allowance(),
        "held_tensor_bytes": Allowance(),
        "saved_bytes": Allowance(),
        "peak_rss_bytes": Allowance(0.04, 512 * 1024),
        "peak_reserved_bytes": Allowance(bytes=40 * 2**20),
    }
)
"""The figures of memory that are compared, and how far two readings of the same may lie apart: not at all where the meter is exact,
else twice what the meter of one run may be off by (benchmarks.measure.calibration.METERS), for both may be, in opposite directions."""


@dataclass(frozen=True, slots=True)
class Across:
    """One field of the case in which base and head differ on purpose: `device`, from `cpu` to `cuda`. The rest of the case is joined on."""

    field: str
    base: str
    head: str


@dataclass(frozen=True, slots=True)
class Absent:
    """A case that only one run measured. `status` is one of the four above; `reason` tells why it was not measured where that is known."""

    case: Case
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Against:
    """One head against the base. `rows` are those of both runs' cases, the worst change first; `other_machine` tells why seconds are not compared.

    A row has the fields of the case; figures as `NAME_base` and `NAME_head`; `change`, `change_low` and `change_high` of the speedup as ratio
    with its `verdict` and whether it is `trusted`; `same_work`: whether parameters and inputs agree; `seconds_ratio`, head over base, where
    machines agree; and `NAME_change` of bytes.
    """

    base: Run
    head: Run
    across: Across | None
    rows: list[Row]
    absent: list[Absent]
    differences: list[str]
    other_machine: str | None


def ratio_of_ratios(base: Interval, head: Interval, error: float = 0.0, comparisons: int = 1) -> Interval:
    """head over base, two independent estimates with 99 % intervals; `error` is the log-ratio by which either may be off besides.

    On the log scale the lower half-width is sqrt(head's lower² + base's upper²), the upper one the other way round, which keeps skewed
    intervals skewed (Zou and Donner 2008, Construction of confidence limits about effect measures, Statistics in Medicine 27). Of several
    `comparisons`, all intervals together hold with 99 %: half-widths grow by the quotient of the normal quantiles at 1 - 0.005 / comparisons
    and 0.995 (Bonferroni). Raises ValueError for a ratio that is not above 0.
    """
    grown = NormalDist().inv_cdf(1 - 0.005 / comparisons) / NormalDist().inv_cdf(0.995)
    (base_low, base_log, base_high), (head_low, head_log, head_high) = (
        [math.log(value) for value in (one.low, one.estimate, one.high)] for one in (base, head)
    )
    below = grown * math.hypot(head_log - head_low, base_high - base_log) + error
    above = grown * math.hypot(head_high - head_log, base_log - base_low) + error
    centre = head_log - base_log
    return Interval(math.exp(centre), math.exp(centre - below), math.exp(centre + above))


def worse_by(row: Row) -> list[float]:
    """Of each figure that changed, the logarithm of how much worse it is; negative where it is better. None changed: empty."""
    steps = [] if row["verdict"] not in ("slower", "faster") else [-math.log(row["change"])]
    changed = [name for name in MEMORY if word(name, row) in ("more", "less")]
    return [*steps, *(math.log((row[f"{name}_head"] + 1) / (row[f"{name}_base"] + 1)) for name in changed)]


def word(name: str, row: Row) -> str | None:
    """What became of a figure of MEMORY: `more`, `less`, `same`, `no longer measured`, or None where base has none."""
    allowance, base, head = MEMORY[name], row[f"{name}_base"], row[f"{name}_head"]
    if base is None or head is None:
        return None if base is None else "no longer measured"
    return "more" if not allowance.allows(base, head) else "less" if not allowance.allows(head, base) else "same"


def check_common(part: Against) -> None:
    """Raises NotComparableError where no case is in both runs, and proposes the field in which alone they differ."""
    if part.rows:
        return
    one, other = ({result.case for result in run.results} for run in (part.base, part.head))
    fields = [
        name
        for name in ("device", "dtype", "allocator")
        if {replace(case, **{name: ""}) for case in one} & {replace(case, **{name: ""}) for case in other}
    ]
    hint = f"; they differ in their {fields[0]}s: compare with --across {fields[0]}" if fields else ""
    raise NotComparableError(f"{part.head.path}: has no measured case in common with {part.base.path}{hint}")


def parse_across(text: str, base: Run, head: Run) -> Across:
    """`device=cpu:cuda`, or `device` alone where each run has only one. Raises CompareError."""
    field, _, values = text.partition("=")
    if field not in CASE:
        raise CompareError(f"--across {text}: no such field of a case; choose from {', '.join(CASE)}")
    chosen = values.split(":", 1) if values else ["", ""]
    if len(chosen) != 2:
        raise CompareError(f"--across {text}: expected {field} or {field}=BASE:HEAD")
    for number, run in enumerate((base, head)):
        there = sorted({getattr(result.case, field) for result in run.results})
        if not chosen[number] and len(there) == 1:
            chosen[number] = there[0]
        if chosen[number] not in there:
            hint = f"choose with --across {field}=BASE:HEAD" if len(there) > 1 else "name another run"
            raise CompareError(f"--across {text}: {run.path} has the {field}s {', '.join(there) or 'of no case'}; {hint}")
    return Across(field, *chosen)


def against(base: Run, head: Run, across: Across | None = None) -> Against:
    """Joins the runs, whose cases are each unique. Where no case is in both, there are no rows."""
    machine = other_machine(base, head)
    base_frame, base_missing = _measured(base, across, across.base if across else None)
    head_frame, head_missing = _measured(head, across, across.head if across else None)
    rows = rows_of(base_frame.merge(head_frame, on=CASE, suffixes=("_base", "_head"), validate="one_to_one"))
    changes = [_speedup_change(row) for row in rows]
    judged = sum(change is not None for change in changes)
    found = [_row(row, change, judged, seconds=machine is None) for row, change in zip(rows, changes, strict=True)]
    absent = _absent(_cases(base_frame), _cases(head_frame), base_missing, head_missing)
    return Against(base, head, across, sorted(found, key=_rank), absent, differences(base, head), machine)


def _measured(run: Run, across: Across | None, value: str | None) -> tuple[pd.DataFrame, dict[Case, Unmeasured]]:
    """The figures to compare and the unmeasured cases; with `across` those of `value`, under one name for both runs."""
    frame = run.frame.reindex(columns=[*CASE, *_TIMING, *MEMORY]).astype(dict.fromkeys(CASE, object))
    missing = {one.case: one for one in run.unmeasured}
    if across is None:
        return frame, missing
    both = {across.field: f"{across.base} -> {across.head}"}
    chosen = {replace(case, **both): one for case, one in missing.items() if getattr(case, across.field) == value}
    return frame[frame[across.field] == value].assign(**both), chosen


def _cases(frame: pd.DataFrame) -> list[Case]:
    return [Case(*values) for values in frame[CASE].itertuples(index=False, name=None)]


def _rank(row: Row) -> tuple[bool, float]:
    steps = worse_by(row)
    return not steps, -max(steps, default=0.0)


def _speedup_change(row: Row) -> tuple[Interval, Interval, float] | None:
    """The two speedups and the larger placebo error of their groups as a log-ratio; None where there is nothing to compare."""
    if row["verdict_base"] == row["verdict_head"] == "baseline":
        return None
    ends = [[row[f"{name}_{side}"] for name in _SPEEDUP] for side in ("base", "head")]
    if any(value is None or not 0 < value < math.inf for value in (*ends[0], *ends[1])):
        return None
    placebos = [row[f"placebo_{side}"] for side in ("base", "head")]
    return Interval(*ends[0]), Interval(*ends[1]), max(abs(math.log(one)) if one and one > 0 else 0.0 for one in placebos)


def _row(row: Row, change: tuple[Interval, Interval, float] | None, comparisons: int, *, seconds: bool) -> Row:
    ratio = None if change is None else ratio_of_ratios(*change, comparisons)
    trusted = bool(row["trusted_base"] and row["trusted_head"])
    timed = seconds and row["seconds_base"] and row["seconds_head"]
    without = "baseline" if row["verdict_base"] == row["verdict_head"] == "baseline" else None
    return {
        **{name: row[name] for name in CASE},
        **{
            f"{name}_{side}": row[f"{name}_{side}"] for name in ("seconds", *_SPEEDUP, "processes") for side in ("base", "head")
        },
        "change": ratio and ratio.estimate,
        "change_low": ratio and ratio.low,
        "change_high": ratio and ratio.high,
        "verdict": without if ratio is None else verdict(ratio) if trusted else "unclear",
        "trusted": trusted,
        "same_work": all(row[f"{name}_base"] == row[f"{name}_head"] for name in ("parameters", "inputs")),
        "seconds_ratio": row["seconds_head"] / row["seconds_base"] if timed else None,
        **{f"{name}_{side}": row[f"{name}_{side}"] for name in MEMORY for side in ("base", "head")},
        **{f"{name}_change": _difference(row[f"{name}_base"], row[f"{name}_head"]) for name in MEMORY},
    }


def _difference(base: int | None, head: int | None) -> int | None:
    return None if base is None or head is None else head - base


def _absent(
    base: list[Case], head: list[Case], base_missing: Mapping[Case, Unmeasured], head_missing: Mapping[Case, Unmeasured]
) -> list[Absent]:
    in_base, in_head = set(base), set(head)
    gone = [
        Absent(case, NEWLY_UNMEASURED, _reason(head_missing[case])) if case in head_missing else Absent(case, VANISHED)
        for case in base
        if case not in in_head
    ]
    come = [Absent(case, NEWLY_MEASURED if case in base_missing else NEW) for case in head if case not in in_base]
    never = [case for case in head_missing if case not in in_base and case not in base_missing]
    return [*gone, *come, *(Absent(case, NEW, f"not measured, {_reason(head_missing[case])}") for case in never)]


def _reason(one: Unmeasured) -> str:
    return f"{one.status}: {' '.join(one.reason.split())}"
