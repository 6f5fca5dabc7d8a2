"""Two runs side by side: what changed, by how much, whether that is more than chance, and which changes are losses.

A speedup changed where the interval of head's over base's, widened for all comparisons at once, lies beyond the margin. Bytes are exact, so
a byte is a change. What base measured and head did not is a loss: nothing shows that it did not get worse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.cases import JOB, labels, timed
from analysis.figures import bytes_text, percent_text, speedup_text
from analysis.read import AnalysisError, Run
from analysis.render import Table
from benchmarks.intervals import MARGIN, half_width, quotient, verdict
from benchmarks.record import AS_SHIPPED, CASE, PAGES_KEPT, Interval

COMPARED, NEW, VANISHED, UNMEASURED, COVERED = "compared", "new", "vanished", "no longer measured", "covered"
"""Status of a case. `covered`: head has no figure as shipped, and that with pages kept serves for both (its job does not fault)."""

UNTRUSTED = "untrusted"

BYTES = {"peak_tensor_bytes": "peak", "held_tensor_bytes": "held", "saved_bytes": "saved"}

_FIGURES = ["seconds", "speedup", "speedup_low", "speedup_high", "trusted", "processes", "parameters", "inputs", *BYTES]


class CompareError(AnalysisError):
    """What was asked for cannot be compared."""


class NothingInCommonError(CompareError):
    """No case is in both runs."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much worse a figure of head may be: a fraction of base's, or bytes."""

    fraction: float = 0.0
    size: int = 0

    def __str__(self) -> str:
        return bytes_text(self.size) if self.size or not self.fraction else percent_text(self.fraction)


LIMITS = {"speedup": Limit(MARGIN), **dict.fromkeys(BYTES, Limit())}
"""What is allowed unless --allow says otherwise."""

ALLOW_VANISHED = "vanished"

_AMOUNT = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?(%|B|KiB|MiB|GiB)?")
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def compare(base: Run, head: Run) -> pd.DataFrame:
    """A row per case of either run, sorted by case; figures of the two carry the suffixes `_base` and `_head`.

    `status` is one of the above and `reason` why head has no such case. `change`, `change_low`, `change_high` are head's speedup over base's, and
    `changed` its verdict: `slower` where head gains less, `untrusted` where the control failed in either run. `NAME_bytes_change` are head's
    bytes minus base's, `lost` names the figures that only base has, `same_work` whether parameters and inputs agree.
    """
    sides = [run.frame[[*CASE, *_FIGURES]].assign(timed=run.frame.index.isin(timed(run.frame).index)) for run in (base, head)]
    both = sides[0].merge(
        sides[1], on=list(CASE), how="outer", suffixes=("_base", "_head"), indicator="status", validate="one_to_one"
    )
    both["status"] = both["status"].astype(str).map({"both": COMPARED, "left_only": VANISHED, "right_only": NEW})
    compared = both["status"].eq(COMPARED)
    equal = both["parameters_base"].eq(both["parameters_head"]) & both["inputs_base"].eq(both["inputs_head"])
    both["same_work"] = equal | ~compared
    both = both.join(_speedup_changes(both))
    for name in BYTES:
        both[f"{name}_change"] = both[f"{name}_head"] - both[f"{name}_base"]
    gone = pd.DataFrame(
        {name: both[f"{name}_base"].notna() & both[f"{name}_head"].isna() & compared for name in ("speedup", *BYTES)}
    )
    both["lost"] = [", ".join(gone.columns[row]) for row in gone.to_numpy()]
    return _with_reasons(both, head)


