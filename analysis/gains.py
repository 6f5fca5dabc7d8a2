"""What a mode gives against tracked: its ratio of times pooled over groups, and its bytes beside tracked's."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.cases import JOB, TRACKED, against, each, ends_of, is_context, is_part, labels, memory, preferred, timed
from analysis.figures import difference_text, percent_text, share_text, speedup_text
from benchmarks.intervals import geometric_mean, resolution, verdict
from benchmarks.record import Interval, Verdict

SWITCHES = ("no_grad", "inference_mode", "set_grad_enabled", "no_grad_decorator", "detached_parameters", "frozen")
"""Modes in which nothing is tracked at all, the one to speak of first."""

PEAK, HELD, SAVED = "peak_tensor_bytes", "held_tensor_bytes", "saved_bytes"

_NO_BOUND = 0.3
"""An interval that reaches farther than this from 1 says nothing of a difference."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A ratio of times as geometric mean over groups, and how far the mean of their controls reaches from 1."""

    ratio: Interval
    resolution: float
    groups: int

    @property
    def verdict(self) -> Verdict:
        return verdict(self.ratio, self.resolution)

    @property
    def differs(self) -> bool:
        return self.verdict in ("faster", "slower")

    @property
    def figure(self) -> str:
        return speedup_text(self.ratio.estimate, self.ratio.low, self.ratio.high)

    @property
    def bound(self) -> str:
        """How large a difference can have been overlooked."""
        reach = max(resolution(self.ratio), self.resolution)
        return f"no difference above {percent_text(reach)} found" if reach < _NO_BOUND else "the times scatter too much to tell"

    def told(self, mode: str, other: str = TRACKED) -> str:
        """A clause such as `no_grad is 1.26 ±0.02 times as fast as tracked`."""
        if self.differs:
            return f"{mode} is {self.figure} times as fast as {other}"
        level = "as fast as" if self.verdict == "same" else "not told apart from"
        return f"{mode} is {level} {other}, {self.bound}"


def evidence_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Timed rows, one per job and mode."""
    return timed(preferred(rows))


def pooled(rows: pd.DataFrame, column: str = "speedup") -> Gain | None:
    """The mean over the rows that have the interval `column`; None where none has, or a mean is beyond what a float holds."""
    known = rows[rows[f"{column}_low"].notna() & rows["placebo_low"].notna()]
    ends = (known[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float).tolist() for name in (column, "placebo"))
    try:
        ratio, control = (geometric_mean([Interval(*row) for row in rows]) for rows in ends)
        return Gain(ratio, resolution(control), len(known))
    except (ValueError, OverflowError):
        return None


def by_mode(rows: pd.DataFrame) -> dict[str, Gain]:
    """The gain of each mode that has one."""
    return {str(mode): gain for mode, mine in evidence_of(rows).groupby("mode", sort=False) if (gain := pooled(mine))}


def shares(rows: pd.DataFrame) -> dict[str, str]:
    """What each mode that runs a part of the step alone takes of it, over all groups."""
    parts = preferred(rows[is_part(rows) & rows["trusted"].astype(bool)])
    gains = {str(mode): pooled(mine, "over_no_grad") or pooled(mine) for mode, mine in parts.groupby("mode", sort=False)}
    return {mode: share_text(gain.ratio.estimate, gain.ratio.low, gain.ratio.high) for mode, gain in gains.items() if gain}


def switching(rows: pd.DataFrame) -> dict[str, str]:
    """What entering and leaving each mode takes, the bare loop, which is its tracked arm, taken off."""
    around_nothing = rows[is_context(rows) & rows["mode"].ne(TRACKED) & rows["speedup_low"].notna()]
    times = {}
    for row in each(around_nothing):
        taken, high, low = (row.seconds * (1 - ratio) / row.steps for ratio in ends_of(row))
        times[row.mode] = difference_text(taken, low, high, row.seconds_noise)
    return times


def switch_of(rows: pd.DataFrame) -> str:
    """The mode to speak of where tracking is switched off; empty where there is none."""
    return next((mode for mode in SWITCHES if rows["mode"].eq(mode).any()), "")


def beside_tracked(rows: pd.DataFrame, mode: str, figure: str = PEAK) -> pd.DataFrame:
    """Columns `name own tracked`: bytes of `mode` and of tracked, a row per job where both are known, tracked's largest first."""
    both = against(memory(rows)[[*JOB, "mode", figure]], on=JOB)
    both = both[both["mode"].eq(mode) & both[figure].notna() & both[f"{figure}_base"].notna()]
    found = pd.DataFrame({"name": labels(rows, JOB)[both.index], "own": both[figure], "tracked": both[f"{figure}_base"]})
    return found.sort_values("tracked", ascending=False, kind="stable")


def lower(bytes_beside: pd.DataFrame) -> pd.DataFrame:
    return bytes_beside[bytes_beside["own"] < bytes_beside["tracked"]]


def higher(bytes_beside: pd.DataFrame) -> pd.DataFrame:
    return bytes_beside[bytes_beside["own"] > bytes_beside["tracked"]]
