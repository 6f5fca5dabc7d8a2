"""Jobs that are measured in no time, always alike, and a run of them that can be killed wherever it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import saving
from benchmarks.journal import Journal, JournalError, unfinished
from benchmarks.record import (
    Case,
    Contract,
    Group,
    GroupResult,
    Interval,
    Kernels,
    Memory,
    ModelFacts,
    Result,
    Timed,
    Unmeasured,
    to_json,
)

FACTS = {"torch": "2.13.0", "code of the suite": "0123"}
WRITING = ("write", "fsync", "link", "replace", "rename", "unlink", "ftruncate", "open")
"""Functions of `os` by which a run changes a disk."""


@dataclass(frozen=True)
class StandInJob:
    """What the journal needs of a job."""

    model: str
    modes: tuple[str, ...] = ("tracked", "detach", "no_grad")
    allocators: tuple[str, ...] = ("pages_kept", "as_shipped")

    def group(self, allocator: str) -> Group:
        return Group(scenario="forward", model=self.model, size="tiny", device="cpu", dtype="float32", allocator=allocator)


def jobs(number: int) -> list[Any]:
    return [StandInJob(f"model_{each}") for each in range(number)]


def measured(chosen: Iterable[Any]) -> Iterator[GroupResult]:
    """Times for tracked and detach, and none for no_grad."""
    for job in chosen:
        for name in job.allocators:
            group = job.group(name)
            times = [Timed(_result(group.case(mode)), [1e-4, 1.25e-4], 3) for mode in ("tracked", "detach")]
            yield GroupResult(group, times, [Unmeasured(group.case("no_grad"), "unsupported", "it cannot")])


def _result(case: Case) -> Result:
    is_tracked = case.mode == "tracked"
    return Result(
        case=case, seconds=1.1e-4, speedup=Interval(1.0, 1.0, 1.0) if is_tracked else Interval(1.25, 1.2, 1.3),
        verdict="baseline" if is_tracked else "faster", placebo=Interval(1.0, 0.99, 1.01), trusted=True, resolution=0.01, washout_calls=2, after_switch_seconds=None, page_faults=0.0, memory=Memory(saved_bytes=8192),
        contract=Contract(holds=True), kernels=Kernels(same_as_tracked=True), model=ModelFacts(16640, 66560),
    )  # fmt: skip


def run_to_the_end(
    folder: Path, chosen: Sequence[Any], measure: Callable[[Iterable[Any]], Iterator[GroupResult]] = measured
) -> Path:
    """A run that begins, or goes on where there is one to go on with, is saved and removes its journal; as a session does. Returns the file."""
    resume = bool(unfinished(folder))
    journal = Journal.resume(folder, chosen, FACTS) if resume else Journal.begin(folder, chosen, FACTS, "pytest --resume")
    groups = [*journal.groups, *journal.kept(measure(journal.begun(journal.missing)))]
    content = {"groups": [to_json(group) for group in groups], "journal": journal.path.stem}
    saved = saving.save_numbered(folder, "run", json.dumps(content).encode())
    journal.remove()
    journal.close()
    return saved


def killed_at(folder: Path, chosen: Sequence[Any], call: int, *, before: bool) -> bool:
    """Forks a run that ends with its process at its `call`-th change of the disk, before or after it. False where it has fewer."""
    child = os.fork()
    if child == 0:
        try:
            _end_at(call, before=before)
            run_to_the_end(folder, chosen)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED


def gone_on_with(folder: Path, chosen: Sequence[Any]) -> Path:
    """The run that a killed one has become, or becomes by going on; it is begun anew where no job had been begun."""
    saved = next(folder.glob("*.json"), None)
    if saved is not None and not unfinished(folder):
        return saved
    try:
        return run_to_the_end(folder, chosen)
    except JournalError:
        if saved is not None:
            return saved
        for path in unfinished(folder):
            if b"begun" not in path.read_bytes():
                path.unlink()
        return run_to_the_end(folder, chosen)


def groups_of(saved: Path) -> Any:
    return json.loads(saved.read_text())["groups"]


KILLED = 99


def _end_at(call: int, *, before: bool) -> None:
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call and before:
                os._exit(KILLED)
            result = function(*args, **kwargs)
            if calls == call:
                os._exit(KILLED)
            return result

        return wrapper

    for name in WRITING:
        setattr(os, name, counted(getattr(os, name)))
