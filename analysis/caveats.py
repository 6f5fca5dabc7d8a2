"""What limits the figures of a run, and what to do about it: one sentence each for what was found, none for what was not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.allocators import KEEP_PAGES, WORTH_KEEPING, Name, group_of, trusted_pairs
from analysis.evidence import (
    SWITCHES,
    beside_tracked,
    by_allocator,
    few,
    figure,
    namer,
    on_groups,
    one_line,
    span,
    tally,
    timed,
)
from analysis.figures import count_text
from benchmarks.record import DEFAULT, Row, Unmeasured


def caveats(rows: Sequence[Row], unmeasured: Sequence[Unmeasured], conditions: Mapping[str, Any]) -> list[str]:
    """`rows` are `evidence.readable`; `conditions` the run's, of which the warnings are told."""
    name = namer(rows)
    return [
        *_trust(rows, name),
        *_unclear(rows),
        *_detach(rows, name),
        *_kernels(rows, name),
        *_apart(rows, name),
        *_pages(rows, name),
        *_missing(unmeasured),
        *_conditions(conditions),
    ]


def _trust(rows: Sequence[Row], name: Name) -> Iterator[str]:
    several = len({row["allocator"] for row in rows}) > 1
    untrusted = {(*group_of(row), row["allocator"]): row for row in rows if not row["trusted"]}

    def where(row: Row) -> str:
        return f"{name(row)}{' as shipped' if several and row['allocator'] == DEFAULT else ''}"

    alone = [where(row) for row in untrusted.values() if row["placebo"] is None]
    if alone:
        yield f"tracked gave no time to compare with on {few(alone)}, so there are no speedups there."
    read = [f"{figure(row, 'placebo')} on {where(row)}" for row in untrusted.values() if row["placebo"] is not None]
    if read:
        yield f"identical code read {few(read)} instead of 1, so the speedups there are no evidence, and left out above."


def _unclear(rows: Sequence[Row]) -> Iterator[str]:
    counts = tally(row for mode in SWITCHES for row in timed(rows, mode))
    if 2 * counts["unclear"] > counts.total():
        yield (
            f"{counts['unclear']} of {counts.total()} verdicts on switching tracking off are unclear, for their intervals are wide: "
            "measure again with a larger --budget, on a machine that does nothing else."
        )


def _detach(rows: Sequence[Row], name: Name) -> Iterator[str]:
    peaks = beside_tracked(rows, "detach", "peak_tensor_bytes")
    wasted = sum(own >= tracked for _, own, tracked in peaks)
    found = next(iter(by_allocator(rows, "detach").values()), [])
    slower = [row for row in found if row["verdict"] == "slower"]
    sentences = [f"saves nothing at the peak{on_groups(wasted, len(peaks))}, for all was tracked before"] if wasted else []
    if slower:
        sentences.append(f"is slower than tracked{on_groups(len(slower), len(found))}, by a factor of {span(slower, name)}")
    if sentences:
        yield f"detach on the result {', and '.join(sentences)}. It is for taking a single tensor out of a graph."


def _kernels(rows: Sequence[Row], name: Name) -> Iterator[str]:
    changed = [row for row in rows if row["same_kernels"] is False]
    if changed:
        yield (
            f"{few(row['mode'] for row in changed)} ran other kernels than tracked on {few(name(row) for row in changed)}: "
            "the figures there are not of tracking alone."
        )


def _apart(rows: Sequence[Row], name: Name) -> Iterator[str]:
    """Of each group the mode whose two speedups lie furthest apart."""
    furthest: dict[str, str] = {}
    for pair in sorted((pair for pair in trusted_pairs(rows) if pair.disagrees), key=lambda pair: -pair.distance):
        text = f"{pair.alone['mode']} on {name(pair.alone)} reads {figure(pair.shipped)} as shipped but {figure(pair.alone)} tracking alone"
        if pair.by_faults:
            faults = count_text(pair.shipped["page_faults"]), count_text(pair.tracked_faults)
            text += f", because of page faults ({faults[0]} a call as shipped, tracked {faults[1]})"
        furthest.setdefault(name(pair.alone), text)
    if furthest:
        yield f"{few(furthest.values(), shown=2)}."


def _pages(rows: Sequence[Row], name: Name) -> Iterator[str]:
    """Where keeping pages reads a larger gain than any mode."""
    shipped = [row for row in rows if row["allocator"] == DEFAULT and row["trusted"]]
    best: dict[tuple[str, ...], Row] = {}
    for mode in SWITCHES:
        for row in timed(shipped, mode):
            best[group_of(row)] = max(row, best.get(group_of(row), row), key=lambda one: one["speedup"])
    gains = {group_of(row): row for row in shipped if (row["kept_pages_low"] or 0) >= WORTH_KEEPING}
    texts = [
        f"{figure(row, 'kept_pages')} on {name(row)} (best mode: {figure(best[group])})"
        for group, row in sorted(gains.items(), key=lambda item: -item[1]["kept_pages"])
        if group in best and row["kept_pages"] > best[group]["speedup"]
    ]
    if texts:
        yield (
            f"as shipped, page faults cost time too: an allocator that keeps its pages ({KEEP_PAGES}) would make tracked itself "
            f"faster by a factor of {few(texts)}."
        )


def _missing(unmeasured: Sequence[Unmeasured]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for one in unmeasured:
        case = f"{one.case.model} {one.case.size} {one.case.device} {one.case.allocator} {one.case.mode}"
        reasons.setdefault(f"{one.status}: {one.reason}", []).append(case)
    if reasons:
        yield one_line(f"not measured: {few((f'{few(cases, 3)} ({reason})' for reason, cases in reasons.items()), 3)}.")


def _conditions(conditions: Mapping[str, Any]) -> Iterator[str]:
    found = conditions.get("warnings")
    if isinstance(found, list) and found:
        yield one_line(f"the machine was not at its best: {few(map(str, found), shown=3)}.")
