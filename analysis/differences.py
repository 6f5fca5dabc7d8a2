"""What tells two runs apart besides their figures: the build, the machine, the settings, and the load while they ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from analysis.figures import MISSING
from analysis.load import Run

SETTINGS = ("command", "budget_seconds", "precision", "in_process", "cpu_limit_cores", "cpu_governor", "turbo", "on_battery")
"""Of a run's conditions, those that were chosen; the others vary by themselves."""

SAME_FOR_SECONDS = ("CPU", "cpu capability", "threads", "cpu_limit_cores", "cpu_governor", "turbo", "on_battery")
"""What must agree, beside everything told of the devices, before seconds of two runs may stand side by side."""

_VALUE_WIDTH = 60


def differences(base: Run, head: Run) -> list[str]:
    """A line for each fact that differs, `torch  2.13.0+cpu -> 2.14.0+cpu`, and a last one for the load if it does."""
    lines = [_line(name, *values) for name, values in _both(_facts(base), _facts(head)).items() if values[0] != values[1]]
    loads = [_text(run.conditions.get("load_average_at_start")) for run in (base, head)]
    return [*lines, *([_line("load at the start", *loads)] if loads[0] != loads[1] else [])]


def other_machine(base: Run, head: Run) -> str | None:
    """In which facts the two machines differ, or are not known to agree; None where their seconds may be compared."""
    both = _both(_facts(base), _facts(head))
    apart = [
        name for name, (one, other) in both.items() if (name in SAME_FOR_SECONDS or name.startswith("device ")) and one != other
    ]
    unknown = [name for name in ("CPU", "threads") if MISSING in both.get(name, (MISSING,))]
    return ", ".join(dict.fromkeys([*apart, *unknown])) or None


def cut(text: str, width: int) -> str:
    """In one line of at most `width` characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _line(name: str, base: str, head: str) -> str:
    return f"{name}  {base} -> {head}"


def _both(base: Mapping[str, str], head: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {
        name: (base.get(name, MISSING), head.get(name, MISSING))
        for name in (*base, *(name for name in head if name not in base))
    }


def _facts(run: Run) -> dict[str, str]:
    machine = run.machine_info
    cpu = machine.get("cpu")
    facts = {
        "commit": run.commit,
        "python": machine.get("python_version"),
        "system": f"{machine.get('system', MISSING)} {machine.get('release', '')}".strip(),
        "CPU": cpu.get("brand_raw") if isinstance(cpu, Mapping) else None,
        **dict(_flat(machine.get("gradtax"))),
        **{name: run.conditions.get(name) for name in SETTINGS},
        "command": _command(run.conditions.get("command")),
    }
    return {name: _text(value) for name, value in facts.items()}


def _command(words: Any) -> Any:
    """Without the folder in which pytest lies."""
    return [str(words[0]).rpartition("/")[2], *words[1:]] if isinstance(words, list) and words else words


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The facts inside facts by the words on the way to them: `devices: {cpu: {cores: 2}}` gives `device cpu cores`."""
    if not isinstance(value, Mapping):
        yield name.strip(), value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{name} {'device' if key == 'devices' else str(key).replace('_', ' ')}")


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, float):
        value = f"{value:.3g}"
    return MISSING if value in (None, "") else cut(str(value), _VALUE_WIDTH)
