"""What the control groups around this process allow it of the CPU, and for how long they stopped it (Linux, versions 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def cpu_limit_cores(root: Path) -> float | None:
    """The tightest limit, in cores; None without one. Raises OSError where there are no control groups."""
    tightest = min(_of_each(root, _cores), default=math.inf)
    return tightest if math.isfinite(tightest) else None


def throttled_seconds(root: Path) -> float:
    """For how long limits have stopped these groups, summed over CPUs. Raises OSError or LookupError where nothing counts it."""
    counts = _of_each(root, _throttled_seconds)
    if not counts:
        raise LookupError("no control group counts throttled time")
    return sum(counts)


def _of_each(root: Path, read: Callable[[Path], float]) -> list[float]:
    """What `read` finds in this process's groups and in those around them, for a limit binds all that is within."""
    found = []
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = mount / path.lstrip("/")  # not to be found in a container that is told its host's names; its mount is
        for folder in (one for one in (group, *group.parents) if one.is_relative_to(mount)):
            with suppress(OSError, LookupError):
                found.append(read(folder))
    return found


def _cores(group: Path) -> float:
    if (group / "cpu.max").exists():
        quota, period = (group / "cpu.max").read_text().split()
    else:
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


def _throttled_seconds(group: Path) -> float:
    """Version 2 counts microseconds, version 1 nanoseconds."""
    counts = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(counts["throttled_usec"]) / 1e6 if "throttled_usec" in counts else int(counts["throttled_time"]) / 1e9
