"""What a run tells about its machine and its conditions, and what it could not measure. Run in, texts and tables out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from analysis.figures import bytes_text, count_text
from analysis.render import Column, Section, Table
from benchmarks.record import Case, Row

if TYPE_CHECKING:
    from analysis.load import Run

CASE = ("scenario", "model", "size", "device", "dtype", "allocator", "mode")
_TITLES = {"wall": "whole run", "measured": "of it timing", "budget": "budget per group"}
_SHOWN_APART = ("meters", "warnings", "command")


def when(run: Run) -> str:
    """`22 November 2026, 23:34 UTC`; what stands in the file where that is no time."""
    try:
        return f"{datetime.fromisoformat(run.saved_at or ''):%-d %B %Y, %H:%M %Z}".strip()
    except ValueError:
        return run.saved_at or "time unknown"


def identity(run: Run, rows: Sequence[Row]) -> list[str]:
    """Machine, time, build and commit, in a few words each; without what is not known."""
    machines, builds, threads = (
        list(dict.fromkeys(row[name] for row in rows if row[name])) for name in ("machine", "torch", "threads")
    )
    told = (
        " and ".join(machines),
        when(run),
        *(f"torch {build}" for build in builds),
        *(f"{number} thread{'' if number == 1 else 's'}" for number in threads),
        f"run {run.name}",
        f"commit {run.commit}" if run.commit else "",
    )
    return [text for text in told if text]


def warnings(run: Run) -> list[str]:
    """What harmed the measurement, and where its meters disagree."""
    told = run.conditions.get("warnings")
    found = [str(one) for one in told] if isinstance(told, list) else []
    return [*found, *(f"meters disagree: {words}" for words in run.broken_invariants)]


def conditions_table(run: Run) -> Table:
    """Name and value: what identifies the machine and the build, then what varies from run to run. Without what is not known."""
    machine, ours = run.machine_info, run.machine_info.get("gradtax")
    cpu = machine.get("cpu")
    brand = (cpu.get("brand_raw"), cpu.get("hz_advertised_friendly")) if isinstance(cpu, dict) else ()
    system = (machine.get(name) for name in ("system", "release", "machine"))
    command = run.conditions.get("command")
    lines = {
        "cpu": ", ".join(str(one) for one in brand if one),
        "system": " ".join(str(one) for one in system if one),
        "python": str(machine.get("python_version") or ""),
        **dict(_lines(ours if isinstance(ours, dict) else {})),
        "command": " ".join(str(word) for word in command) if isinstance(command, list) else "",
        **dict(_lines({name: value for name, value in run.conditions.items() if name not in _SHOWN_APART})),
        "memory meters": _meters(run.conditions.get("meters")),
        "benchmarks of other tests": f"{run.foreign} skipped" if run.foreign else "",
        "file": str(run.path),
    }
    rows = [[name, text] for name, text in lines.items() if text]
    return Table([Column("what", text=True), Column("value", text=True)], (), [Section("", (), rows)])


def unmeasured_table(run: Run) -> Table:
    """A row per case without figures, and one per figure that was withheld, each with its reason."""
    rows = [[*_fields(one.case), one.status, one.reason] for one in run.unmeasured]
    for result in run.results:
        rows += [[*_fields(result.case), f"withheld: {name}", reason] for name, reason in result.memory.unavailable.items()]
    columns = [Column(title, text=True) for title in (*CASE, "what happened", "reason")]
    return Table(columns, (), [Section("", (), rows)] if rows else [])


def _fields(case: Case) -> list[str]:
    return [getattr(case, name) for name in CASE]


def _lines(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each fact; a fact inside another has both names. Units are those that end the names."""
    for name, value in facts.items():
        title = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            yield from _lines(value, "" if name == "devices" else f"{title} ")
        elif isinstance(value, list):
            yield title, ", ".join(str(one) for one in value)
        elif value is not None:
            yield _with_unit(title, value)


def _with_unit(title: str, value: Any) -> tuple[str, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, int) and number and title.endswith(" bytes"):
        return title.removesuffix(" bytes"), bytes_text(value)
    for ending, unit in ((" seconds", "s"), (" percent", "%"), (" celsius", "°C")):
        if number and title.endswith(ending):
            name = title.removesuffix(ending)
            return _TITLES.get(name, name), f"{value:.4g} {unit}"
    if isinstance(value, bool):
        return title, "yes" if value else "no"
    return title, f"{value:.4g}" if isinstance(value, float) else str(value)


def _meters(readings: Any) -> str:
    """How many known blocks the memory meters read as they should."""
    if not isinstance(readings, list) or not readings:
        return ""
    held = [one for one in readings if isinstance(one, dict) and one.get("within_tolerance")]
    return f"{count_text(len(held))} of {count_text(len(readings))} known blocks read within the meter's tolerance"
