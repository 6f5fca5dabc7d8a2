"""Two runs side by side: what changed, by how much, whether that is more than chance, and which changes are losses.

A speedup changed where the interval of head's over base's, widened for all comparisons at once, lies beyond the margin.
Bytes are exact, so a byte is a change. What base measured and head did not is a loss: nothing shows that it did not get worse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.cases import JOB, each, labels, speedup_change, timed
from analysis.figures import bytes_text, percent_text, speedup_text
from analysis.machine import differs
from analysis.read import AnalysisError, Run
from analysis.render import Table
from benchmarks.intervals import MARGIN, verdict
from benchmarks.record import AS_SHIPPED, CASE, PAGES_KEPT

COMPARED, NEW, VANISHED, UNMEASURED, COVERED = "compared", "new", "vanished", "no longer measured", "covered"
"""Status of a case. `covered`: as shipped, of a job that head timed with pages kept, which serves for both where it does not fault."""

UNTRUSTED = "untrusted"

BYTES = {"peak_tensor_bytes": "peak", "held_tensor_bytes": "held", "saved_bytes": "saved"}

_FIGURES = ["speedup", "speedup_low", "speedup_high", "trusted", "processes", "parameters", "inputs", *BYTES]
_TOLD = (("speedup", "_base"), ("speedup", "_head"), ("change", ""))
"""The ratios of a row in tables."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much worse a figure of head may be: a fraction of base's, or bytes."""

    fraction: float = 0.0
    size: int = 0

    def __str__(self) -> str:
        return bytes_text(self.size) if self.size or not self.fraction else percent_text(self.fraction)


LIMITS = {"speedup": Limit(MARGIN), **dict.fromkeys(BYTES, Limit())}
"""What is allowed unless --allow says otherwise."""

COLUMNS = ["case", "mode", "metric", "base", "head", "change"]
"""Of tables of changes, all texts."""

ALLOW_VANISHED = "vanished"

