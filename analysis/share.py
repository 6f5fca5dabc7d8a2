"""A run as a small file for others: what it holds, where it goes, and whether it is fit to be shared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from analysis.cases import is_context
from analysis.figures import percent_text
from analysis.find import RESULTS, writing
from analysis.read import Run, read
from benchmarks.record import GROUP, PAGES_KEPT, SCHEMA, to_json
from benchmarks.saving import write_whole

MOST_NOISE = 0.05
"""The control tells apart what differs by this fraction in the median group, and has failed in at most this fraction of groups."""

_MACHINE = ("system", "release", "machine", "python_implementation", "python_version")
_PROCESSOR = ("brand_raw", "arch", "count", "l2_cache_size", "l3_cache_size")
_TEXTS = ("warnings", "cpu_governor", "gpu_slowed_by")
"""Conditions that are shared beside numbers."""

_PERSONAL = re.compile(
    r"(?:[A-Za-z]:)?[/\\](?:home|Users)[/\\][^\s'\"/\\]+"  # somebody's home
    r"|(?<=['\"])(?:~|[A-Za-z]:)?[/\\][^'\"]*[/\\]"  # folders in front of a name, where a quotation says how far they go
    r"|(?<![\w./:])(?:file://)?(?:~|[A-Za-z]:)?[/\\](?:[^\s'\"/\\]+[/\\])+"  # and elsewhere
    r"|(?:[\w.-]+[/\\])+(?=[\w.-]+\.py\b)"  # and those of a module, from here
    r"|[\w.+-]+@[\w.-]+"  # an address, such as that of who built a driver
    r"|(?<=GPU-)[0-9a-f-]+"  # a card's serial number
)
"""What texts lose. It cannot know the names that somebody gave to models."""


def shared(run: Run) -> dict[str, Any]:
    """What is shared of the run, in the form of a saved file. Rounds, commands and the names of computers, people and folders are not."""
    plain = int | float | None
    conditions = {name: value for name, value in run.conditions.items() if name in _TEXTS or isinstance(value, plain)}
    values = {
        "datetime": run.saved_at,
        "commit_info": {"id": run.commit.removesuffix("+"), "dirty": run.commit.endswith("+")},
        "machine_info": {
            **_only(run.machine, _MACHINE),
            "cpu": _only(run.machine.get("cpu", {}), _PROCESSOR),
            "gradtax": run.machine.get("gradtax", {}),
        },
        "gradtax": {"schema": SCHEMA, "conditions": conditions, "unmeasured": to_json(run.unmeasured)},
        "benchmarks": [{"name": str(result.case), "extra_info": to_json(result)} for result in run.results],
    }
    impersonal: dict[str, Any] = _impersonal(values)
    return impersonal


def _only(facts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: facts[name] for name in names if name in facts}


def _impersonal(value: Any) -> Any:
    if isinstance(value, str):
        without = _PERSONAL.sub("", value)
        return without if without == value else _impersonal(without)
    if isinstance(value, dict):
        return {_impersonal(key): _impersonal(inner) for key, inner in value.items()}
    return [_impersonal(inner) for inner in value] if isinstance(value, list) else value


def unfit(run: Run) -> list[str]:
    """Why the run is not fit to be shared, empty where it is: it is not whole, or its own control says that the machine was too noisy."""
    if run.conditions.get("unfinished"):
        return [f"unfinished: {run.conditions['unfinished']}"]
    frame = run.frame[run.frame["placebo"].notna() & ~is_context(run.frame)].drop_duplicates(list(GROUP))
    if frame.empty:
        return ["it has no speedups; measure tracked and another mode"]
    is_kept = frame["allocator"].eq(PAGES_KEPT)  # as shipped, heaps scatter on any machine
    finest = float(frame[is_kept if is_kept.any() else ~is_kept]["resolution"].median())
    failed = int((~frame["trusted"].astype(bool)).sum())
    reasons = []
    if finest > MOST_NOISE:
        reasons.append(f"its control cannot tell apart what differs by less than {percent_text(finest)} (median group)")
    if failed > MOST_NOISE * len(frame):
        reasons.append(f"its control failed in {failed} of {len(frame)} groups")
    advice = f"{percent_text(MOST_NOISE)} are allowed; close other programs and measure again"
    return [f"too noisy: {reason}; {advice}" for reason in reasons]


def refusals(path: Path) -> list[str]:
    """Why a file is not fit to be shared, empty where it is. Raises AnalysisError where it is no run."""
    run = read(path)
    place = next(_beyond(json.loads(path.read_bytes()), shared(run)), None)
    advice = f"write the file with `python -m analysis share {path} -o {path}`"
    return [*([f"{place}: is more than what is shared; {advice}"] if place else []), *unfit(run)]


def _beyond(found: Any, expected: Any, place: str = "") -> Iterator[str]:
    """Where `found` is not `expected`, or more. What it lacks is none: a field may be younger than the file."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name, value in found.items():
            yield from _beyond(value, expected.get(name), f"{place}.{name}".removeprefix("."))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, pair in enumerate(zip(found, expected, strict=True)):
            yield from _beyond(*pair, f"{place}[{number}]")
    elif found != expected:
        yield place


@writing()
def write(run: Run, path: Path | None = None) -> Path:
    """Writes what is shared to `path`, by default `results/DATE/MACHINE.json`, where no other run's file is replaced. Returns the path."""
    content = _lines(shared(run)).encode()
    chosen = path or next(free for free in _places(run) if not free.exists() or free.read_bytes() == content)
    chosen.parent.mkdir(parents=True, exist_ok=True)
    write_whole(chosen, content)
    return chosen


def _places(run: Run) -> Iterator[Path]:
    """One after the other; a date and a machine may have several runs."""
    machines = dict.fromkeys(run.identity(result.case.device)["machine"] for result in run.results)
    date, name = (re.sub(r"\W+", "-", text).strip("-").lower() for text in (run.saved_at[:10], " ".join(machines)[:80]))
    for number in count(1):
        yield RESULTS / (date or "undated") / f"{name or 'machine'}{f'-{number}' if number > 1 else ''}.json"


def _lines(values: dict[str, Any]) -> str:
    """JSON with a line per benchmark, behind a head that can be read."""
    head = json.dumps({name: value for name, value in values.items() if name != "benchmarks"}, indent=1)
    benchmarks = ",\n".join(json.dumps(benchmark) for benchmark in values["benchmarks"])
    return f'{head[:-2]},\n "benchmarks": [\n{benchmarks}\n ]\n}}\n'
