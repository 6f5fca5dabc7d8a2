"""The journal of a run that is not finished: a line per job, on the disk before the next job begins, so that a killed run goes on.

It lies beside the saved runs under a hidden name. Whoever writes it holds its lock, which the kernel frees when that process ends.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.failure import Failure
from benchmarks.plan import Job
from benchmarks.record import GroupResult, from_json, to_json
from benchmarks.saving import Line, from_lines, sweep, synchronise, temporary, to_line

NAME = ".unfinished_*.jsonl"
_TRIES = 2
"""So many times a job may end the whole run before it is given up."""


class JournalError(Exception):
    """Why a journal cannot be written or gone on with: the file, what is wrong, the next step."""


def identity(jobs: Sequence[Job], options: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same for a run to be gone on with. `machine` are environment.machine_facts."""
    described = [
        [str(job), job.execution, job.modes, job.allocators, to_json(job.effort), getattr(job.source, "spec", None)]
        for job in jobs
    ]
    own_files = {spec.rpartition(":")[0] for *_, spec in described if spec}
    facts = {
        "jobs and options": _digest([msgspec.json.encode([described, options])]),
        "code of the suite": code_of_the_suite(),
        "models' files": _digest(path.read_bytes() for path in map(Path, sorted(own_files)) if path.is_file()),
        "python": platform.python_version(),
        "computer": platform.node(),
        **machine,
    }
    same: dict[str, Any] = json.loads(json.dumps(facts))  # as it will be read back
    return same


def code_of_the_suite() -> str:
    """A digest of everything that measures."""
    return _digest(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))