_AMOUNT = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?(%|B|KiB|MiB|GiB)?")
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def compare(base: Run, head: Run) -> pd.DataFrame:
    """A row per case of either run, sorted by case; figures of the two carry the suffixes `_base` and `_head`.

    `status` is one of the above and `reason` why head has no such case. `change`, `change_low`, `change_high` are head's
    speedup over base's, and `changed` its verdict: `slower` where head gains less, `untrusted` where the control failed in
    either run. `NAME_bytes_change` are head's bytes minus base's, `lost` names the figures that only base has, `same_work`
    whether parameters and inputs agree.
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
    known = both["timed_base"].eq(True) & both["timed_head"].eq(True)
    rows: dict[Any, tuple[Any, ...]] = {}
    for row in each(both[known]):
        change = speedup_change(row, "_head", "_base", comparisons=int(known.sum()))
        rows[row.Index] = (change.estimate, change.low, change.high, verdict(change)) if change else (*[None] * 3, "unclear")
    found = pd.DataFrame.from_dict(rows, orient="index", columns=["change", "change_low", "change_high", "changed"])
    found = found.reindex(both.index).astype({"change": float, "change_low": float, "change_high": float, "changed": object})
    doubtful = ~known & both["speedup_base"].notna() & both["speedup_head"].notna() & both["mode"].ne("tracked")
    doubtful &= both["trusted_base"].eq(False) | both["trusted_head"].eq(False)
    found.loc[doubtful, "changed"] = UNTRUSTED
    return found


def _with_reasons(both: pd.DataFrame, head: Run) -> pd.DataFrame:
    """Tells cases that head tried but could not measure, and those that another figure of head covers, from those that vanished."""
    vanished = both["status"].eq(VANISHED)
    reasons = head.lost.assign(reason=head.lost["status"] + ": " + head.lost["reason"]).drop_duplicates(list(CASE))
    both = both.merge(reasons[[*CASE, "reason"]], on=list(CASE), how="left")
    both["reason"] = both["reason"].where(vanished, "").fillna("")
    kept = head.frame[head.frame["allocator"].eq(PAGES_KEPT)]
    has_twin = pd.MultiIndex.from_frame(both[[*JOB, "mode"]]).isin(pd.MultiIndex.from_frame(kept[[*JOB, "mode"]]))
    both.loc[vanished & both["allocator"].eq(AS_SHIPPED) & has_twin, "status"] = COVERED
    both.loc[both["reason"].ne(""), "status"] = UNMEASURED
    return both


def byte_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """A row per figure of memory that changed, `CASE metric base head change`, once for both allocators, the largest growth first.

    The index is that of `changes`, and may hold a case twice.
    """
    parts = []
    for name in BYTES:
        moved = changes[changes[f"{name}_change"].fillna(0).ne(0)]
        figures = {"base": moved[f"{name}_base"], "head": moved[f"{name}_head"], "change": moved[f"{name}_change"]}
        parts.append(moved[list(CASE)].assign(metric=name, **figures))
    once = pd.concat(parts).drop_duplicates([*JOB, "mode", "metric", "base", "head"])
    return once.sort_values("change", ascending=False, kind="stable")


def regressions(changes: pd.DataFrame, limits: Mapping[str, Limit] = LIMITS) -> pd.DataFrame:
    """What head lost beyond `limits`, a row of texts each: COLUMNS and `allowed`.

    What is missing stands first, then speedups, then bytes, each with the worst first. Raises AnalysisError.
    """
    if not changes["status"].eq(COMPARED).any():
        raise AnalysisError("no case is in both runs: name runs of the same models, scenarios and devices")
    missing = [] if ALLOW_VANISHED in limits else _missing(changes)
    rows = [[*row, f"only with --allow {ALLOW_VANISHED}"] for row in missing]
    lower = changes[changes["change_high"] < 1 - limits["speedup"].fraction]
    rows += [[*row, str(limits["speedup"])] for row in _speedup_texts(changes, lower)]
    moved = byte_changes(changes)
    allowed = moved["metric"].map({name: limits[name] for name in BYTES})
    beyond = [row.change > limit.fraction * row.base + limit.size for row, limit in zip(each(moved), allowed, strict=True)]
    rows += [[*row, str(limits[row[2]])] for row in _byte_texts(changes, moved.loc[beyond])]
    return pd.DataFrame(rows, columns=[*COLUMNS, "allowed"])


def gate_lines(changes: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """What the gate says: a line per regression, what it could not judge, and the result."""
    lines = []
    for row in each(found):
        change = f"{row.base} -> {row.head} {row.change}" if row.base else row.change
        lines.append(f"regressed: {row.case} {row.mode}: {row.metric} {change} (allowed: {row.allowed})")
    untrusted = int(changes["changed"].eq(UNTRUSTED).sum())
    if untrusted:
        lines.append(f"not judged: {_count(untrusted, 'speedup')} of groups whose control failed in either run")
    result = _count(len(found), "regression") if len(found) else "nothing regressed"
    return [*lines, f"gate: {result} ({_count(int(changes['status'].eq(COMPARED).sum()), 'case')} compared)"]


def limits_of(texts: Iterable[str]) -> dict[str, Limit]:
    """LIMITS with what --allow says: `speedup=5%`, `peak_tensor_bytes=1MiB` or `vanished`. Raises AnalysisError."""
    limits = dict(LIMITS)
    for text in texts:
        name, _, amount = text.partition("=")
        if text == ALLOW_VANISHED:
            limits[ALLOW_VANISHED] = Limit()
            continue
        if name not in LIMITS:
            choices = ", ".join(f"{known}=AMOUNT" for known in LIMITS)
            raise AnalysisError(f"--allow {text}: unknown; choose from {choices} or {ALLOW_VANISHED}")
        found = _AMOUNT.fullmatch(amount)
        if not found or (name == "speedup" and found[2] != "%"):
            kinds = "a percentage such as 5%, or bytes such as 4096 or 1MiB" if name in BYTES else "a percentage such as 5%"
            raise AnalysisError(f"--allow {text}: {name}= needs {kinds}")
        number = float(found[1])
        limits[name] = Limit(number / 100) if found[2] == "%" else Limit(size=round(number * _UNITS[found[2] or "B"]))
    return limits


def tables(base: Run, head: Run, changes: pd.DataFrame) -> list[Table]:
    """The headline and what differs between the runs; then what is missing, the speedups and the bytes that changed,
    the worst first.
    """
    notes = [f"{base.name} -> {head.name}: {headline(changes)}", *differs(base, head), *_remarks(changes)]
    moved = changes[changes["changed"].isin(("slower", "faster"))]
    parts = {
        "No longer there": (_missing(changes), ["metric", "change"]),
        "Speedups that changed, the worst first": (_speedup_texts(changes, moved), ["base", "head", "change"]),
        "Memory that changed, the worst first": (_byte_texts(changes, byte_changes(changes)), COLUMNS[2:]),
    }
    shown = [
        Table(pd.DataFrame(rows, columns=COLUMNS)[["case", "mode", *columns]], title=title)
        for title, (rows, columns) in parts.items()
        if rows
    ]
    return [Table(pd.DataFrame(), notes), *shown]


def headline(changes: pd.DataFrame) -> str:
    """How many speedups and bytes changed and which way, and how many cases came and went."""
    compared, judged = changes["status"].eq(COMPARED).sum(), changes["change"].count()
    parts = [f"{_count(compared, 'case')} compared"]
    if judged:
        lower, higher = (changes["changed"].eq(word).sum() for word in ("slower", "faster"))
        parts.append(f"speedups: {lower} lower, {higher} higher, no change shown in {judged - lower - higher}")
    moved = byte_changes(changes)
    for name, title in BYTES.items():
        growth = moved.loc[moved["metric"].eq(name), "change"]
        parts += [f"{title} memory: {(growth > 0).sum()} more, {(growth < 0).sum()} less"] if len(growth) else []
    parts += [] if len(moved) or not compared else ["memory: not a byte changed"]
    counts = {name: changes["status"].eq(name).sum() for name in (VANISHED, UNMEASURED, NEW)}
    lost = changes["lost"].ne("").sum()
    parts += [f"figures no longer measured in {_count(lost, 'case')}"] if lost else []
    return "; ".join([*parts, *(f"{_count(number, 'case')} {name}" for name, number in counts.items() if number)])


def _remarks(changes: pd.DataFrame) -> list[str]:
    """How far the comparison reaches, and what limits it."""
    remarks = []
    judged = changes[changes["change"].notna()]
    if len(judged):
        reach = 1 - (1 - MARGIN) * judged["change"] / judged["change_high"]
        remarks.append(
            f"a loss shows from {percent_text(reach.median())} on in the median case, from {percent_text(reach.max())} on in the worst:"
            f" the intervals of all {len(judged)} comparisons hold together with 99 %"
        )
    if (judged[["processes_base", "processes_head"]] == 1).any(axis=None):
        remarks.append("speedups of a single process: another launch may shift them by more than their intervals say")
    counted = {
        "not judged, the control of a group failed in either run": changes["changed"].eq(UNTRUSTED),
        "not the same work, parameters or inputs differ": ~changes["same_work"],
        "as shipped now measured once for both allocators": changes["status"].eq(COVERED),
    }
    return remarks + [f"{_count(rows.sum(), 'case')}: {text}" for text, rows in counted.items() if rows.any()]


def _missing(changes: pd.DataFrame) -> list[list[str]]:
    """Of each case that head has not, and of each figure that only base has."""
    named = changes.assign(name=labels(changes))
    gone, lost = named[named["status"].isin((VANISHED, UNMEASURED))], named[named["lost"].ne("")]
    return [
        *([row.name, row.mode, "case", "", "", f"{row.status} {row.reason}".strip()] for row in each(gone)),
        *([row.name, row.mode, row.lost, "", "", UNMEASURED] for row in each(lost)),
    ]


def _speedup_texts(changes: pd.DataFrame, chosen: pd.DataFrame) -> list[list[str]]:
    """Of the chosen rows, by the loss that is certain."""
    named = chosen.assign(name=labels(changes)[chosen.index]).sort_values("change_high")
    columns = [[f"{name}{end}{side}" for end in ("", "_low", "_high")] for name, side in _TOLD]
    texts = [[speedup_text(*ends) for ends in named[names].to_numpy()] for names in columns]
    return list(map(list, zip(named["name"], named["mode"], ["speedup"] * len(named), *texts, strict=True)))


def _byte_texts(changes: pd.DataFrame, moved: pd.DataFrame) -> list[list[str]]:
    named = moved.assign(name=labels(changes, JOB)[moved.index].to_numpy())
    return [
        [row.name, row.mode, row.metric, bytes_text(row.base), bytes_text(row.head), f"{row.change:+,} B"]
        for row in each(named)
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
