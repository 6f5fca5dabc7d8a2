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
from textwrap import shorten
from typing import Any

from benchmarks import group
from benchmarks.environment import Finding
from benchmarks.failure import describe
from benchmarks.journal import Journal, JournalError, identity, resumable
from benchmarks.local import Local
from benchmarks.options import RunOptions
from benchmarks.plan import Job
from benchmarks.record import SCHEMA, GroupResult, to_json
from benchmarks.remote import Machines
from benchmarks.run import Run
from benchmarks.saving import save_numbered

RESUME = "--resume"

_WIDTH = 96
"""Columns of what is told of a case that could not be measured."""


class Session:
    """`saved` is where the run was saved, a file for each machine; `told` are lines for its end: what could not be written, and how to go on.

    `describe_machine` is pytest-benchmark's; `say` takes the lines that tell how far the run is. Raises OptionError and own.ModelError.
    """

    def __init__(self, chosen: RunOptions, describe_machine: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> None:
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
        self._say = say

    @property
    def machine_info(self) -> dict[str, Any]:
        """What a saved run says of the machine beside what pytest-benchmark knows of this one."""
        return next(iter(self.site.machine_infos.values()), None) or {"gradtax": self.site.facts}

    def check(self) -> None:
        """Each mode is run and its contract checked when it is asked for; nothing is timed and nothing saved."""
        self.run = Run(shown(self.site.results(announced(self.jobs, self._say), group.check), self._say))

    def begin(self, folder: Path | None, *, resume: bool) -> None:
        """Everything is measured when it is asked for, and kept in a journal in `folder`.

        The machine is asked first what it is, which also shows that its devices open. Raises Failure and JournalError.
        """
        facts = identity(self.jobs, {"in_process": self.options.in_process}, self.site.facts)
        self.signals.catch()
        for finding in self.site.before:
            self._say(f"warning: {finding}")
        if folder is None:
            if resume:
                raise JournalError(f"{RESUME}: only runs that are saved in a folder can be gone on with; leave it out")
            self.run = Run(shown(self.site.results(announced(self.jobs, self._say)), self._say))
            return
        self.journal = journal = self._opened_journal(folder, facts, resume=resume)
        if self.site.machine_infos:
            journal.note_machines(self.site.machine_infos)
        jobs = journal.begun(announced(journal.missing, self._say))
        self.run = Run(chain(journal.groups, shown(journal.kept(self.site.results(jobs)), self._say)))

    def _opened_journal(self, folder: Path, facts: dict[str, Any], *, resume: bool) -> Journal:
        if not resume:
            if another := resumable(folder):
                self._say(another)
            return Journal.begin(folder, self.jobs, facts, self._command())
        journal = Journal.resume(folder, self.jobs, facts)
        for line in (*journal.told, f"going on with the run of {journal.segments[0]['started']}: {journal.done} are there"):
            self._say(line)
        return journal

    def _command(self) -> str:
        """What goes on with this run."""
        return shlex.join(["pytest", *(argument for argument in sys.argv[1:] if argument != RESUME), RESUME])

    def parts(self, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What is saved of the run, which ends with this: pytest-benchmark's `run` with the key `gradtax`, or each machine's part of that.

        A job that was given up belongs to the first machine.
        """
        infos = self.journal.machine_infos if self.journal else self.site.machine_infos
        conditions = self._conditions(infos)
        by_machine: dict[str | None, list[GroupResult]] = {}
        for result in self.run.groups.values():
            by_machine.setdefault(result.machine or next(iter(conditions)), []).append(result)
        for machine, results in by_machine.items():
            groups = {str(result.group) for result in results}
            yield run | {
                "machine_info": infos[machine] if machine else run["machine_info"],
                "benchmarks": [benchmark for benchmark in run["benchmarks"] if benchmark["group"] in groups],
                "gradtax": {
                    "schema": SCHEMA,
                    "unmeasured": [to_json(one) for result in results for one in result.unmeasured],
                    "conditions": conditions[machine],
                },
            }

    def _conditions(self, machines: Iterable[str]) -> dict[str | None, dict[str, Any]]:
        """Of each machine, those included that are gone, or of this one by the name None."""
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
        gone: dict[str | None, dict[str, Any]] = {name: common | {"machine": name} for name in machines}
        return gone | {machine: common | conditions for machine, (conditions, _) in met.items()}

    @property
    def _missing(self) -> int:
        """How many jobs have groups of which nothing is known."""
        return sum(any(job.group(name) not in self.run.groups for name in job.allocators) for job in self.jobs)

    def save(self, folder: Path, name: str, contents: Iterable[bytes]) -> None:
        """Into new files of `folder`, whole."""
        with self.telling(f"the run could not be saved in {folder}"):
            for content in contents:
                self.saved.append(save_numbered(folder, name, content))

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

    @contextmanager
    def telling(self, trouble: str) -> Iterator[None]:
        """What is raised inside becomes a line of `told`: at the end of a run the rest has to be done all the same."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - after hours of measuring, nothing may be lost over it
            reason = error.strerror if isinstance(error, OSError) and error.strerror else describe(error)
            self.told.append(f"{trouble}: {reason}")


def announced(jobs: Sequence[Job], say: Callable[[str], None]) -> Iterator[Job]:
    """Each of `jobs`, and a line for it: how many there are and, once a few are done, about how long the rest will take."""
    shares, begun = [job.share for job in jobs], time.monotonic()
    for number, job in enumerate(jobs):
        left = ""
        if number >= 3:
            seconds = (time.monotonic() - begun) / sum(shares[:number]) * sum(shares[number:])
            left = f", about {seconds / 60:.0f} min left" if seconds >= 100 else f", about {seconds:.0f} s left"
        say(f"[{number + 1:{len(str(len(jobs)))}}/{len(jobs)}] {job}{left}")
        yield job


def shown(groups: Iterable[GroupResult], say: Callable[[str], None]) -> Iterator[GroupResult]:
    """Each of `groups`, and a line for each case of it that could not be measured."""
    for result in groups:
        for one in result.unmeasured:
            say("    " + shorten(f"{one.case.mode}: {one.status}: {one.reason}", _WIDTH, placeholder=" ..."))
        yield result


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
