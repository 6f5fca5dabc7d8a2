"""Where one case's memory and time go: saved bytes by module, the graph, kernels, the first call after other work, its processes."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from analysis.cases import JOB, TRACKED, seconds_noise
from analysis.figures import bytes_text, count_text, ratio_text, seconds_text
from analysis.read import AnalysisError, Run
from analysis.render import WIDTH
from benchmarks.record import Result, SavedBy

_BAR_WIDTH = 24
_PATH_WIDTH = WIDTH - _BAR_WIDTH - 22


def explain(run: Run, wanted: Mapping[str, str]) -> list[str]:
    """A text for each case with these fields, once for both allocators. Raises AnalysisError where there is none."""
    jobs: dict[tuple[str, ...], list[Result]] = {}
    for result in run.results:
        if all(getattr(result.case, name) == value for name, value in wanted.items()):
            jobs.setdefault(tuple(getattr(result.case, name) for name in (*JOB, "mode")), []).append(result)
    if not jobs:
        asked = " ".join(f"--{name} {value}" for name, value in wanted.items())
        measured = ", ".join(sorted({f"{result.case.model} {result.case.size}" for result in run.results})) or "nothing"
        raise AnalysisError(f"{run.path or run.name}: no case with {asked} (measured there: {measured})")
    return ["\n".join(_lines(run, results)) for results in jobs.values()]


def _lines(run: Run, results: Sequence[Result]) -> list[str]:
    """At most 100 columns. A module's bytes include those of the modules inside it; shares are of all that was saved."""
    first = results[0]
    case, memory, model = first.case, first.memory, first.model
    where = ", ".join(filter(None, (case.scenario, case.device, case.dtype, case.execution)))
    saved = {
        "{} of it in workspaces of libraries": memory.opaque_saved_bytes,
        "beside it {} in copies of parameters that autocast made": memory.cast_saved_bytes,
        "+ input {}": memory.input_saved_bytes,
    }
    parts = ", ".join(words.format(bytes_text(size)) for words, size in saved.items() if size)
    beside = f" ({parts})" if parts else ""
    of_all = f" in all {first.steps} steps" if first.steps > 1 else ""
    lines = [f"{case.model} {case.size} {case.mode} ({where}): saved {bytes_text(memory.saved_bytes)}{of_all}{beside}"]
    if memory.saved_bytes and memory.saved_by_module:
        lines += ["", *_tree(memory.saved_by_module, memory.saved_bytes), ""]
    steps = {"tensors": memory.held_bytes_per_step, "the heap beyond tensors": memory.heap_bytes_per_step}
    growth = ", ".join(f"{bytes_text(size)} in {place}" for place, size in steps.items() if size)
    peak = f"memory: peak {bytes_text(memory.peak_tensor_bytes)}, held by the output {bytes_text(memory.held_tensor_bytes)}"
    lines.append(f"{peak}; more with each step: {growth}" if growth else peak)
    if memory.peak_rss_bytes is not None:
        kept = "nothing that shows" if memory.kept_rss_bytes is None else bytes_text(memory.kept_rss_bytes)
        rise = f"rises by {bytes_text(memory.peak_rss_bytes)} during a call"
        lines.append(f"resident memory: {rise}; {kept} stays afterwards (as_shipped)")
    if memory.graph_nodes is not None:
        lines.append(f"graph: {memory.graph_nodes:,} nodes hang on the output")
    lines += [f"not known: {name}, {reason}" for name, reason in memory.unavailable.items()]
    if first.kernels.same_as_tracked is False:
        named = (("added", first.kernels.added), ("removed", first.kernels.removed))
        changes = [f"{word} {', '.join(names)}" for word, names in named if names]
        lines.append(f"kernels: not tracked's: {'; '.join(changes) or 'the same operators, other bits in the result'}")
    inputs = ", ".join(model.inputs) or "none"
    lines.append(f"model: {model.parameters:,} parameters, {bytes_text(model.parameter_bytes)}; inputs {inputs}")
    if first.compile_seconds is not None:
        again = [str(result.recompilations) for result in results if result.recompilations is not None]
        turns = f"; {again[0]} compilations more while modes took turns" if again else ""
        lines.append(f"compiled by the first call: {seconds_text(first.compile_seconds, 0.01)} with empty caches{turns}")
    for result in results:
        lines += [_processes(result), *_after_switch(run, result)]
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent="  ").wrap
    return [part for line in lines for part in (wrap(line) if len(line) > WIDTH else [line])]


def _tree(parts: Iterable[SavedBy], total: int) -> Iterator[str]:
    """A bar for every module on the way to a saver, indented below its parent, the largest first; names in brackets, no modules, last."""
    sizes: Counter[tuple[str, ...]] = Counter()
    for part in parts:
        path = tuple(part.name.split("."))
        for depth in range(1, len(path) + 1):
            sizes[path[:depth]] += part.bytes

    def rank(path: tuple[str, ...]) -> list[tuple[bool, int, str]]:
        steps = (path[:depth] for depth in range(1, len(path) + 1))
        return [(step[0].startswith("("), -sizes[step], step[-1]) for step in steps]

    for path in sorted(sizes, key=rank):
        name, size = "  " * (len(path) - 1) + path[-1], sizes[path]
        bar = "#" * max(1, round(_BAR_WIDTH * size / total))
        yield f"  {name[:_PATH_WIDTH]:{_PATH_WIDTH}} {bytes_text(size):>9} {size / total:>5.1%} {bar}"


def _processes(result: Result) -> str:
    """The time of a call, and how far the processes that it was read in lie apart."""
    text = f"{result.case.allocator}: {seconds_text(result.seconds, seconds_noise(result))} a call"
    readings = result.processes
    if len(readings) > 1:
        seconds = [reading.seconds for reading in readings]
        number = len({reading.launch for reading in readings})
        text += f"; {len(readings)} processes of {number} launch{'es' * (number > 1)}"
        text += f" read {seconds_text(min(seconds), 0)} to {seconds_text(max(seconds), 0)}"
    faults = [reading.page_faults for reading in readings if reading.page_faults is not None]
    if any(faults):
        text += f", {count_text(min(faults))} to {count_text(max(faults))} page faults"
    placebos = [reading.placebo for reading in readings if reading.placebo is not None]
    if len(placebos) > 1:
        text += f"; the control read {ratio_text(min(placebos))} to {ratio_text(max(placebos))}"
    return text


def _after_switch(run: Run, result: Result) -> Iterator[str]:
    """What the first call after other work takes in each mode, such as an evaluation step between training steps."""
    if result.after_switch_seconds is None:
        return
    group = {other.case.mode: other.after_switch_seconds for other in run.results if other.case.group == result.case.group}
    tracked = group.get(TRACKED)
    texts = []
    for mode, seconds in group.items():
        ratio = f" ({ratio_text(tracked / seconds)} times as fast)" if tracked and seconds and mode != TRACKED else ""
        texts += [f"{mode} {seconds_text(seconds)}{ratio}"] if seconds else []
    if result.host_seconds is not None:
        yield f"  a call that is waited for takes: {', '.join(texts)}"
    else:
        steady = f"after {result.washout_calls} calls" if result.washout_calls else "from the first call on"
        yield f"  the first call after other work: {', '.join(texts)}; a loop is steady {steady}"
