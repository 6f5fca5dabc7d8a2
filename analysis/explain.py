"""Where one case's saved bytes go: a tree of modules with bars, then operators, theory and kernels. A record in, text out."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from analysis.figures import bytes_text, count_text, ratio_text, seconds_text
from analysis.render import WIDTH
from benchmarks.record import Kernels, Memory, Result, SavedBy

_BAR_WIDTH = 24
_PATH_WIDTH = WIDTH - _BAR_WIDTH - 22


def explain(results: Sequence[Result]) -> str:
    """One case by each of its allocators, whose memory is the same. At most 100 columns.

    A module's bytes include those of the modules inside it; shares are of all that was saved.
    """
    result = results[0]
    memory, case = result.memory, result.case
    total = memory.saved_bytes or 0
    where = f"{case.model} {case.size} {case.mode} ({case.scenario}, {case.device}, {case.dtype})"
    lines = [f"{where}: {bytes_text(memory.saved_bytes)} saved for backward"]
    if total:
        lines += ["", "by module", *_bars(_tree(memory.saved_by_module), total)]
        lines += ["", "by operator", *_bars(((part.name, part.bytes) for part in memory.saved_by_operator), total)]
    lines += ["", *_apart(memory), *_theory(memory), *_graph(memory), *_kernels(result.kernels)]
    if result.cold_seconds is not None:
        lines.append(
            f"first call in a fresh process: {seconds_text(result.cold_seconds, None)}; then {seconds_text(result.seconds, None)}"
        )
    lines += [line for one in results for line in _processes(one)]
    return "\n".join(lines)


def _tree(parts: Iterable[SavedBy]) -> list[tuple[str, int]]:
    """Every module on the way to a saver, indented below its parent, the largest first."""
    sizes: Counter[tuple[str, ...]] = Counter()
    for part in parts:
        path = tuple(part.name.split("."))
        for depth in range(1, len(path) + 1):
            sizes[path[:depth]] += part.bytes

    def rank(path: tuple[str, ...]) -> list[tuple[bool, int, str]]:
        steps = (path[:depth] for depth in range(1, len(path) + 1))
        return [(step[0].startswith("("), -sizes[step], step[-1]) for step in steps]

    return [("  " * (len(path) - 1) + path[-1], sizes[path]) for path in sorted(sizes, key=rank)]


def _bars(parts: Iterable[tuple[str, int]], total: int) -> list[str]:
    return [
        f"  {name[:_PATH_WIDTH]:{_PATH_WIDTH}} {bytes_text(size):>9} {size / total:>5.1%} "
        f"{'#' * max(1, round(_BAR_WIDTH * size / total))}".rstrip()
        for name, size in parts
    ]


def _apart(memory: Memory) -> list[str]:
    if not memory.cast_saved_bytes:
        return []
    return [f"beside them: {bytes_text(memory.cast_saved_bytes)} in copies of parameters that autocast made in another dtype"]


def _theory(memory: Memory) -> list[str]:
    if memory.expected_saved_bytes is None or memory.saved_bytes is None:
        return []
    opaque = memory.opaque_saved_bytes or 0
    beside = f" beside {bytes_text(opaque)} of library workspace" if opaque else ""
    difference = memory.saved_bytes - opaque - memory.expected_saved_bytes
    found = (
        "exactly what was measured"
        if difference == 0
        else f"{abs(difference):,} B {'less' if difference > 0 else 'more'} than measured"
    )
    return [f"theory: {memory.expected_saved_bytes:,} B{beside}, {found}"]


def _graph(memory: Memory) -> list[str]:
    if memory.graph_nodes is None:
        return []
    heap = "" if memory.graph_heap_bytes is None else f", and {bytes_text(memory.graph_heap_bytes)} on the heap beyond tensors"
    return [f"graph: {memory.graph_nodes:,} nodes hang on the output{heap}"]


def _processes(result: Result) -> list[str]:
    """How far the processes that a case was timed in lie apart; as shipped each has a heap of its own."""
    found = result.processes
    if not found:
        return []
    placebos = [one.placebo for one in found if one.placebo is not None]
    faults = [one.page_faults for one in found if one.page_faults is not None]
    text = f"{result.case.allocator}, {len(found)} processes: {seconds_text(min(one.seconds for one in found), None)} to "
    text += f"{seconds_text(max(one.seconds for one in found), None)} a call"
    if faults:
        text += f", {count_text(min(faults))} to {count_text(max(faults))} page faults"
    if placebos:
        text += f"; identical code read {ratio_text(min(placebos))} to {ratio_text(max(placebos))}"
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")


def _kernels(kernels: Kernels) -> list[str]:
    if kernels.same_as_tracked is not False:
        return []
    changes = [
        f"{word} {', '.join(names)}" for word, names in (("added", kernels.added), ("removed", kernels.removed)) if names
    ]
    text = f"kernels: not tracked's: {'; '.join(changes) or 'the same operators, other bits in the result'}"
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")
