"""What limits the figures of a run, each fact worded once: how far they can be believed, what else differs, what is missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from analysis.cases import JOB, TRACKED, against, each, is_context, labels, other_kernels, speedup_change, timed
from analysis.figures import count_text, percent_text, short_text, speedup_text
from analysis.read import Run
from benchmarks.intervals import verdict
from benchmarks.record import AS_SHIPPED, CASE, FORWARD, GROUP, PAGES_KEPT

MOST = 5
"""As many notes are shown below a table."""

PAGE_FAULT_SECONDS = 5e-6
"""What a page fault costs at most, in a virtual machine."""

KEEP_PAGES = "MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647, or jemalloc"

_WORTH_KEEPING = 1.01
_NAMED = 3
"""Of a list that can grow long, so many are named."""


def notes(run: Run, most: int | None = MOST) -> list[str]:
    """A sentence each, the most important first; what is beyond `most` is counted in the last of them. None says them all."""
    found = list(_all(run))
    if most is None or len(found) <= most:
        return found
    more = len(found) - most
    return [*found[: most - 1], f"{found[most - 1]} (and {more} more note{'s' if more > 1 else ''}: `summarise` tells all)"]


def _all(run: Run) -> Iterator[str]:
    frame = run.frame
    if run.conditions.get("unfinished"):
        yield f"unfinished: {run.conditions['unfinished']}"
    yield from _failed_controls(frame)
    yield from _control(frame)
    yield from _unclear(frame)
    yield from _kernels(frame)
    yield from _driver_allocations(frame)
    yield from _recurrent(frame)
    yield from _page_faults(frame)
    yield from _kept_pages(frame)
    yield from _withheld(frame)
    yield from _not_measured(run)
    yield from _conditions(run)
    yield from _changed_buffers(frame)


def _groups(frame: pd.DataFrame, chosen: pd.Series[bool]) -> pd.DataFrame:
    """The first row of each group that has `chosen` rows, with its label."""
    return frame.assign(label=labels(frame))[chosen].drop_duplicates(list(GROUP))


def _failed_controls(frame: pd.DataFrame) -> Iterator[str]:
    groups = _groups(frame, ~frame["trusted"].astype(bool))
    failed = groups[groups["placebo"].notna()]
    if len(failed):
        texts = [f"{group.label} ({percent_text(abs(group.placebo - 1))})" for group in each(failed)]
        yield f"?: not to be believed, because the same code timed twice differed: {few(texts)}"
    alone = groups[groups["placebo"].isna()]
    if len(alone):
        yield f"no speedups, because tracked gave no time to compare with: {few(alone['label'])}"


def _control(frame: pd.DataFrame) -> Iterator[str]:
    """How far the readings of the same code were apart, and from which difference on one can be told."""
    groups = _groups(frame, frame["trusted"].astype(bool) & frame["placebo"].notna() & ~is_context(frame))
    if groups.empty:
        return
    apart, finest = (groups["placebo"] - 1).abs(), groups["resolution"].median()
    text = f"control: the same code timed twice differed by {percent_text(apart.median())}"
    level = f"; differences below {percent_text(finest)}" if finest < 1 else "; differences of any size"
    if len(groups) > 1:
        worst = groups["label"].iloc[apart.to_numpy().argmax()]
        text += f" (median group), {percent_text(apart.max())} at most ({worst})"
        level += " (median group)"
    yield f"{text}{level} cannot be told"


def _unclear(frame: pd.DataFrame) -> Iterator[str]:
    evidence = timed(frame)
    number = int(evidence["verdict"].eq("unclear").sum())
    if number:
        yield f"~: unclear, partly inside 1 ±1 % or no larger than the control's resolution ({number} of {len(evidence)} speedups)"


def _kernels(frame: pd.DataFrame) -> Iterator[str]:
    other = frame[other_kernels(frame)]
    if len(other):
        once = other.drop_duplicates([*JOB, "mode"])
        texts = by_group(labels(other, JOB)[once.index], once["mode"])
        yield f"*: other kernels ran than in tracked, so not tracking alone: {few(texts)}"


def _driver_allocations(frame: pd.DataFrame) -> Iterator[str]:
    """An accelerator's page faults."""
    asking = frame[frame["driver_allocations"].gt(0)]
    if len(asking):
        texts = by_group(labels(frame, JOB)[asking.index], asking["mode"])
        yield f"the driver was asked for memory while timing, which is the allocator's time and not tracking's: {few(texts)}"


def _recurrent(frame: pd.DataFrame) -> Iterator[str]:
    on_gpu = frame["device"].str.startswith("cuda") & frame["model"].eq("lstm") & frame["scenario"].eq(FORWARD)
    if on_gpu.any():
        yield "lstm on a GPU: in eval mode cuDNN keeps nothing for a backward pass, so tracked saves less here than in training"


def by_group(names: Iterable[str], modes: Iterable[str]) -> list[str]:
    """`lstm tiny, lstm small (no_grad, detach)`: groups of the same modes together."""
    modes_of: dict[str, str] = {}
    for name, mode in zip(names, modes, strict=True):
        modes_of[name] = f"{modes_of[name]}, {mode}" if name in modes_of else mode
    names_of: dict[str, list[str]] = {}
    for name, found in modes_of.items():
        names_of.setdefault(found, []).append(name)
    return [f"{few(names, joint=', ')} ({found})" for found, names in names_of.items()]


