"""What a run says of its machine: its name, a line that identifies the run, all facts as pairs, and in what two runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from analysis.figures import MISSING, bytes_text, short_text
from analysis.read import Run

_UNITS = {"_seconds": "s", "_percent": "%", "_celsius": "°C", "_bytes": "B"}


def identity(run: Run) -> str:
    """Machine, build, threads, time, run and commit in one line, without what is not known."""
    facts = run.machine.get("gradtax", {})
    devices = dict.fromkeys(run.device_name(result.case.device) for result in run.results)
    threads = run.conditions.get("threads") or facts.get("threads")
    known = (
        " and ".join(filter(None, devices)),
        f"torch {facts['torch']}" if facts.get("torch") else "",
        f"{threads} thread{'' if threads == 1 else 's'}" if threads else "",
        run.saved_at[:16].replace("T", " "),
        f"run {run.name}" if run.name else "",
        f"commit {run.commit}" if run.commit else "",
    )
    return ", ".join(filter(None, known))


def facts(run: Run) -> dict[str, str]:
    """Name and text of what identifies the machine and the build, then of what varies from run to run. Without what is not known."""
    varying = {name: value for name, value in run.conditions.items() if name not in ("warnings", "meters", "unfinished")}
    texts = _identifying(run.machine) | dict(_flat(varying))
    if blocks := run.conditions.get("meters", []):
        right = sum(block.get("within_tolerance") is True for block in blocks)
        known = f"{right} of {len(blocks)} blocks of known size read right"
        texts["memory meters"] = f"{known}; a meter that is off gives no figure"
    return {name: text for name, text in texts.items() if text}


def differs(base: Run, head: Run) -> list[str]:
    """A line for each fact in which machine, build or commit differ: `torch: 2.13.0+cpu -> 2.14.0+cpu`."""
    one, other = ({"commit": run.commit, **_identifying(run.machine)} for run in (base, head))
    lines = []
    for name in dict.fromkeys([*one, *other]):
        was, now = (short_text(texts.get(name) or MISSING, most=60) for texts in (one, other))
        lines += [f"{name}: {was} -> {now}"] if one.get(name, "") != other.get(name, "") else []
    return lines


def _identifying(machine: Mapping[str, Any]) -> dict[str, str]:
    return {
        "processor": str(machine.get("cpu", {}).get("brand_raw") or ""),
        "system": " ".join(str(machine[name]) for name in ("system", "release", "machine") if machine.get(name)),
        "python": str(machine.get("python_version") or ""),
        **dict(_flat(machine.get("gradtax", {}))),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each fact; what lies inside another is called by both names, and a unit leaves the name for the text."""
    for key, value in values.items():
        name, unit = f"{prefix}{key}", ""
        if isinstance(value, Mapping):
            yield from _flat(value, "" if key == "devices" else f"{name} ")
            continue
        if isinstance(value, bool):
            text = "yes" if value else "no"
        elif isinstance(value, int | float):
            unit = next((ending for ending in _UNITS if name.endswith(ending)), "")
            number = f"{value:.4g}" if isinstance(value, float) else str(value)
            text = bytes_text(int(value)) if unit == "_bytes" else f"{number} {_UNITS[unit]}" if unit else number
        else:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
        yield name.removesuffix(unit).replace("_", " "), text
