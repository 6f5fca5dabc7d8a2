"""Ten common statements about switching gradients off, each with a verdict from what a run measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from analysis.cases import each, memory
from analysis.figures import bytes_text
from analysis.gains import PEAK, SAVED, SWITCHES, beside_tracked, evidence_of, higher, lower, pooled, switch_of
from analysis.notes import few
from analysis.read import Run
from analysis.render import Table
from benchmarks.record import FORWARD, Promise

Finding = tuple[str, str]
"""A verdict and what it rests on."""

NOT_MEASURED: Finding = ("not measured", "")
BY_GUIDE: Finding = ("shown by", "python -m benchmarks.guide")


def claims(run: Run) -> pd.DataFrame:
    """A row per statement: `claim statement verdict evidence`, all texts."""
    rows = [(name, statement, *check(run)) for name, statement, check in CLAIMS]
    return pd.DataFrame(rows, columns=["claim", "statement", "verdict", "evidence"])


def tables(run: Run) -> list[Table]:
    """The statements that the run tests, and how many it does not. Narrow enough for a terminal."""
    rows = claims(run)
    missing = rows["verdict"].eq(NOT_MEASURED[0])
    notes = ["in brackets: how many groups, or modes of groups, the run tested it on"]
    if missing.any():
        names = ", ".join(rows["claim"][missing])
        notes.append(f"{missing.sum()} not measured here ({names}): `pytest --benchmark --scenarios all` measures them")
    return [Table(rows[~missing].rename(columns={"claim": "#"}), notes, "Ten common statements, tested here")]


def _less_memory(run: Run, scenario: str, figure: str, word: str) -> Finding:
    """Whether switching tracking off leaves less of `figure`; evidence is where it leaves more, else where tracked has most."""
    rows = _rows(run, scenario)
    sizes = beside_tracked(rows, switch_of(rows), figure)
    if sizes.empty:
        return NOT_MEASURED
    reversed_ = higher(sizes)
    first = next(each(reversed_ if len(reversed_) else sizes))
    evidence = f"{word} {bytes_text(first.tracked)}, {switch_of(rows)} {bytes_text(first.own)}"
    return _counted(len(lower(sizes)), len(sizes)), f"{evidence}{' (reversed)' if len(reversed_) else ''}"


def _less_time(run: Run) -> Finding:
    timed = evidence_of(_rows(run, FORWARD))
    mode = switch_of(_rows(run, FORWARD))
    mine = timed[timed["mode"].eq(mode)]
    gain = pooled(mine)
    if gain is None:
        return NOT_MEASURED
    evidence = f"{mode} {gain.figure}" if gain.differs else gain.bound
    return _counted(int(mine["verdict"].eq("faster").sum()), len(mine)), evidence


def _block_or_tensor(run: Run) -> Finding:
    rows = _rows(run, FORWARD)
    switch, detach = beside_tracked(rows, switch_of(rows)), beside_tracked(rows, "detach")
    both = set(switch["name"]) & set(detach["name"])
    if not both:
        return NOT_MEASURED
    by_switch, by_detach = (both & set(lower(peaks)["name"]) for peaks in (switch, detach))
    evidence = f"peaks lowered: {switch_of(rows)} {len(by_switch)}, detach {len(by_detach)}"
    return _counted(len(by_switch - by_detach), len(both)), evidence


def _rows(run: Run, scenario: str) -> pd.DataFrame:
    return run.frame[run.frame["scenario"].eq(scenario)]


def _kept(run: Run, *, modes: Sequence[str], promises: Sequence[Promise], words: str) -> Finding:
    """In how many jobs and `modes` these promises were kept: a measured one kept all, an unmeasured one names what it broke."""
    measured = int(memory(_rows(run, FORWARD))["mode"].isin(modes).sum())
    broken = {
        f"{gone.case.model} {gone.case.size} {gone.case.mode}"
        for gone in run.unmeasured
        if gone.case.scenario == FORWARD and gone.case.mode in modes and set(promises) & set(gone.promises)
    }
    if not measured + len(broken):
        return NOT_MEASURED
    evidence = f"not {few(sorted(broken), joint=', ')}" if broken else words
    return _counted(measured, measured + len(broken)), evidence


def _counted(holding: int, total: int) -> str:
    """Of groups, or of modes of groups."""
    if 0 < holding < total:
        return f"holds in {holding} of {total}"
    return f"{'holds' if holding else 'does not hold'} ({total})"


_BLOCKS = ("no_grad", "inference_mode", "set_grad_enabled", "no_grad_decorator")
_UNTRACKED = (*SWITCHES, "detach")
_NO_BACKWARD = partial(_kept, modes=_UNTRACKED, promises=["history"], words="no grad_fn, so nothing to go along")
_RESTORED = partial(_kept, modes=_BLOCKS, promises=["grad_mode", "tracked_after"], words="gradients on again after each call")
_OUTSIDE = partial(_kept, modes=_BLOCKS, promises=["history", "records"], words="no grad_fn, nothing kept")

CLAIMS: Sequence[tuple[str, str, Callable[[Run], Finding]]] = (
    ("G1", "tracking costs memory", partial(_less_memory, scenario=FORWARD, figure=PEAK, word="peak")),
    ("G2", "tracking costs time", _less_time),
    ("G3", "nothing goes backward by accident", _NO_BACKWARD),
    ("G4", "leaving no_grad restores the mode", _RESTORED),
    ("G5", "what is made inside is in no graph", _OUTSIDE),
    ("G6", "y = 2x outside is tracked, inside not", lambda _: BY_GUIDE),
    ("G7", "backward() of the one inside raises", lambda _: BY_GUIDE),
    ("G8", "eval() alone goes on tracking", partial(_less_memory, scenario="evaluation", figure=SAVED, word="saved")),
    ("G9", "detach() leaves the graph behind", partial(_kept, modes=["detach"], promises=["history"], words="no grad_fn")),
    ("G10", "no_grad for blocks, detach for one", _block_or_tensor),
)
