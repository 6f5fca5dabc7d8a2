"""What stands below the main table: what its words mean, how far it can be believed, and what is missing from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple

from analysis.allocators import GROUP, TITLES, Name, disagreements, kept_pages, titles_of, trusted_pairs
from analysis.figures import percent_text
from benchmarks.record import DEFAULT, FORWARD, OPERATORS, RESIDENT, TRAINING_STEP, Row, Unmeasured


def footer(rows: Sequence[Row], unmeasured: Sequence[Unmeasured], broken_invariants: Sequence[str] = ()) -> list[str]:
    """Notes of a sentence each; none that would say nothing about these `rows`. `broken_invariants` are the saved run's."""
    shown = [name for name in GROUP if name in ("model", "size") or len({row[name] for row in rows}) > 1]

    def name(row: Row) -> str:
        return " ".join(row[field] for field in shown)

    titles = titles_of(rows)
    labels = titles if len(titles) > 1 else dict.fromkeys(titles, "")
    pairs = trusted_pairs(rows)
    found = [
        *_definitions(rows, labels),
        *_placebos(rows, labels, name),
        *_trust(rows, labels, name),
        *disagreements(pairs, name),
        *kept_pages(rows, name),
        *_other_kernels(rows, [*shown, "mode"]),
        *_changed_buffers(rows, name),
        *_of_a_training_step(rows),
        *_withheld(rows, shown),
        *(f"meters disagree: {words}" for words in broken_invariants),
        *_not_measured(unmeasured),
    ]
    return [" ".join(note.split()) for note in found]


def _definitions(rows: Sequence[Row], labels: Mapping[str, str]) -> list[str]:
    if not rows:
        return []
    measured = [", ".join(sorted({row[name] for row in rows})) for name in ("scenario", "device", "dtype")]
    notes = [f"measured: {'; '.join([*measured, ', '.join(labels)])}"]
    notes.append("speedup: tracked's time over the mode's, ± the wider half of its 99 % interval; above 1: faster")
    if len(labels) > 1:
        notes.append(f"{TITLES[RESIDENT]}: per call and speedup while the allocator keeps its pages ({RESIDENT})")
        notes.append(f"{TITLES[DEFAULT]}: with the allocator left as it is, a process per mode ({DEFAULT})")
    if DEFAULT in labels:
        notes.append("faults: page faults per call, part of the time as shipped")
    scenarios = {row["scenario"] for row in rows}
    resident = "; RSS: what the process grew by" if FORWARD in scenarios else ""
    notes.append(f"ratio: peak tensor memory over tracked's; saved: kept for backward{resident}")
    if scenarios - {FORWARD, OPERATORS}:
        notes.append("held: tensor memory with the output alive; per step: what it grows by with each further step of a call")
    if OPERATORS in scenarios:
        notes.append(
            "tracking: tracked's time less no_grad's; context: a mode entered and left around nothing, tracked the bare loop"
        )
    if any(row["device"] == "cuda" for row in rows):
        notes.append("RSS on cuda: what the caching allocator reserved")
    return notes


def _placebos(rows: Sequence[Row], labels: Mapping[str, str], name: Name) -> list[str]:
    """How far the readings of identical code were from 1, per allocator."""
    texts = []
    for allocator, label in labels.items():
        known = [row for row in rows if row["allocator"] == allocator and row["placebo"] is not None]
        off = {name(row): abs(row["placebo"] - 1) for row in known}
        if off:
            worst = max(off, key=off.__getitem__)
            rest = f" in the median group, {percent_text(off[worst])} in the worst ({worst})" if len(off) > 1 else ""
            texts.append(f"{label} off by {percent_text(statistics.median(off.values()))}{rest}")
    return [f"placebo (identical code, 1 by construction): {'; '.join(texts)}"] if texts else []