def _speedup_changes(both: pd.DataFrame) -> pd.DataFrame:
    """Columns `change change_low change_high changed`; empty where a side has no speedup, or it is tracked's own."""
    known = both["timed_base"].eq(True) & both["timed_head"].eq(True)  # noqa: FBT003  # missing counts as not timed
    changes = {
        index: quotient(
            _speedup(row, "head"),
            _speedup(row, "base"),
            processes=(int(row["processes_head"]), int(row["processes_base"])),
            comparisons=int(known.sum()),
        )
        for index, row in both[known].iterrows()
    }
    columns: dict[str, Any] = {
        "change": {index: change.estimate for index, change in changes.items()},
        "change_low": {index: change.low for index, change in changes.items()},
        "change_high": {index: change.high for index, change in changes.items()},
        "changed": {index: verdict(change) for index, change in changes.items()},
    }
    found = pd.DataFrame(columns, index=both.index)
    doubtful = ~known & both["speedup_base"].notna() & both["speedup_head"].notna() & both["mode"].ne("tracked")
    doubtful &= both["trusted_base"].eq(False) | both["trusted_head"].eq(False)  # noqa: FBT003
    found.loc[doubtful, "changed"] = UNTRUSTED
    return found


def _speedup(row: pd.Series, side: str) -> Interval:
    return Interval(*(float(row[f"{name}_{side}"]) for name in ("speedup", "speedup_low", "speedup_high")))


def _with_reasons(both: pd.DataFrame, head: Run) -> pd.DataFrame:
    """Tells cases that head tried but could not measure, and those that another figure of head covers, from those that vanished."""
    reasons = {
        tuple(getattr(gone.case, name) for name in CASE): f"{gone.status}: {gone.reason}" for gone in head.unmeasured
    }
    both["reason"] = [reasons.get(tuple(case), "") for case in both[list(CASE)].itertuples(index=False)]
    vanished = both["status"].eq(VANISHED)
    both.loc[vanished & both["reason"].ne(""), "status"] = UNMEASURED
    twins = set(head.frame.loc[head.frame["allocator"].eq(PAGES_KEPT), [*JOB, "mode"]].itertuples(index=False, name=None))
    twin = pd.Series([case in twins for case in both[[*JOB, "mode"]].itertuples(index=False, name=None)], both.index, bool)
    both.loc[both["status"].eq(VANISHED) & both["allocator"].eq(AS_SHIPPED) & twin, "status"] = COVERED
    both.loc[both["status"].isin((COMPARED, NEW)), "reason"] = ""
    return both


def byte_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """A row per figure of memory that changed, `CASE metric base head change`, once for both allocators, the largest growth first."""
    parts = []
    for name in BYTES:
        moved = changes[changes[f"{name}_change"].fillna(0).ne(0)]
        figures = {"base": moved[f"{name}_base"], "head": moved[f"{name}_head"], "change": moved[f"{name}_change"]}
        parts.append(moved[list(CASE)].assign(metric=name, **figures))
    once = pd.concat(parts).drop_duplicates([*JOB, "mode", "metric", "base", "head"])
    return once.sort_values("change", ascending=False, kind="stable", ignore_index=True)


def regressions(changes: pd.DataFrame, limits: Mapping[str, Limit] = LIMITS) -> pd.DataFrame:
    """What head lost beyond `limits`, a row of texts each: `case metric base head change allowed`.

    What is missing stands first, then speedups, then bytes, each with the worst first. Raises NothingInCommonError.
    """
    if not changes["status"].eq(COMPARED).any():
        raise NothingInCommonError("no case is in both runs: name runs of the same models, scenarios and devices")
    rows = [] if ALLOW_VANISHED in limits else [(*row, f"only with --allow {ALLOW_VANISHED}") for row in _missing(changes)]
    allowed = limits["speedup"]
    lower = changes[changes["change_high"] < 1 - allowed.fraction].sort_values("change_high")
    rows += [(*row, str(allowed)) for row in _speedup_texts(lower)]
    moved = byte_changes(changes)
    excess = [
        row.change > limits[row.metric].fraction * row.base + limits[row.metric].size for row in moved.itertuples(index=False)
    ]
    larger = moved[pd.Series(excess, moved.index, bool)]
    rows += [(*row, str(limits[name])) for row, name in zip(_byte_texts(larger), larger["metric"], strict=True)]
    return pd.DataFrame(rows, columns=["case", "metric", "base", "head", "change", "allowed"])


