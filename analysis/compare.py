"""Two runs side by side: what changed, by how much, whether that is more than chance, and which changes are losses.

A speedup changed where the interval of head's over base's, widened for all comparisons at once, lies beyond the margin.
Bytes are exact, so a byte is a change. What base measured and head did not is a loss: nothing shows that it did not get worse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.cases import JOB, TRACKED, each, ends_of, labels, speedup_change, timed
from analysis.figures import bytes_text, percent_text, speedup_text
from analysis.machine import differs
from analysis.read import AnalysisError, Run
from analysis.render import Table
from benchmarks.intervals import MARGIN, verdict
from benchmarks.record import AS_SHIPPED, CASE, PAGES_KEPT

COMPARED, NEW, VANISHED, UNMEASURED, COVERED = "compared", "new", "vanished", "no longer measured", "covered"
"""Status of a case. `covered`: as shipped, of a job that head timed with pages kept, which serves for both where page faults cannot tell."""

UNTRUSTED = "untrusted"

BYTES = {"peak_tensor_bytes": "peak", "held_tensor_bytes": "held", "saved_bytes": "saved"}

_FIGURES = ["speedup", "speedup_low", "speedup_high", "trusted", "processes", "parameters", "inputs", *BYTES]


@dataclass(frozen=True, slots=True)
class Limit:
    """How much worse a figure of head may be: a fraction of base's, or bytes."""

    fraction: float | None = None
    size: int = 0

    def __str__(self) -> str:
        return bytes_text(self.size) if self.fraction is None else percent_text(self.fraction)


LIMITS = {"speedup": Limit(MARGIN), **dict.fromkeys(BYTES, Limit())}
"""What is allowed unless --allow says otherwise; of what is VANISHED nothing is."""

COLUMNS = ["case", "mode", "metric", "base", "head", "change"]
"""Of tables of changes, all texts."""

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
    figures = ("speedup", *BYTES)
    gone = pd.DataFrame({name: both[f"{name}_base"].notna() & both[f"{name}_head"].isna() & compared for name in figures})
    both["lost"] = [", ".join(gone.columns[row]) for row in gone.to_numpy()]
    return _with_reasons(both, head)


def _speedup_changes(both: pd.DataFrame) -> pd.DataFrame:
    """Columns `change change_low change_high changed`; empty where a side has no speedup, or it is tracked's own."""
    known = both["timed_base"].eq(True) & both["timed_head"].eq(True)
    doubtful = both["mode"].ne(TRACKED) & both["speedup_base"].notna() & both["speedup_head"].notna()
    doubtful &= both["trusted_base"].eq(False) | both["trusted_head"].eq(False)
    rows: list[tuple[Any, ...]] = []
    for row in each(both.assign(known=known, doubtful=doubtful)):
        if change := speedup_change(row, "_head", "_base", comparisons=int(known.sum())) if row.known else None:
            rows.append((change.estimate, change.low, change.high, verdict(change)))
        else:
            rows.append((math.nan, math.nan, math.nan, "unclear" if row.known else UNTRUSTED if row.doubtful else None))
    return pd.DataFrame(rows, columns=["change", "change_low", "change_high", "changed"], index=both.index)


def _with_reasons(both: pd.DataFrame, head: Run) -> pd.DataFrame:
    """Tells what head tried but could not measure, and what another figure of head covers, from what vanished."""
    vanished = both["status"].eq(VANISHED)
    reasons = head.lost.assign(reason=head.lost["status"] + ": " + head.lost["reason"]).drop_duplicates(list(CASE))
    both = both.merge(reasons[[*CASE, "reason"]], on=list(CASE), how="left")
    both["reason"] = both["reason"].where(vanished, "").fillna("")
    kept = head.frame[head.frame["allocator"].eq(PAGES_KEPT)]
    has_twin = pd.MultiIndex.from_frame(both[[*JOB, "mode"]]).isin(pd.MultiIndex.from_frame(kept[[*JOB, "mode"]]))
    both.loc[vanished & both["allocator"].eq(AS_SHIPPED) & has_twin, "status"] = COVERED
    both.loc[both["reason"].ne(""), "status"] = UNMEASURED
    return both


def differences(changes: pd.DataFrame) -> pd.DataFrame:
    """COLUMNS of all that is missing in head, then of speedups, then of bytes, once for both allocators; the largest loss first.

    `kind` is VANISHED or a name of LIMITS, `loss` what is certain, a part of `whole`, and `shown` whether it is more than chance.
    """
    missing, speedups, moved = [], [], []
    for row in each(changes.assign(case=labels(changes), job=labels(changes, JOB))):
        if row.status in (VANISHED, UNMEASURED):
            change = f"{row.status} {row.reason}".strip()
            missing.append((row.case, row.mode, "case", "", "", change, VANISHED, math.inf, 1.0, True))
        if row.lost:
            missing.append((row.case, row.mode, row.lost, "", "", UNMEASURED, VANISHED, math.inf, 1.0, True))
        if pd.notna(row.change):
            texts = [
                speedup_text(*ends_of(row, *told)) for told in (("speedup", "_base"), ("speedup", "_head"), ("change", ""))
            ]
            shown = row.changed in ("slower", "faster")
            speedups.append((row.case, row.mode, "speedup", *texts, "speedup", 1 - row.change_high, 1.0, shown))
        for name in BYTES:
            base, head, change = (getattr(row, f"{name}{side}") for side in ("_base", "_head", "_change"))
            if pd.notna(change) and change:
                texts = [bytes_text(base), bytes_text(head), f"{change:+,} B"]
                moved.append((row.job, row.mode, name, *texts, name, float(change), float(base), True))
    by_loss = [sorted(rows, key=lambda row: -row[-3]) for rows in (missing, speedups, moved)]
    columns = [*COLUMNS, "kind", "loss", "whole", "shown"]
    return pd.DataFrame([row for rows in by_loss for row in rows], columns=columns).astype({"shown": bool}).drop_duplicates()