def few(texts: Iterable[str], most: int = _NAMED, joint: str = "; ") -> str:
    texts = list(texts)
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return joint.join([*texts[:most], *more])


def _page_faults(frame: pd.DataFrame) -> Iterator[str]:
    """Where the two allocators' speedups differ, and whether page faults can be why."""
    pairs = _pairs(frame)
    if pairs.empty:
        return
    changes = [speedup_change(pair, "", "_kept", len(pairs)) for pair in each(pairs)]
    pairs = pairs.assign(
        differs=[change is not None and verdict(change) in ("faster", "slower") for change in changes],
        distance=[abs(math.log(change.estimate)) if change else 0.0 for change in changes],
        explained=[made_up_by_faults(pair) for pair in each(pairs)],
    )
    pairs = pairs[pairs["differs"]].sort_values("distance", ascending=False)
    for explained, reason in ((True, "because of page faults"), (False, "and page faults cannot be why")):
        furthest = pairs[pairs["explained"].eq(explained)].drop_duplicates(list(JOB))
        texts = [_pair_text(pair) for pair in each(furthest)]
        if texts:
            yield f"{AS_SHIPPED} reads another speedup, {reason}: {few(texts, 1)}"


def _pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per case that both allocators timed: as shipped, and with the suffix `_kept` with pages kept."""
    evidence = against(frame)[["seconds_base", "page_faults_base"]].join(timed(frame), how="right")
    evidence = evidence.assign(label=labels(frame, JOB)[evidence.index])
    shipped, kept = (evidence[evidence["allocator"].eq(name)] for name in (AS_SHIPPED, PAGES_KEPT))
    return shipped.merge(kept, on=[*JOB, "mode"], suffixes=("", "_kept"), validate="one_to_one")


def made_up_by_faults(pair: Any) -> bool:
    """Whether the page faults, at PAGE_FAULT_SECONDS each, can make up the difference between the two speedups.

    With f faults per call of c seconds, the speedup as shipped is (t_tracked + c f_tracked) / (t_mode + c f_mode) of the times with pages kept.
    """
    tracked, mode = pair.seconds_base_kept, pair.seconds_base_kept / pair.speedup_kept
    cost_tracked, cost_mode = (PAGE_FAULT_SECONDS * faults for faults in (pair.page_faults_base, pair.page_faults))
    expected = (tracked + cost_tracked) / (mode + cost_mode)
    return bool(expected >= pair.speedup_low if pair.speedup > pair.speedup_kept else expected <= pair.speedup_high)


def _pair_text(pair: Any) -> str:
    shipped = speedup_text(pair.speedup, pair.speedup_low, pair.speedup_high)
    faults = f"{count_text(pair.page_faults)} faults a call, tracked {count_text(pair.page_faults_base)}"
    return f"{pair.label} {pair.mode} {shipped} ({faults})"


def _kept_pages(frame: pd.DataFrame) -> Iterator[str]:
    shipped = frame[frame["trusted"].astype(bool) & frame["kept_pages_low"].ge(_WORTH_KEEPING)].drop_duplicates(list(JOB))
    if len(shipped):
        worth = shipped.assign(label=labels(frame, JOB)[shipped.index]).sort_values("kept_pages", ascending=False)
        texts = [f"{row.label} {speedup_text(row.kept_pages, row.kept_pages_low, row.kept_pages_high)}" for row in each(worth)]
        yield f"an allocator that keeps its pages ({KEEP_PAGES}) makes tracked itself faster than {AS_SHIPPED}: {few(texts)}"


def _withheld(frame: pd.DataFrame) -> Iterator[str]:
    counts: dict[str, Counter[str]] = {}
    for withheld in frame["withheld"]:
        for figure, reason in withheld.items():
            counts.setdefault(reason, Counter())[figure] += 1
    texts = []
    for reason, figures in sorted(counts.items(), key=lambda item: -item[1].total()):
        told = (f"{figure} of {number} case{'s' * (number > 1)}" for figure, number in figures.items())
        texts.append(f"{', '.join(told)}: {short_text(reason)}")
    if texts:
        yield f"withheld: {few(texts, 2)}"


def _not_measured(run: Run) -> Iterator[str]:
    lost = run.lost
    if lost.empty:
        return
    names = labels(pd.concat([lost, run.frame[list(CASE)]], ignore_index=True), JOB)[: len(lost)]
    reasons = lost["status"] + ": " + lost["reason"].map(short_text)
    once = lost.assign(name=names, reason=reasons).drop_duplicates([*JOB, "mode", "reason"])
    texts = [f"{few(by_group(part['name'], part['mode']))}: {reason}" for reason, part in once.groupby("reason", sort=False)]
    yield f"not measured: {few(texts, 2)}"


def _conditions(run: Run) -> Iterator[str]:
    warnings = [" ".join(text.split()) for text in run.conditions.get("warnings", [])]
    if warnings:
        yield f"the machine was not at its best: {few(warnings)}"


def _changed_buffers(frame: pd.DataFrame) -> Iterator[str]:
    joined = against(frame).assign(label=labels(frame, JOB))
    changed = joined[joined["changed_buffers"].ne(joined["changed_buffers_base"]) & joined["mode_base"].eq(TRACKED)]
    once = changed.drop_duplicates([*JOB, "mode"])
    if len(once):
        yield f"a call changes other buffers than tracked's does: {few(by_group(once['label'], once['mode']))}"