def _digest(contents: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {before.get(name)} then, {now.get(name)} now" for name in names)


def unfinished(folder: Path) -> list[Path]:
    """The journals in `folder`, the latest first."""
    return sorted(folder.glob(NAME), reverse=True)


def resumable(folder: Path) -> str:
    """How the latest run that nobody is writing could be gone on with, in a line; empty where there is none."""
    for path in unfinished(folder):
        with suppress(OSError, JournalError, ValueError, LookupError):
            os.close(_locked(path))
            lines, _, _ = from_lines(path.read_bytes())
            done = sum(line.kind == "done" for line in lines)
            run = lines[0].payload
            return f"{path}: a run of {lines[0].at} ended after {done} of {run['jobs']} jobs; go on with: {run['command']}"
    return ""


class Journal:
    """One run's journal, open for writing. `groups` are the results that were there when it was opened; `told` is what its opening changed.
    `machine_infos` are the machines that it was measured on, where they are others.

    Raises JournalError wherever it cannot be written.
    """

    def __init__(self, path: Path, descriptor: int, jobs: Sequence[Job], lines: Sequence[Line] = ()) -> None:
        self.path, self._descriptor, self._jobs = path, descriptor, jobs
        self.groups: list[GroupResult] = []
        self.segments: list[dict[str, Any]] = []
        self.machine_infos: dict[str, dict[str, Any]] = {}
        self.told: list[str] = []
        self._number = 0
        self._begun: Counter[int] = Counter()
        self._done: set[int] = set()
        self._waiting: dict[int, list[GroupResult]] = {}
        self._job_of = {job.group(name): number for number, job in enumerate(jobs) for name in job.allocators}
        for line in lines:
            self._note(line)
            if line.kind == "done":
                self.groups += [from_json(group, GroupResult) for group in line.payload["groups"]]

    @classmethod
    def begin(cls, folder: Path, jobs: Sequence[Job], facts: Mapping[str, Any], command: str) -> Journal:
        """A new journal, under its name once it is locked and says what run it is. `facts` are that, `command` goes on with it."""
        path = folder / f".unfinished_{datetime.now(UTC):%Y%m%dT%H%M%S%f}_{os.urandom(4).hex()}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with temporary(folder) as (descriptor, unnamed), ExitStack() as undo:
                undo.callback(os.close, descriptor)
                fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                journal = cls(path, descriptor, jobs)
                journal._write("run", identity=facts, jobs=len(jobs), command=command)
                journal._write("segment", pid=os.getpid())
                unnamed.rename(path)
                synchronise(folder)
                undo.pop_all()
        except OSError as error:
            raise JournalError(
                f"{path}: cannot be written: {error.strerror}; --benchmark-storage names another place"
            ) from error
        return journal

    @classmethod
    def resume(cls, folder: Path, jobs: Sequence[Job], facts: Mapping[str, Any]) -> Journal:
        """The latest of this identity, repaired. Raises JournalError where there is none, with what differs in the latest."""
        sweep(folder)
        refused = ""
        for path in unfinished(folder):
            run = _first_payload(path)
            if run.get("identity") == facts:
                return cls._opened(path, jobs)
            wrong = differences(run["identity"], facts) if "identity" in run else "line 1 is not what was written"
            refused = refused or f"{path}: cannot be gone on with: {wrong}; leave out --resume"
        raise JournalError(refused or f"{folder}: there is no unfinished run; leave out --resume")

    @classmethod
    def _opened(cls, path: Path, jobs: Sequence[Job]) -> Journal:
        with ExitStack() as undo:
            try:
                descriptor = _locked(path)
                undo.callback(os.close, descriptor)
                lines, size, wrong = from_lines(path.read_bytes())
                journal = cls(path, descriptor, jobs, lines)
                if not journal.missing and (saved := _saved_of(path)):
                    journal.remove()
                    raise JournalError(f"{path}: finished, and saved as {saved.name}; there is nothing to resume")
                if wrong:
                    os.ftruncate(descriptor, size)
                    os.fsync(descriptor)
                    journal.told.append(f"{path}: {wrong}; what it held is measured again")
            except OSError as error:
                raise JournalError(f"{path}: cannot be gone on with: {error.strerror}") from error
            except (ValueError, LookupError, TypeError) as error:
                raise JournalError(f"{path}: {error}; leave out --resume") from error
            journal._write("segment", pid=os.getpid())
            journal._give_up()
            undo.pop_all()
        return journal

    def _give_up(self) -> None:
        """Jobs that have ended the whole run, time after time, are not begun again."""
        for number, job in enumerate(self._jobs):
            if number not in self._done and self._begun[number] >= _TRIES:
                reason = f"the whole run ended {self._begun[number]} times while this was measured; it was not begun again"
                failure = Failure("crashed", reason)
                lost = [job.failed(name, failure) for name in job.allocators]
                self._write("done", job=number, groups=[to_json(group) for group in lost])
                self.groups += lost
                self.told.append(f"{job}: {failure}")
        self.groups.sort(key=lambda group: self._job_of[group.group])

    @property
    def missing(self) -> list[Job]:
        return [job for number, job in enumerate(self._jobs) if number not in self._done]

    @property
    def done(self) -> str:
        return f"{len(self._done)} of {len(self._jobs)} jobs"

    def begun(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Each of `jobs`, noted before it is handed on."""
        for job in jobs:
            self._write("begun", job=self._jobs.index(job))
            yield job

    def kept(self, groups: Iterable[GroupResult]) -> Iterator[GroupResult]:
        """Each of `groups`; the last of a job is handed on once the job is on the disk. One that could not be written is handed on as well,
        before JournalError is raised."""
        for group in groups:
            job = self._job_of[group.group]
            waiting = self._waiting.setdefault(job, [])
            waiting.append(group)
            failed = None
            if len(waiting) == len(self._jobs[job].allocators):
                try:
                    self._write("done", job=job, groups=[to_json(each) for each in self._waiting.pop(job)])
                except JournalError as error:
                    failed = error
            yield group
            if failed is not None:
                raise failed

    def note_machines(self, machine_infos: Mapping[str, Any]) -> None:
        """Those that jobs are measured on from now on: one that is gone when the run is gone on with is saved with what it was."""
        self._write("machines", infos=machine_infos)

    def remove(self) -> None:
        """The run is saved."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            synchronise(self.path.parent)

    def close(self) -> None:
        """An orderly end: jobs that were begun and not done are not what ended the run."""
        for number, times in self._begun.items():
            if times and number not in self._done:
                with suppress(JournalError):
                    self._write("left", job=number)
        os.close(self._descriptor)

    def _write(self, kind: Any, **payload: Any) -> None:
        """One line, on the disk when this returns; of a line that cannot be written whole nothing is left."""
        line = Line(self._number + 1, kind, datetime.now(UTC).isoformat(timespec="seconds"), payload)
        content = to_line(line)
        size = os.fstat(self._descriptor).st_size
        try:
            _append(self._descriptor, content)
            self._note(line)
        except BaseException as error:  # a signal's too
            if self._number < line.number:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, size)
            if isinstance(error, OSError):
                advice = f"{self.done} are kept in it" if self._done else "--benchmark-storage names another place"
                raise JournalError(f"{self.path}: cannot be written: {error.strerror}; {advice}") from error
            raise

    def _note(self, line: Line) -> None:
        """What a line changes of the state."""
        self._number = line.number
        if line.kind == "segment":
            self.segments.append({"started": line.at, "ended": line.at, "jobs": 0})
        elif line.kind == "machines":
            self.machine_infos |= line.payload["infos"]
        elif line.kind == "begun":
            self._begun[line.payload["job"]] += 1
        elif line.kind == "left":
            self._begun[line.payload["job"]] -= 1
        elif line.kind == "done":
            self._done.add(line.payload["job"])
            self.segments[-1]["jobs"] += 1
        if self.segments:
            self.segments[-1]["ended"] = line.at


def _append(descriptor: int, content: bytes) -> None:
    """One write, on the disk when this returns. Raises OSError also where the file has lost its name, or took a part only."""
    if not os.fstat(descriptor).st_nlink:
        raise FileNotFoundError(errno.ENOENT, "it was removed")
    if os.write(descriptor, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def _first_payload(path: Path) -> dict[str, Any]:
    """Of the line that says what run it is; empty where it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        lines, _, _ = from_lines(file.readline())
        return lines[0].payload if lines else {}
    return {}


def _locked(path: Path) -> int:
    """A descriptor that holds the lock, until it is closed. Raises JournalError where another process holds it, OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        lines, _, _ = from_lines(path.read_bytes())
        writers = [line.payload["pid"] for line in lines if line.kind == "segment"]
        raise JournalError(
            f"{path}: process {writers[-1] if writers else '?'} is writing it; wait until it has ended"
        ) from error
    return descriptor


def _saved_of(path: Path) -> Path | None:
    """The run that was saved of a journal after its last line was written."""
    for run in path.parent.glob("[0-9]*_*.json"):
        if run.stat().st_mtime_ns >= path.stat().st_mtime_ns and path.stem.encode() in run.read_bytes():
            return run
    return None
