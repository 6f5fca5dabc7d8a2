"""The guide's claims, each with its verdict on the machine of one run and the evidence in a line each. Tidy rows in, Claims out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from analysis.allocators import Name
from analysis.evidence import (
    BASELINE,
    SWITCHES,
    beside_tracked,
    by_allocator,
    by_size,
    fades,
    few,
    namer,
    of_all,
    on_groups,
    one_line,
    readable,
    sizes_text,
    span,
    switch_of,
    tally,
    tally_text,
    untrusted_groups,
    wrapped,
)
from analysis.figures import bytes_text
from analysis.render import Column, Section, Table
from benchmarks.record import FORWARD, Row, Unmeasured

NOT_MEASURED = "not measured in this run"
WALKTHROUGH = "python -m benchmarks.walkthrough"

_WITHOUT_HISTORY = (*SWITCHES, "frozen", "detached_parameters", "detach")
_HISTORY, _OUTLIVED = ("history", "saved for backward"), ("left off", "a tracked call after")
"""What the reason of a broken contract says where an output is in the graph (or tracked's is not), and where a mode outlives its block."""

_WORTH_A_LINE = 3
"""Of the groups, the largest few have a line of their own."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`name` is the guide's (`G2`); the verdict and every line of evidence are of one run, and no claim holds without such evidence."""

    name: str
    text: str
    verdict: str
    evidence: list[str] = field(default_factory=list)


def claims(rows: Iterable[Row], unmeasured: Sequence[Unmeasured]) -> list[Claim]:
    """All ten claims, from tidy rows with any missing values, and what could not be measured."""
    rows = list(rows)
    forward = readable(rows)
    gone = [one for one in unmeasured if one.case.scenario == FORWARD]
    step_by_step = "a fact that running it shows", [f"shown by {WALKTHROUGH}"]
    return [
        Claim("G1", "Tracking costs memory: what backward will need is kept until then", *_memory(forward)),
        Claim("G2", "Tracking costs time: recording the graph is work", *_time(forward)),
        Claim("G3", "Without tracking, nothing can be sent backward by accident", *_no_history(forward, gone)),
        Claim("G4", "no_grad ends with its block: behind it, gradients are on again", *_restored(forward, gone)),
        Claim("G5", "What is made inside is not in the graph, though parameters require grad", *_outside(forward, gone)),
        Claim("G6", "y = 2x made outside no_grad is tracked, z = 3x made inside is not", *step_by_step),
        Claim("G7", "y.backward() gives x.grad = 2, z.backward() raises", *step_by_step),
        Claim("G8", "Evaluation needs no_grad beside model.eval(), which goes on tracking", *_evaluation(rows)),
        Claim("G9", "detach() gives a tensor without history and leaves the graph as it is", *_detached(forward, gone)),
        Claim("G10", "no_grad is for blocks, detach for a single tensor", *_block_or_tensor(forward, rows)),
    ]


def claims_table(found: Sequence[Claim]) -> Table:
    """A row per claim, its evidence in one cell."""
    titles = ("claim", "what it says", "verdict", "evidence")
    cells = [[one.name, one.text, one.verdict, "; ".join(one.evidence)] for one in found]
    raw = [dict(zip(titles, row, strict=True)) for row in cells]
    return Table([Column(title, text=True) for title in titles], (), [Section("", (), cells)], raw=raw)


def terminal(found: Sequence[Claim]) -> str:
    """A paragraph per claim, for evidence is longer than a cell of the terminal's tables may be."""
    return "\n\n".join("\n".join(_paragraph(one)) for one in found)


def _paragraph(one: Claim) -> list[str]:
    lines = [f"{one.name:<5}{one.text}", f"     {one.verdict}"]
    return lines + [line for text in one.evidence for line in wrapped(text, "     - ", "       ")]


_Found = tuple[str, list[str]]
"""A verdict and its evidence."""


def _memory(rows: list[Row]) -> _Found:
    mode, name = switch_of(rows), namer(rows)
    peaks = beside_tracked(rows, mode, "peak_tensor_bytes")
    if not peaks:
        return _missing("--modes tracked,no_grad")
    shares = sorted((size / tracked, name(row)) for row, size, tracked in peaks if size < tracked)
    ends = dict.fromkeys(f"{100 * share:.0f} % ({where})" for share, where in (*shares[:1], *shares[-1:]))
    spread = f": {' to '.join(ends)} of it" if ends else ""
    lines = [f"peak of {mode} below tracked's{on_groups(len(shares), len(peaks))}{spread}"]
    higher = [(row, size, tracked) for row, size, tracked in peaks if size > tracked]
    lines += _bytes_lines(f"reversed: peak of {mode}", higher, name)
    saved = beside_tracked(rows, mode, "saved_bytes")
    if saved:
        kept = sorted({tracked for _, _, tracked in saved})
        amounts = " to ".join(dict.fromkeys(map(bytes_text, (kept[0], kept[-1]))))
        lines.append(
            f"kept for backward: {amounts} tracked, nothing by {mode}{on_groups(sum(not own for _, own, _ in saved), len(saved))}"
        )
    return _counted(len(shares), len(peaks), len(higher)), lines + _other_kernels([row for row, *_ in peaks], name)


def _time(rows: list[Row]) -> _Found:
    mode, name = switch_of(rows), namer(rows)
    found = by_allocator(rows, mode)
    if not found:
        return _missing("--modes tracked,no_grad", _untrusted(rows, name))
    lines = _timing_lines(rows, mode, name)
    sizes = by_size(next(iter(found.values())), (row for row in rows if row["mode"] == BASELINE))
    if sizes:
        lines.append(f"{'fades as kernels grow' if fades(sizes) else 'by size'} (geometric means): {sizes_text(sizes)}")
    lines += _other_kernels([row for some in found.values() for row in some], name) + _untrusted(rows, name)
    verdicts = {title: _timing_verdict(some) for title, some in found.items()}
    first, *others = verdicts.items()
    return "; ".join([first[1], *(f"{title}: {verdict}" for title, verdict in others if verdict != first[1])]), lines


def _no_history(rows: list[Row], gone: Sequence[Unmeasured]) -> _Found:
    held, total, _ = _judged(rows, gone, (BASELINE,), _HISTORY)
    tracked = [f"outputs of tracked with history in {of_all(held, total, 'case')}"] if total else []
    return _by_contract(rows, gone, _WITHOUT_HISTORY, _HISTORY, "outputs without history", tracked)


def _restored(rows: list[Row], gone: Sequence[Unmeasured]) -> _Found:
    walk = [f"after an exception, nested, as decorator: {WALKTHROUGH}"]
    return _by_contract(rows, gone, SWITCHES, _OUTLIVED, "gradients on again after the call", walk)


def _outside(rows: list[Row], gone: Sequence[Unmeasured]) -> _Found:
    walk = [f"judged by grad_fn; what requires_grad says, of views too: {WALKTHROUGH} --modes"]
    return _by_contract(rows, gone, SWITCHES, _HISTORY, "no grad_fn and nothing saved", walk)


def _detached(rows: list[Row], gone: Sequence[Unmeasured]) -> _Found:
    saved = beside_tracked(rows, "detach", "saved_bytes")
    same = sum(own == tracked for _, own, tracked in saved)
    kept = [f"the call keeps for backward what tracked keeps{on_groups(same, len(saved))}, to the byte"] if saved else []
    walk = [f"the same storage, and the original in the graph: {WALKTHROUGH}"]
    return _by_contract(rows, gone, ("detach",), _HISTORY, "outputs without history", kept + walk)


def _by_contract(
    rows: list[Row], gone: Sequence[Unmeasured], modes: Sequence[str], words: Sequence[str], shown: str, beside: list[str]
) -> _Found:
    """A claim that the contract of every measured case of `modes` tests."""
    held, total, broken = _judged(rows, gone, modes, words)
    if not total:
        return _missing(f"--modes tracked,{modes[0]}")
    there = [mode for mode in modes if mode in {row["mode"] for row in rows} | {one.case.mode for one in broken}]
    lines = [f"{shown} in {of_all(held, total, 'case')} of {few(there)}"]
    lines += [one_line(f"broken: {one.case.model} {one.case.size} {one.case.mode}: {one.reason}") for one in broken]
    return _counted(held, total, 0, "case"), lines + beside


def _judged(
    rows: list[Row], gone: Sequence[Unmeasured], modes: Sequence[str], words: Sequence[str]
) -> tuple[int, int, list[Unmeasured]]:
    """In how many cases of `modes` the contract holds, of how many, and those that broke it for a reason with one of `words`."""
    judged = [row["contract_holds"] for row in rows if row["mode"] in modes and row["contract_holds"] is not None]
    broken = [
        one for one in gone
        if one.status == "broken_contract" and one.case.mode in modes and any(word in one.reason for word in words)
    ]  # fmt: skip
    return sum(judged), len(judged) + len(broken), broken


def _evaluation(rows: list[Row]) -> _Found:
    found = readable(rows, "evaluation")
    mode, name = switch_of(found), namer(found)
    saved = beside_tracked(found, mode, "saved_bytes")
    if not saved:
        return _missing("--scenarios evaluation")
    lines = _bytes_lines(f"eval() alone goes on saving for backward; saved with {mode}", saved, name)
    lines += _bytes_lines(f"peak over the loop with {mode}", beside_tracked(found, mode, "peak_tensor_bytes"), name)
    lines += _timing_lines(found, mode, name) + _other_kernels((row for row in found if row["mode"] == mode), name)
    changed = {
        name(row): row["changed_buffers"].split()
        for row in found
        if row["mode"] == "forgot_eval" and row.get("changed_buffers")
    }
    lines += [
        f"no_grad without eval() changes {len(buffers)} buffers ({where}: {few(buffers, 2)})"
        for where, buffers in changed.items()
    ]
    lines += _untrusted(found, name)
    return _counted(sum(tracked > own for _, own, tracked in saved), len(saved), 0), lines


def _block_or_tensor(forward: list[Row], rows: list[Row]) -> _Found:
    mode, name = switch_of(forward), namer(forward)
    peaks = {name(row): (own, tracked) for row, own, tracked in beside_tracked(forward, "detach", "peak_tensor_bytes")}
    switched = {name(row): own for row, own, _ in beside_tracked(forward, mode, "peak_tensor_bytes")}
    both = [group for group in peaks if group in switched]
    if not both:
        return _missing("--modes tracked,no_grad,detach", _single_tensors(rows))
    nothing = [group for group in both if peaks[group][0] >= peaks[group][1]]
    holds = [group for group in nothing if switched[group] < peaks[group][1]]
    lines = [
        f"blocks: detach saves nothing at the peak{on_groups(len(nothing), len(both))}, where {mode} does{f' on {len(holds)}' if len(both) > 1 else ''}"
    ]
    return _counted(len(holds), len(both), 0), lines + _timing_lines(forward, "detach", name) + _single_tensors(rows)


def _single_tensors(rows: list[Row]) -> list[str]:
    """Where one tensor is taken out of the graph: what is held, or needed at the peak, with and without detach."""
    lines = []
    for scenario, what, column in (
        ("loss_logging", "held", "held_tensor_bytes"),
        ("target_network", "peak", "peak_tensor_bytes"),
    ):
        found = readable(rows, scenario)
        read = beside_tracked(found, "detach", column)
        lines += _bytes_lines(f"single tensors: {scenario}, {what} with detach", read, namer(found))
        if not read:
            lines.append(f"single tensors: {scenario} {NOT_MEASURED} (pytest --benchmark --scenarios {scenario})")
    return lines


def _bytes_lines(text: str, read: Sequence[tuple[Row, int, int]], name: Name) -> list[str]:
    """The groups with the most bytes, what a mode needs of them against tracked."""
    ordered = sorted(read, key=lambda one: -one[2])
    lines = [
        f"{text} {bytes_text(own)}, tracked {bytes_text(tracked)} ({name(row)})"
        for row, own, tracked in ordered[:_WORTH_A_LINE]
    ]
    return lines + ([f"and {len(read) - _WORTH_A_LINE} more groups"] if len(read) > _WORTH_A_LINE else [])


def _timing_lines(rows: list[Row], mode: str, name: Name) -> list[str]:
    return [
        f"{'' if title == 'speedup' else f'{title}: '}{mode} {tally_text(found)}: {span(found, name)}"
        for title, found in by_allocator(rows, mode).items()
    ]


def _timing_verdict(rows: list[Row]) -> str:
    counts = tally(rows)
    if counts["faster"] or counts["slower"]:
        return _counted(counts["faster"], len(rows), counts["slower"])
    return "no difference" if counts["same"] == len(rows) else "unclear"


def _counted(holding: int, total: int, opposite: int, unit: str = "group") -> str:
    if holding == total:
        return "holds"
    text = f"holds for {of_all(holding, total, unit)}" if holding else "does not hold"
    return f"{text}, reversed for {opposite}" if opposite else text


def _missing(options: str, beside: Sequence[str] = ()) -> _Found:
    return NOT_MEASURED, [f"pytest --benchmark {options} would measure it", *beside]


def _other_kernels(rows: Iterable[Row], name: Name) -> list[str]:
    changed = [name(row) for row in rows if row["same_kernels"] is False]
    return [f"other kernels than tracked, so not tracking alone: {few(changed)}"] if changed else []


def _untrusted(rows: Sequence[Row], name: Name) -> list[str]:
    groups = untrusted_groups(rows, name)
    return [f"untrusted, so not counted: {few(groups)}"] if groups else []