def gate_lines(changes: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """What the gate says: a line per regression, what it could not judge, and the result."""
    lines = [
        " ".join(f"regressed: {row.case}: {row.metric} {row.base} -> {row.head} {row.change} (allowed: {row.allowed})".split())
        for row in found.itertuples()
    ]
    untrusted = int(changes["changed"].eq(UNTRUSTED).sum())
    if untrusted:
        lines.append(f"not judged: {_count(untrusted, 'speedup')} of groups whose control failed in either run")
    result = _count(len(found), "regression") if len(found) else "nothing regressed"
    return [*lines, f"gate: {result} ({_count(int(changes['status'].eq(COMPARED).sum()), 'case')} compared)"]


def limits_of(texts: Iterable[str]) -> dict[str, Limit]:
    """LIMITS with what --allow says: `speedup=5%`, `peak_tensor_bytes=1MiB`, `saved_bytes=10%` or `vanished`. Raises CompareError."""
    limits = dict(LIMITS)
    for text in texts:
        name, _, amount = text.partition("=")
        if text == ALLOW_VANISHED:
            limits[ALLOW_VANISHED] = Limit()
            continue
        if name not in LIMITS:
            choices = ", ".join(f"{known}=AMOUNT" for known in LIMITS)
            raise CompareError(f"--allow {text}: unknown; choose from {choices} or {ALLOW_VANISHED}")
        found = _AMOUNT.fullmatch(amount)
        if not found or (name == "speedup" and found[2] != "%"):
            kinds = "a percentage such as 5%, or bytes such as 4096 or 1MiB" if name in BYTES else "a percentage such as 5%"
            raise CompareError(f"--allow {text}: {name}= needs {kinds}")
        number = float(found[1])
        limits[name] = Limit(number / 100) if found[2] == "%" else Limit(size=round(number * _UNITS[found[2] or "B"]))
    return limits


def tables(base: Run, head: Run, changes: pd.DataFrame) -> list[Table]:
    """The headline and what differs between the runs; then what is missing, the speedups and the bytes that changed, the worst first."""
    opening = [f"{base.name} -> {head.name}: {headline(changes)}", *_differences(base, head), *_remarks(changes)]
    columns = ["case", "metric", "base", "head", "change"]
    moved = changes[changes["changed"].isin(("slower", "faster"))].sort_values("change_high")
    parts = {
        "no longer there": _missing(changes),
        "speedups that changed, the worst first": _speedup_texts(moved),
        "memory that changed, the worst first": _byte_texts(byte_changes(changes)),
    }
    shown = [Table(_section(title, pd.DataFrame(rows, columns=columns)), []) for title, rows in parts.items() if rows]
    return [Table(pd.DataFrame(), opening), *shown]


def headline(changes: pd.DataFrame) -> str:
    """How many speedups and bytes changed and which way, and how many cases came and went."""
    statuses, verdicts = changes["status"].value_counts(), changes["changed"].value_counts()
    parts = [f"{_count(statuses.get(COMPARED, 0), 'case')} compared"]
    judged = changes["change"].count()
    if judged:
        lower, higher = verdicts.get("slower", 0), verdicts.get("faster", 0)
        parts.append(f"speedups: {lower} lower, {higher} higher, no change shown in {judged - lower - higher}")
    moved = byte_changes(changes)
    for name, title in BYTES.items():
        growth = moved.loc[moved["metric"].eq(name), "change"]
        parts += [f"{title} memory: {(growth > 0).sum()} more, {(growth < 0).sum()} less"] if len(growth) else []
    parts += [] if len(moved) or not statuses.get(COMPARED) else ["memory: not a byte changed"]
    lost = int(changes["lost"].ne("").sum())
    parts += [f"figures no longer measured in {_count(lost, 'case')}"] if lost else []
    parts += [f"{_count(statuses[name], 'case')} {name}" for name in (VANISHED, UNMEASURED, NEW) if name in statuses]
    return "; ".join(parts)


def _remarks(changes: pd.DataFrame) -> list[str]:
    """How far the comparison reaches, and what limits it."""
    remarks = []
    judged = changes[changes["change"].notna()]
    if len(judged):
        widths = pd.Series(
            [half_width(Interval(*row)) for row in judged[["change", "change_low", "change_high"]].itertuples(index=False)]
        )
        remarks.append(
            f"a changed speedup is shown from {percent_text(widths.median() + MARGIN)} on in the median case,"
            f" from {percent_text(widths.max() + MARGIN)} on in the worst; all {len(judged)} intervals hold together with 99 %"
        )
        remarks.append("a speedup is lower where the mode takes longer, or tracked less")
    if (judged[["processes_base", "processes_head"]] == 1).any(axis=None):
        remarks.append("speedups of a single process: another launch may shift them by more than their intervals say")
    counted = {
        "not judged, the control of a group failed in either run": changes["changed"].eq(UNTRUSTED),
        "not the same work, parameters or inputs differ": ~changes["same_work"],
        "as shipped now measured once for both allocators": changes["status"].eq(COVERED),
    }
    return remarks + [f"{_count(rows.sum(), 'case')}: {text}" for text, rows in counted.items() if rows.any()]


def _missing(changes: pd.DataFrame) -> list[tuple[str, ...]]:
    """`case metric base head change` of each case that head has not, and of each figure that only base has."""
    names = _names(changes)
    gone = changes[changes["status"].isin((VANISHED, UNMEASURED))]
    rows = [(names[row.Index], "case", "", "", f"{row.status} {row.reason}".strip()) for row in gone.itertuples()]
    lost = changes[changes["lost"].ne("")]
    return rows + [(names[row.Index], row.lost, "", "", UNMEASURED) for row in lost.itertuples()]


def _speedup_texts(changes: pd.DataFrame) -> list[tuple[str, ...]]:
    names = _names(changes)
    return [
        (names[index], "speedup", *(speedup_text(*row[[f"speedup_{side}", f"speedup_low_{side}", f"speedup_high_{side}"]])
            for side in ("base", "head")), speedup_text(*row[["change", "change_low", "change_high"]]))
        for index, row in changes.iterrows()
    ]  # fmt: skip


def _byte_texts(moved: pd.DataFrame) -> list[tuple[str, ...]]:
    names = _names(moved)
    return [
        (names[row.Index], row.metric, bytes_text(row.base), bytes_text(row.head), f"{row.change:+,} B") for row in moved.itertuples()
    ]


def _names(rows: pd.DataFrame) -> pd.Series:
    return labels(rows) + " " + rows["mode"]


def _section(title: str, cells: pd.DataFrame) -> pd.DataFrame:
    """`cells` under one heading; `metric` stays out where it is the same in all lines."""
    used = cells.loc[:, cells.ne("").any()]
    return used.set_axis(pd.Index([title] * len(used), name="section"))


def _differences(base: Run, head: Run) -> list[str]:
    """A line for each fact in which the machines, builds or commits differ: `torch: 2.13.0+cpu -> 2.14.0+cpu`."""
    facts = [{"commit": run.commit, **_facts(run.machine)} for run in (base, head)]
    names = dict.fromkeys([*facts[0], *facts[1]])
    return [
        f"{name}: {facts[0].get(name, '-')} -> {facts[1].get(name, '-')}"
        for name in names
        if facts[0].get(name) != facts[1].get(name)
    ]


def _facts(machine: Mapping[str, Any]) -> dict[str, str]:
    cpu = machine.get("cpu") or {}
    flat = pd.json_normalize(machine.get("gradtax") or {}, sep=" ").to_dict("records")
    facts = {"python": machine.get("python_version"), "CPU": cpu.get("brand_raw"), **(flat[0] if flat else {})}
    return {str(name): str(value) for name, value in facts.items() if value is not None}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