def regressions(changes: pd.DataFrame, limits: Mapping[str, Limit] = LIMITS) -> pd.DataFrame:
    """Those of `differences` that head lost beyond `limits`: COLUMNS and `allowed`. Raises AnalysisError."""
    if not changes["status"].eq(COMPARED).any():
        raise AnalysisError("no case is in both runs: name runs of the same models, scenarios and devices")
    found = differences(changes)
    found = found[found["kind"].ne(VANISHED) | (VANISHED not in limits)]
    limit_of = [limits.get(kind, Limit()) for kind in found["kind"]]
    beyond = [
        row.loss > (limit.fraction or 0) * row.whole + limit.size for row, limit in zip(each(found), limit_of, strict=True)
    ]
    allowed = [f"only with --allow {kind}" if kind == VANISHED else str(limits[kind]) for kind in found["kind"]]
    return found.assign(allowed=allowed).loc[beyond, [*COLUMNS, "allowed"]]


def gate_lines(changes: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """What the gate says: a line per regression, what it could not judge, and the result."""
    lines = []
    for row in each(found):
        change = f"{row.base} -> {row.head} {row.change}" if row.base else row.change
        lines.append(f"regressed: {row.case} {row.mode}: {row.metric} {change} (allowed: {row.allowed})")
    if untrusted := int(changes["changed"].eq(UNTRUSTED).sum()):
        lines.append(f"not judged: {_count(untrusted, 'speedup')} of groups whose control failed in either run")
    result = _count(len(found), "regression") if len(found) else "nothing regressed"
    return [*lines, f"gate: {result} ({_count(int(changes['status'].eq(COMPARED).sum()), 'case')} compared)"]


def limits_of(texts: Iterable[str]) -> dict[str, Limit]:
    """LIMITS with what --allow says: `speedup=5%`, `peak_tensor_bytes=1MiB` or `vanished`. Raises AnalysisError."""
    limits = dict(LIMITS)
    for text in texts:
        name, _, amount = text.partition("=")
        if text == VANISHED:
            limits[VANISHED] = Limit()
            continue
        if name not in LIMITS:
            choices = ", ".join(f"{known}=AMOUNT" for known in LIMITS)
            raise AnalysisError(f"--allow {text}: unknown; choose from {choices} or {VANISHED}")
        found = _AMOUNT.fullmatch(amount)
        if not found or (name == "speedup" and found[2] != "%"):
            kinds = "a percentage such as 5%, or bytes such as 4096 or 1MiB" if name in BYTES else "a percentage such as 5%"
            raise AnalysisError(f"--allow {text}: {name}= needs {kinds}")
        number = float(found[1])
        limits[name] = Limit(number / 100) if found[2] == "%" else Limit(size=round(number * _UNITS[found[2] or "B"]))
    return limits


def tables(base: Run, head: Run, changes: pd.DataFrame) -> list[Table]:
    """The headline and what differs between the runs; then what is missing, and the speedups and bytes that changed."""
    found = differences(changes)
    notes = [f"{base.name} -> {head.name}: {_headline(changes, found)}", *differs(base, head), *_remarks(changes)]
    parts = {
        "No longer there": ([VANISHED], ["metric", "change"]),
        "Speedups that changed, the worst first": (["speedup"], ["base", "head", "change"]),
        "Memory that changed, the worst first": (BYTES, COLUMNS[2:]),
    }
    shown = [
        Table(found.loc[found["shown"] & found["kind"].isin(kinds), ["case", "mode", *columns]], title=title)
        for title, (kinds, columns) in parts.items()
    ]
    return [Table(notes=notes), *(table for table in shown if table.rows)]


def _headline(changes: pd.DataFrame, found: pd.DataFrame) -> str:
    """How many speedups and bytes changed and which way, and how many cases came and went."""
    status, judged = changes["status"].value_counts(), changes["change"].count()
    parts = [f"{_count(status.get(COMPARED, 0), 'case')} compared"]
    if judged:
        lower, higher = (changes["changed"].eq(word).sum() for word in ("slower", "faster"))
        parts.append(f"speedups: {lower} lower, {higher} higher, no change shown in {judged - lower - higher}")
    for name, title in BYTES.items():
        growth = found.loc[found["kind"].eq(name), "loss"]
        parts += [f"{title} memory: {(growth > 0).sum()} more, {(growth < 0).sum()} less"] if len(growth) else []
    parts += ["memory: not a byte changed"] if COMPARED in status and not found["kind"].isin(BYTES).any() else []
    lost = changes["lost"].ne("").sum()
    parts += [f"figures no longer measured in {_count(lost, 'case')}"] if lost else []
    parts += [f"{_count(status[name], 'case')} {name}" for name in (VANISHED, UNMEASURED, NEW) if name in status]
    return "; ".join(parts)


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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