def _trust(rows: Sequence[Row], labels: Mapping[str, str], name: Name) -> list[str]:
    notes = []
    again = {f"{name(row)} {labels[row['allocator']]}".strip(): row["discarded"] for row in rows if row["discarded"]}
    if again:
        times = (f"{group} {'once' if number == 1 else f'{number} times'}" for group, number in again.items())
        notes.append(f"timed again because untrusted: {', '.join(times)}")
    for allocator, label in labels.items():
        numbers = {row["processes"] for row in rows if row["allocator"] == allocator}
        if max(numbers) > 1:
            span = " to ".join(str(number) for number in sorted({min(numbers), max(numbers)}))
            what = (
                "heaps per mode, for where blocks lie decides about faults" if allocator == DEFAULT else "processes per group"
            )
            notes.append(f"{label or 'speedup'}: combined from {span} {what}")
    untrusted = dict.fromkeys(f"{name(row)} {labels[row['allocator']]}".strip() for row in rows if not row["trusted"])
    if untrusted:
        notes.append(f"verdict?: the group is untrusted, its speedups are no evidence ({', '.join(untrusted)})")
    return notes


def _other_kernels(rows: Sequence[Row], fields: Sequence[str]) -> list[str]:
    changed = dict.fromkeys(tuple(row[field] for field in fields) for row in rows if row["same_kernels"] is False)
    return [f"*: other kernels than tracked, so not tracking alone: {'; '.join(merged(changed))}"] if changed else []


def _changed_buffers(rows: Sequence[Row], name: Name) -> list[str]:
    """Modes whose call changes other buffers than tracked's does."""
    tracked = {(name(row), row["allocator"]): row["changed_buffers"] for row in rows if row["mode"] == "tracked"}
    changed: dict[str, None] = {}
    for row in rows:
        if row["changed_buffers"] != tracked.get((name(row), row["allocator"]), ""):
            buffers = row["changed_buffers"].split()
            few = f"{', '.join(buffers[:2])}{', ...' if len(buffers) > 2 else ''}" if buffers else "which tracked's does"
            changed[f"{name(row)} {row['mode']}: {len(buffers) or 'no'} buffers changed by a call ({few})"] = None
    return list(changed)


def _of_a_training_step(rows: Sequence[Row]) -> list[str]:
    """The tracked forward pass over the training step of the same model; the two are not paired, so no digits."""
    fields = ("model", "size", "device", "dtype", "allocator")
    seconds: dict[str, dict[tuple[str, ...], float]] = {FORWARD: {}, TRAINING_STEP: {}}
    for row in rows:
        if row["scenario"] in seconds and row["mode"] == "tracked":
            seconds[row["scenario"]][tuple(row[field] for field in fields)] = row["seconds"]
    shares = [
        f"{' '.join(case[:2])} {100 * seconds[FORWARD][case] / whole:.0f} %"
        for case, whole in seconds[TRAINING_STEP].items()
        if case in seconds[FORWARD]
    ]
    return [f"a tracked forward pass of a training step, roughly (not paired): {', '.join(shares)}"] if shares else []


def _withheld(rows: Sequence[Row], shown: Sequence[str]) -> list[str]:
    reasons: dict[str, dict[tuple[str, ...], None]] = {}
    for row in rows:
        if row["unavailable"]:
            reasons.setdefault(row["unavailable"], {})[tuple(row[field] for field in (*shown, "mode"))] = None
    return [f"withheld: {'; '.join(merged(cases))}: {reason}" for reason, cases in reasons.items()]


def _not_measured(unmeasured: Iterable[Unmeasured]) -> list[str]:
    reasons: dict[str, list[tuple[str, ...]]] = {}
    for one in unmeasured:
        reasons.setdefault(f"{one.status}: {' '.join(one.reason.split())}", []).append(astuple(one.case))
    return [f"not measured: {'; '.join(merged(cases))}: {reason}" for reason, cases in reasons.items()]


def merged(cases: Iterable[tuple[str, ...]]) -> list[str]:
    """Texts that together name exactly `cases`: those that differ in one field only become one, `lstm tiny,small no_grad`."""
    boxes: list[tuple[tuple[str, ...], ...]] = [tuple((value,) for value in case) for case in cases]
    for field in reversed(range(len(boxes[0]))):
        merged: dict[tuple[tuple[str, ...], ...], tuple[str, ...]] = {}
        for box in boxes:
            rest = (*box[:field], *box[field + 1 :])
            merged[rest] = (*merged.get(rest, ()), *box[field])
        boxes = [(*rest[:field], values, *rest[field:]) for rest, values in merged.items()]
    return [" ".join(",".join(values) for values in box) for box in boxes]
