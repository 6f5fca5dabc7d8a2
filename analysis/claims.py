"""Ten common statements about switching gradients off, each with a verdict from what a run measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from analysis.cases import TRACKED, each, memory
from analysis.figures import bytes_text
from analysis.gains import (
    HELD,
    PEAK,
    SAVED,
    beside_tracked,
    by_size,
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
SHOWN, NOT_MEASURED = "shown there", "not measured"

COLUMNS = ["claim", "statement", "verdict", "evidence"]

Finding = tuple[str, str]
"""A verdict and what it rests on."""

_NOTHING: Finding = (NOT_MEASURED, "")


def claims(run: Run) -> Table:
    """A row per statement that the run tests, with its verdict; a note counts the others."""
    rows = pd.DataFrame([(name, statement, *check(run)) for name, statement, check in _CLAIMS], columns=COLUMNS)
    missing = rows["verdict"].eq(NOT_MEASURED)
    notes = [f"{SHOWN}: {GUIDE} runs it before your eyes"]
    if missing.any():
        names = ", ".join(rows["claim"][missing])
        notes.append(f"{missing.sum()} not measured here ({names}): `pytest --benchmark --scenarios all` measures them")
    return Table(rows[~missing], notes, "Ten common statements, tested here")


def _memory(run: Run) -> Finding:
    peaks = _peaks(run)
    if peaks.empty:
        return _NOTHING
    texts = [
        f"{word} {bytes_text(row.tracked)} tracked, {bytes_text(row.own)} {switch_of(forward_passes(run))} ({row.name})"
        for word, rows in (("peak", peaks), ("reversed:", higher(peaks)))
        for row in each(rows.head(1))
    ]
    return _counted(len(lower(peaks)), len(peaks), "group"), "; ".join(texts)


def _time(run: Run) -> Finding:
    forward = forward_passes(run)
    mode = switch_of(forward)
    evidence = evidence_of(forward)
    mine = evidence[evidence["mode"].eq(mode)]
    gain = pooled(mine)
    if gain is None:
        return _NOTHING
    return _counted(int(mine["verdict"].eq("faster").sum()), len(mine), "group"), f"{gain.told(mode)}{by_size(mine)}"


def _no_accident(run: Run) -> Finding:
    return _kept(run, lambda mode: mode != TRACKED, ["history"], "outputs that backward() refuses")


def _restored(run: Run) -> Finding:
    return _kept(run, _is_switch, ["grad_mode", "tracked_after"], "gradients on again after the call")


def _outside(run: Run) -> Finding:
    return _kept(run, _is_switch, ["history", "records"], "no grad_fn, nothing kept")


def _shown(_: Run) -> Finding:
    return SHOWN, GUIDE


def _evaluation(run: Run) -> Finding:
    rows = run.frame[run.frame["scenario"].eq("evaluation")]
    saved = beside_tracked(rows, switch_of(rows), SAVED)
    if saved.empty:
        return _NOTHING
    first = saved.iloc[0]
    evidence = f"eval() alone keeps {bytes_text(first.tracked)} for backward, with {switch_of(rows)} {bytes_text(first.own)}"
    return _counted(len(lower(saved)), len(saved), "group"), evidence


def _detached(run: Run) -> Finding:
    return _kept(run, lambda mode: mode == "detach", ["history"], "results without history")


def _block_or_tensor(run: Run) -> Finding:
    forward = forward_passes(run)
    both = beside_tracked(forward, "detach").merge(_peaks(run), on="name", suffixes=("", "_switched"))
    if both.empty:
        return _NOTHING
    holds = (both["own"] >= both["tracked"]) & (both["own_switched"] < both["tracked"])
    logging = beside_tracked(run.frame[run.frame["scenario"].eq("loss_logging")], "detach", HELD).head(1)
    tensors = [
        f"; of a logged loss it holds {bytes_text(row.own)} instead of {bytes_text(row.tracked)}" for row in each(logging)
    ]
    lowered = int((both["own"] < both["tracked"]).sum()), int((both["own_switched"] < both["tracked"]).sum())
    evidence = f"detach lowers the peak of {lowered[0]}, {switch_of(forward)} of {lowered[1]}{''.join(tensors)}"
    return _counted(int(holds.sum()), len(both), "group"), evidence


_CLAIMS: Sequence[tuple[str, str, Callable[[Run], Finding]]] = (
    ("G1", "tracking costs memory: what backward needs is kept", _memory),
    ("G2", "tracking costs time: recording is work", _time),
    ("G3", "without tracking nothing can be sent backward by accident", _no_accident),
    ("G4", "leaving no_grad restores the mode from before", _restored),
    ("G5", "what is made inside is in no graph, whatever its inputs require", _outside),
    ("G6", "y = 2x outside is tracked, z = 3x inside is not", _shown),
    ("G7", "y.backward() fills x.grad, z.backward() raises", _shown),
    ("G8", "evaluation needs no_grad beside eval(), which tracks on", _evaluation),
    ("G9", "detach() gives the same values without history", _detached),
    ("G10", "no_grad is for blocks, detach for one tensor", _block_or_tensor),
)


def _peaks(run: Run) -> pd.DataFrame:
    forward = forward_passes(run)
    return beside_tracked(forward, switch_of(forward), PEAK)


def _is_switch(mode: str) -> bool:
    return mode in ("no_grad", "inference_mode", "set_grad_enabled", "no_grad_decorator")


def _kept(run: Run, concerns: Callable[[str], bool], promises: Sequence[Promise], words: str) -> Finding:
    """In how many jobs and modes these promises were kept: a measured one kept all, an unmeasured one names those that it broke."""
    measured = sum(concerns(mode) for mode in memory(forward_passes(run))["mode"])
    broken = {
        f"{gone.case.model} {gone.case.size} {gone.case.mode}"
        for gone in run.unmeasured
        if gone.case.scenario == FORWARD and concerns(gone.case.mode) and set(promises) & set(gone.promises)
    }
    if not measured + len(broken):
        return _NOTHING
    evidence = f"{words}; not {few(sorted(broken), joint=', ')}" if broken else words
    return _counted(measured, measured + len(broken), "case"), evidence


def _counted(holding: int, total: int, unit: str) -> str:
    of_all = f"{total} {unit}{'' if total == 1 else 's'}"
    if holding == total:
        return f"holds ({of_all})"
    return f"holds in {holding} of {of_all}" if holding else f"does not hold ({of_all})"
