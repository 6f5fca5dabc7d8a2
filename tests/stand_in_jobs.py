"""Jobs that are measured in no time, always alike, and a run of them that can be killed wherever it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import record, saving
from benchmarks.journal import Journal, JournalError, unfinished
from benchmarks.models import Source
from benchmarks.plan import Job
from benchmarks.record import AS_SHIPPED, FORWARD, PAGES_KEPT, Case, GroupResult, Interval, Timed, Unmeasured, to_json

FACTS: dict[str, Any] = {"torch": "2.13.0", "code of the suite": "0123"}
WRITING = ("write", "fsync", "link", "replace", "rename", "unlink", "ftruncate", "open")
"""Functions of `os` by which a run changes a disk."""
TABLE = b"the table of the run"
_KILLED = 99


def jobs(number: int, *allocators: str) -> list[Job]:
    """Of models that nobody builds; with both allocators where none is named."""
    return [
        Job(
            scenario=FORWARD, source=Source(f"model_{each}", "tiny"), device="cpu", dtype="float32",
            modes=("tracked", "detach", "no_grad"), allocators=allocators or (PAGES_KEPT, AS_SHIPPED),
        )
        for each in range(number)
    ]  # fmt: skip


def measured(chosen: Iterable[Job]) -> Iterator[GroupResult]:
    """Times for tracked and detach, and none for no_grad."""
    for job in chosen:
        for group in map(job.group, job.allocators):
            times = [Timed(_result(group.case(mode)), [1e-4, 1.25e-4], 3) for mode in ("tracked", "detach")]
            yield GroupResult(group, times, [Unmeasured(group.case("no_grad"), "unsupported", "it cannot")])


def _result(case: Case) -> record.Result:
    is_tracked = case.mode == "tracked"
    return record.Result(
        case=case, seconds=1.1e-4, speedup=Interval(1.0, 1.0, 1.0) if is_tracked else Interval(1.25, 1.2, 1.3),
        verdict="baseline" if is_tracked else "faster", placebo=Interval(1.0, 0.99, 1.01), trusted=True, resolution=0.01,
        washout_calls=2, after_switch_seconds=None, page_faults=0.0, memory=record.Memory(saved_bytes=8192),
        contract=record.Contract(holds=True), kernels=record.Kernels(same_as_tracked=True), model=record.ModelFacts(16640, 66560),
    )  # fmt: skip


def run_to_the_end(
    folder: Path, chosen: Sequence[Job], measure: Callable[[Iterable[Job]], Iterator[GroupResult]] = measured
) -> Path:
    """A run that begins, or goes on where there is one to go on with, is saved and removes its journal; as a session does. Returns the file."""
    resume = bool(unfinished(folder))
    journal = Journal.resume(folder, chosen, FACTS) if resume else Journal.begin(folder, chosen, FACTS, "pytest --resume")
    groups = [*journal.groups, *journal.kept(measure(journal.begun(journal.missing)))]
    content = {"groups": [to_json(group) for group in groups], "journal": journal.path.stem}
    saved = saving.save_numbered(folder, "run", json.dumps(content).encode())
    journal.remove()
    journal.close()
    saving.write_whole(saved.with_suffix(".md"), TABLE)
    return saved


def left_after(folder: Path, chosen: Sequence[Job], done: int) -> Path:
    """The journal of a run that was left in order after so many jobs."""
    journal = Journal.begin(folder, chosen, FACTS, "pytest --resume")
    for _ in journal.kept(measured(journal.begun(journal.missing[:done]))):
        pass
    journal.close()
    return journal.path


def groups_of(saved: Path) -> Any:
    return json.loads(saved.read_text())["groups"]


def killed_at(folder: Path, chosen: Sequence[Job], call: int, *, before: bool) -> bool:
    """Forks a run that ends with its process at its `call`-th change of the disk, before or after it. False where it has fewer."""
    calls = count(1)

    def ending(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **kwargs: Any) -> Any:
            last = next(calls) == call
            try:
                return None if last and before else change(*args, **kwargs)
            finally:
                if last:
                    os._exit(_KILLED)

        return changed

    child = os.fork()
    if child == 0:
        try:
            for name in WRITING:
                setattr(os, name, ending(getattr(os, name)))
            run_to_the_end(folder, chosen)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _KILLED


def gone_on_with(folder: Path, chosen: Sequence[Job]) -> Path:
    """The run that a killed one has become, or becomes by going on, or anew where it left nothing."""
    saving.sweep(folder)
    if unfinished(folder) or not list(folder.glob("*.json")):
        with suppress(JournalError):  # it is saved, and only its journal was not removed
            return run_to_the_end(folder, chosen)
    (saved,) = folder.glob("*.json")
    return saved
