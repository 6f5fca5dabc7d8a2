"""What limits the figures of a run, each fact worded once: how far they can be believed, what else differs, what is missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import pandas as pd

from analysis.cases import JOB, TRACKED, against, each, ends_of, is_context, labels, other_kernels, speedup_change, timed
from analysis.figures import count_text, percent_text, short_text, speedup_text
from analysis.read import Run
from benchmarks.intervals import verdict
from benchmarks.record import AS_SHIPPED, CASE, FORWARD, GROUP, PAGE_FAULT_SECONDS, PAGES_KEPT

MOST = 5
"""As many notes are shown below a table."""

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
    yield from _controls(frame)
    evidence = timed(frame)
    if unclear := int(evidence["verdict"].eq("unclear").sum()):
        yield f"~: unclear, partly inside 1 ±1 % or no larger than the control's resolution ({unclear} of {len(evidence)} speedups)"
    yield from _listed("*: other kernels ran than in tracked, so not tracking alone", frame, other_kernels(frame))
    asked, again = frame["driver_allocations"].gt(0), frame["recompilations"].gt(0).fillna(value=False)
    yield from _listed(
        "the driver was asked for memory while timing, which is the allocator's time and not tracking's", frame, asked
    )
    yield from _listed("compiled again while modes took turns, so times may hold compilation", frame, again)
    if (frame["device"].str.startswith("cuda") & frame["model"].eq("lstm") & frame["scenario"].eq(FORWARD)).any():
        yield "lstm on a GPU: in eval mode cuDNN keeps nothing for a backward pass, so tracked saves less here than in training"
    yield from _page_faults(frame)
    yield from _kept_pages(frame)
    yield from _withheld(frame)
    yield from _not_measured(run)
    if warnings := [" ".join(text.split()) for text in run.conditions.get("warnings", [])]:
        yield f"the machine was not at its best: {few(warnings)}"
    both = against(frame[[*CASE, "changed_buffers"]])
    changed = both["changed_buffers"].ne(both["changed_buffers_base"]) & both["mode_base"].eq(TRACKED)
    yield from _listed("a call changes other buffers than tracked's does", frame, changed)
    for what in filter(None, frame["changes"].unique()):
        changes = frame["changes"].eq(what)
        yield from _listed(f"a call changes {what}, so that the calls of a loop are not alike", frame, changes)


def _controls(frame: pd.DataFrame) -> Iterator[str]:
    """How far the readings of the same code were apart, and from which difference on one can be told."""
    groups = frame.assign(label=labels(frame))[~is_context(frame) | ~frame["trusted"].astype(bool)].drop_duplicates(list(GROUP))
    groups = groups.assign(apart=(groups["placebo"] - 1).abs())
    trusted, known = groups["trusted"].astype(bool), groups["placebo"].notna()
    if (failed := ~trusted & known).any():
        texts = [f"{group.label} ({percent_text(group.apart)})" for group in each(groups[failed])]
        yield f"?: not to be believed, because the same code timed twice differed: {few(texts)}"
    if (alone := ~trusted & ~known).any():
        yield f"no speedups, because tracked gave no time to compare with: {few(groups['label'][alone])}"
    held = groups[trusted & known]
    if held.empty:
        return
    finest, several = held["resolution"].median(), len(held) > 1
    text = f"control: the same code timed twice differed by {percent_text(held['apart'].median())}"
    level = f"; differences below {percent_text(finest)}" if finest < 1 else "; differences of any size"
    if several:
        worst = held["label"].iloc[held["apart"].to_numpy().argmax()]
        text += f" (median group), {percent_text(held['apart'].max())} at most ({worst})"
        level += " (median group)"
    yield f"{text}{level} cannot be told"


def _listed(words: str, frame: pd.DataFrame, chosen: pd.Series[bool]) -> Iterator[str]:
    """`words` and the chosen rows by group and mode, once for both allocators."""
    once = frame.assign(label=labels(frame, JOB))[chosen].drop_duplicates([*JOB, "mode"])
    if len(once):
        yield f"{words}: {few(by_group(once['label'], once['mode']))}"


def by_group(names: Iterable[str], modes: Iterable[str]) -> list[str]:
    """`lstm tiny, lstm small (no_grad, detach)`: groups of the same modes together."""
    pairs = pd.DataFrame({"name": list(names), "mode": list(modes)}, dtype="str")
    modes_of = pairs.groupby("name", sort=False)["mode"].agg(", ".join)
    return [f"{few(found.index, joint=', ')} ({modes})" for modes, found in modes_of.groupby(modes_of, sort=False)]


def few(texts: Iterable[str], most: int = _NAMED, joint: str = "; ") -> str:
    texts = list(texts)
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return joint.join([*texts[:most], *more])


def _page_faults(frame: pd.DataFrame) -> Iterator[str]:
    """Where the two allocators' speedups differ, the farthest apart first, and whether page faults can be why.

    With f faults of c seconds a call, the speedup as shipped is (t_tracked + c f_tracked) / (t_mode + c f_mode) of the times with
    pages kept. They cannot be why where PAGE_FAULT_SECONDS for c does not bring it as far as its interval.
    """
    evidence = against(frame).assign(label=labels(frame, JOB)).loc[timed(frame).index]
    shipped, kept = (evidence[evidence["allocator"].eq(name)] for name in (AS_SHIPPED, PAGES_KEPT))
    pairs = shipped.merge(kept, on=[*JOB, "mode"], suffixes=("", "_kept"), validate="one_to_one")
    found: dict[str, dict[str, tuple[float, str]]] = {"because of page faults": {}, "and page faults cannot be why": {}}
    for pair in each(pairs):
        change = speedup_change(pair, "", "_kept", len(pairs))
        if change is None or verdict(change) not in ("faster", "slower"):
            continue
        tracked = pair.seconds_base_kept + PAGE_FAULT_SECONDS * pair.page_faults_base
        expected = tracked / (pair.seconds_base_kept / pair.speedup_kept + PAGE_FAULT_SECONDS * pair.page_faults)
        can_be = expected >= pair.speedup_low if change.estimate > 1 else expected <= pair.speedup_high
        faults = f"{count_text(pair.page_faults)} faults a call, tracked {count_text(pair.page_faults_base)}"
        reason = list(found)[0 if can_be else 1]
        this = abs(math.log(change.estimate)), f"{pair.label} {pair.mode} {speedup_text(*ends_of(pair))} ({faults})"
        found[reason][pair.label] = max(this, found[reason].get(pair.label, this))
    for reason, texts in found.items():
        if texts:
            farthest_first = [text for _, text in sorted(texts.values(), reverse=True)]
            yield f"{AS_SHIPPED} reads another speedup, {reason}: {few(farthest_first, 1)}"


def _kept_pages(frame: pd.DataFrame) -> Iterator[str]:
    shipped = frame.assign(label=labels(frame, JOB))[frame["trusted"].astype(bool) & frame["kept_pages_low"].ge(_WORTH_KEEPING)]
    if len(shipped):
        worth = shipped.drop_duplicates(list(JOB)).sort_values("kept_pages", ascending=False)
        texts = [f"{row.label} {speedup_text(*ends_of(row, 'kept_pages'))}" for row in each(worth)]
        keeping = "an allocator that keeps its pages (MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647, or jemalloc)"
        yield f"{keeping} makes tracked itself faster than {AS_SHIPPED}: {few(texts)}"


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
