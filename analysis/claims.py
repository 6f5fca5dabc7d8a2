"""Ten common statements about switching gradients off, each with a verdict from what a run measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from analysis.cases import each, memory
from analysis.figures import bytes_text
from analysis.gains import (
    PEAK,
    SAVED,
    SWITCHES,
    beside_tracked,
    evidence_of,
    forward_passes,
    higher,
    lower,
    pooled,
    switch_of,
)
from analysis.notes import few
from analysis.read import Run
from analysis.render import Table
from benchmarks.record import FORWARD, Promise

GUIDE = "python -m benchmarks.guide"
SHOWN, NOT_MEASURED = "shown by", "not measured"

COLUMNS = ["claim", "statement", "verdict", "evidence"]

Finding = tuple[str, str]
"""A verdict and what it rests on."""

_NOTHING: Finding = (NOT_MEASURED, "")


def claims(run: Run) -> pd.DataFrame:
    """A row per statement: `claim statement verdict evidence`, all texts."""
    return pd.DataFrame([(name, statement, *check(run)) for name, statement, check in CLAIMS], columns=COLUMNS)


def tables(run: Run) -> list[Table]:
    """The statements that the run tests, and how many it does not. Narrow enough for a terminal."""
    rows = claims(run)
    missing = rows["verdict"].eq(NOT_MEASURED)
    notes = ["in brackets: how many groups, or modes of groups, the run tested it on"]
    if missing.any():
        names = ", ".join(rows["claim"][missing])
        notes.append(f"{missing.sum()} not measured here ({names}): `pytest --benchmark --scenarios all` measures them")
    return [Table(rows[~missing].rename(columns={"claim": "#"}), notes, "Ten common statements, tested here")]


def _memory(run: Run) -> Finding:
    peaks = _peaks(run)
    if peaks.empty:
        return _NOTHING
    mode = switch_of(forward_passes(run))
    reversed_ = higher(peaks)
    first = next(each(reversed_ if len(reversed_) else peaks))
    figures = f"peak {bytes_text(first.tracked)}, {mode} {bytes_text(first.own)}"
    evidence = f"{figures} (reversed)" if len(reversed_) else figures
    return _counted(len(lower(peaks)), len(peaks)), evidence


def _time(run: Run) -> Finding:
    forward = forward_passes(run)
    mode = switch_of(forward)
    timed = evidence_of(forward)
    mine = timed[timed["mode"].eq(mode)]
    gain = pooled(mine)
    if gain is None:
        return _NOTHING
    evidence = f"{mode} {gain.figure}" if gain.differs else gain.bound
    return _counted(int(mine["verdict"].eq("faster").sum()), len(mine)), evidence


def _evaluation(run: Run) -> Finding:
    rows = run.frame[run.frame["scenario"].eq("evaluation")]
    saved = beside_tracked(rows, switch_of(rows), SAVED)
    if saved.empty:
        return _NOTHING
    first = saved.iloc[0]
    evidence = f"saved {bytes_text(first.tracked)}, {switch_of(rows)} {bytes_text(first.own)}"
    return _counted(len(lower(saved)), len(saved)), evidence


def _block_or_tensor(run: Run) -> Finding:
    forward = forward_passes(run)
    both = beside_tracked(forward, "detach").merge(_peaks(run), on="name", suffixes=("", "_switched"))
    if both.empty:
        return _NOTHING
    holds = (both["own"] >= both["tracked"]) & (both["own_switched"] < both["tracked"])
    lowered = int((both["own"] < both["tracked"]).sum()), int((both["own_switched"] < both["tracked"]).sum())
    return _counted(int(holds.sum()), len(both)), f"peaks lowered: {switch_of(forward)} {lowered[1]}, detach {lowered[0]}"


def _peaks(run: Run) -> pd.DataFrame:
    forward = forward_passes(run)
    return beside_tracked(forward, switch_of(forward), PEAK)


def _kept(run: Run, *, modes: Sequence[str], promises: Sequence[Promise], words: str) -> Finding:
    """In how many jobs and `modes` these promises were kept: a measured one kept all, an unmeasured one names those
    that it broke.
    """
    measured = int(memory(forward_passes(run))["mode"].isin(modes).sum())
    broken = {
        f"{gone.case.model} {gone.case.size} {gone.case.mode}"
        for gone in run.unmeasured
        if gone.case.scenario == FORWARD and gone.case.mode in modes and set(promises) & set(gone.promises)
    }
    if not measured + len(broken):
        return _NOTHING
    evidence = f"not {few(sorted(broken), joint=', ')}" if broken else words
    return _counted(measured, measured + len(broken)), evidence


def _counted(holding: int, total: int) -> str:
    """Of groups, or of modes of groups."""
    return (
        f"holds ({total})" if holding == total else f"holds in {holding} of {total}" if holding else f"does not hold ({total})"
    )


_BLOCKS = ("no_grad", "inference_mode", "set_grad_enabled", "no_grad_decorator")
_UNTRACKED = (*SWITCHES, "detach")
_NO_BACKWARD = partial(_kept, modes=_UNTRACKED, promises=["history"], words="no grad_fn, so nothing to go along")
_RESTORED = partial(_kept, modes=_BLOCKS, promises=["grad_mode", "tracked_after"], words="gradients on again after each call")
_OUTSIDE = partial(_kept, modes=_BLOCKS, promises=["history", "records"], words="no grad_fn, nothing kept")
_DETACHED = partial(_kept, modes=["detach"], promises=["history"], words="no grad_fn")


def _by_guide(_: Run) -> Finding:
    return SHOWN, GUIDE


CLAIMS: Sequence[tuple[str, str, Callable[[Run], Finding]]] = (
    ("G1", "tracking costs memory", _memory),
    ("G2", "tracking costs time", _time),
    ("G3", "nothing goes backward by accident", _NO_BACKWARD),
    ("G4", "leaving no_grad restores the mode", _RESTORED),
    ("G5", "what is made inside is in no graph", _OUTSIDE),
    ("G6", "y = 2x outside is tracked, inside not", _by_guide),
    ("G7", "backward() of the one inside raises", _by_guide),
    ("G8", "eval() alone goes on tracking", _evaluation),
    ("G9", "detach() leaves the graph behind", _DETACHED),
    ("G10", "no_grad for blocks, detach for one", _block_or_tensor),
)
