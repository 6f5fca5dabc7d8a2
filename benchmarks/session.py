"""A run of the cases from its options to its end: the jobs, where they are measured, its journal. Knows no pytest."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from benchmarks import group, plan, saving
from benchmarks.environment import Finding
from benchmarks.failure import describe
from benchmarks.journal import Journal, JournalError, identity, resumable
from benchmarks.local import Local
from benchmarks.options import RunOptions
from benchmarks.record import GroupResult
from benchmarks.remote import Machines
from benchmarks.run import Run

RESUME = "--resume"


class Progress(Protocol):
    """Tells how far the run is, while jobs and groups pass through."""

    def announced(self, jobs: Sequence[plan.Job]) -> Iterator[plan.Job]: ...

    def shown(self, groups: Iterable[GroupResult]) -> Iterator[GroupResult]: ...


class Session:
    """`saved` is where the run was saved, a file for each machine; `told` are lines for its end: what could not be written, and how to go on.

    `describe_machine` is pytest-benchmark's. Raises OptionError and own.ModelError.
    """

    def __init__(self, chosen: RunOptions, describe_machine: Callable[[], dict[str, Any]]) -> None:
        self.options = chosen
        self.site: Local | Machines = Machines(chosen, describe_machine) if chosen.machines else Local(chosen)
        self.jobs = self.site.jobs
        self.findings: list[Finding] = []
        self.run = Run(iter(()))
        self.started = time.monotonic()
        self.journal: Journal | None = None
        self.saved: list[Path] = []
        self.told: list[str] = []
        self.signals = Signals()
        self._conditions: dict[str | None, dict[str, Any]] = {}

    @property
    def machine_info(self) -> dict[str, Any]:
        """What a saved run says of the machine beside what pytest-benchmark knows of this one."""
        return next(iter(self.site.machine_infos.values()), None) or {"gradtax": self.site.facts}

    def check(self, progress: Progress) -> None:
        """Each mode is run and its contract checked when it is asked for; nothing is timed and nothing saved."""
        self.site.executor.measure = group.check
        self.run = Run(progress.shown(self.site.executor.results(progress.announced(self.jobs))))

    def begin(self, progress: Callable[[Sequence[plan.Job]], Progress], folder: Path | None, *, resume: bool) -> list[str]:
        """Everything is measured when it is asked for, and kept in a journal in `folder`. Returns lines to be told before.

        The machine is asked first what it is, which also shows that its devices open. Raises Failure and JournalError.
        """
        facts = identity(self.jobs, {"in_process": self.options.in_process}, self.site.facts)
        self.signals.catch()
        executor = self.site.executor
        if folder is None:
            if resume:
                raise JournalError(f"{RESUME}: only runs that are saved in a folder can be gone on with; leave it out")
            shown = progress(self.jobs)
            self.run = Run(shown.shown(executor.results(shown.announced(self.jobs))))
            return []
        self.journal, told = self._opened_journal(folder, facts, resume=resume)
        if self.site.machine_infos:
            self.journal.note_machines(self.site.machine_infos)
        shown = progress(self.journal.missing)
        jobs = self.journal.begun(shown.announced(self.journal.missing))
        self.run = Run(chain(self.journal.groups, shown.shown(self.journal.kept(executor.results(jobs)))))
        return told

    def _opened_journal(self, folder: Path, facts: dict[str, Any], *, resume: bool) -> tuple[Journal, list[str]]:
        if not resume:
            others = resumable(folder)
            return Journal.begin(folder, self.jobs, facts, self._command()), [others] if others else []
        journal = Journal.resume(folder, self.jobs, facts)
        return journal, [*journal.told, f"going on with the run of {journal.segments[0]['started']}: {journal.done} are there"]

    def _command(self) -> str:
        """What goes on with this run."""
        return shlex.join(["pytest", *(argument for argument in sys.argv[1:] if argument != RESUME), RESUME])

    def top_level(self) -> dict[str, Any]:
        """The saved run's key `gradtax`. The run ends with this."""
        common = {
            "command": ["pytest", *sys.argv[1:]],
            "in_process": self.options.in_process,
            **asdict(self.options.effort),
            "wall_seconds": time.monotonic() - self.started,
        }
        if self.journal is not None:
            common |= {"journal": self.journal.path.stem, "segments": self.journal.segments}
            if missing := self._missing:
                done = f"{len(self.jobs) - missing} of {len(self.jobs)} jobs are measured"
                common["unfinished"] = f"{done}; go on with: {self._command()}"
        met = self.site.met()
        self.findings = [finding for _, findings in met.values() for finding in findings]
        if self.journal is not None:  # machines that are gone
            self._conditions = {name: {"machine": name, **common} for name in self.journal.machine_infos}
        self._conditions |= {machine: common | conditions for machine, (conditions, _) in met.items()}
        return self.run.top_level(next(iter(self._conditions.values())))

    @property
    def _missing(self) -> int:
        """How many jobs have groups of which nothing is known."""
        return sum(any(job.group(name) not in self.run.groups for name in job.allocators) for job in self.jobs)

    def parts(self, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The run as it is saved: where other machines measured it, a run of each. A job that was given up belongs to the first."""
        infos = {**(self.journal.machine_infos if self.journal else {}), **self.site.machine_infos}
        if not infos:
            yield run
            return
        by_machine: dict[str, list[GroupResult]] = {}
        for result in self.run.groups.values():
            by_machine.setdefault(result.machine or next(iter(infos)), []).append(result)
        for machine, results in by_machine.items():
            part = Run(iter(results))
            part.take_all()
            cases = {str(timed.case) for timed in part.results}
            benchmarks = [benchmark for benchmark in run["benchmarks"] if benchmark["param"] in cases]
            gradtax = part.top_level(self._conditions[machine])
            yield run | {"machine_info": infos[machine], "benchmarks": benchmarks, "gradtax": gradtax}

    def save(self, folder: Path, name: str, contents: Iterable[bytes]) -> None:
        """Into new files of `folder`, whole."""
        with self.telling(f"the run could not be saved in {folder}"):
            for content in contents:
                self.saved.append(saving.save_numbered(folder, name, content))

    def save_json(self, path: Path, content: bytes) -> None:
        """What the user asked for besides; its loss is not the run's."""
        with self.telling(f"{path} could not be written"):
            saving.write_whole(path, content)

    def end(self) -> None:
        """After saving. The journal goes once all that it holds is in a saved run; if not, `told` says how to go on."""
        self.site.close()
        journal = self.journal
        if journal is None:
            return
        if self.saved and not self._missing:
            journal.remove()
        elif journal.path.exists():
            self.told.append(f"{journal.done} are kept in {journal.path}; go on with: {self._command()}")
        else:
            self.told.append(f"{journal.path} is gone: nothing is kept but what is shown here")
        journal.close()
        self.journal = None

    @contextmanager
    def telling(self, trouble: str) -> Iterator[None]:
        """What is raised inside becomes a line of `told`: at the end of a run the rest has to be done all the same."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - after hours of measuring, nothing may be lost over it
            reason = error.strerror if isinstance(error, OSError) and error.strerror else describe(error)
            self.told.append(f"{trouble}: {reason}")


class Signals:
    """Ctrl-C, SIGTERM and a closed terminal end a run in one orderly way, once; what the user has had ignored stays so."""

    _ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._terminals: set[int] = set()

    def catch(self) -> None:
        """From now on the first of them raises KeyboardInterrupt in the main thread."""
        self._terminals = {os.fstat(descriptor).st_rdev for descriptor in range(3) if os.isatty(descriptor)}
        for number in self._ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._end)

    def ignore(self) -> None:
        """From now on they do nothing: the run is being saved."""
        for number in self._before:
            signal.signal(number, lambda *_: None)

    def restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _end(self, number: int, _frame: Any) -> None:
        self.ignore()
        if number == signal.SIGHUP:
            self._leave_terminal()
        raise KeyboardInterrupt

    def _leave_terminal(self) -> None:
        """What is written to a terminal that is gone would raise: from now on it goes nowhere."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for path in Path("/dev/fd").iterdir():
            with suppress(OSError):
                if os.fstat(int(path.name)).st_rdev in self._terminals:
                    os.dup2(nowhere, int(path.name))
