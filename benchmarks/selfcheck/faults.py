# ruff: noqa: S603 - this suite's own commands
"""`selfcheck faults`: what is lost when a run is killed, a disk is full, a model misbehaves or a file is hostile."""

from __future__ import annotations

import gc
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from analysis.read import read
from benchmarks.failure import describe
from benchmarks.group import measure
from benchmarks.journal import Journal
from benchmarks.machines import ROOT
from benchmarks.options import Effort, RunOptions
from benchmarks.plan import plan
from benchmarks.record import Case, from_lines
from benchmarks.selfcheck import misbehaving, stand_ins
from benchmarks.selfcheck.findings import Findings, Goal, Tried, progress, table
from benchmarks.selfcheck.mutations import mutated_files

_RUN = (
    "-m", "pytest", "--benchmark", "-q", "-p", "no:cacheprovider", "--device", "cpu", "--models", "mlp", "--sizes", "tiny,small",
    "--allocator", "pages_kept", "--budget", "0.2", "--processes", "2",
)  # fmt: skip
_GROWTH_BYTES = 16 * 2**20


def faults(*, quick: bool = False) -> Findings:
    checks: dict[str, Callable[[], Iterable[Tried]]] = {
        "kills where something is written": killed_where_something_is_written,
        "kills at random moments, full disks": partial(
            real_runs, *((3, [4096]) if quick else (50, [4096, 8192, 16384, 32768]))
        ),
        "misbehaving models": partial(misbehaving_models, list(misbehaving.MISBEHAVIOURS)[: 6 if quick else None]),
        "a long run": partial(long_run, 2000),
        "the journal's cost": partial(journal_cost, Effort(budget=0.2, processes=1) if quick else Effort()),
    }
    tried: list[Tried] = []
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:
        mutated = beside.submit(mutated_files, 300 if quick else 10_000)
        checks["mutated files, beside the others until now"] = lambda: [mutated.result()]
        begin = progress(len(checks), 120.0 if quick else 2400.0)
        for name, check in checks.items():
            begin(name)
            try:
                tried += check()
            except Exception as error:  # noqa: BLE001 - what the others found in half an hour is told all the same
                tried.append(Tried(name, 1, [f"{name}: the check itself failed: {describe(error)}"]))
    rows = [[one.what, str(one.times), str(one.times - len(one.broken)), str(len(one.broken))] for one in tried]
    goals = [Goal(f"promises broken: {one.what}", len(one.broken), 0, form=".0f") for one in tried]
    return Findings(
        [*goals, *(goal for one in tried for goal in one.goals)],
        table("What was tried, and what became of it", ["tried", "times", "as promised", "not"], rows),
        [text for one in tried for text in one.broken[:5]],
        {"tried": [[one.what, one.times, one.broken] for one in tried]},
    )


def killed_where_something_is_written() -> Iterator[Tried]:
    """A run of stand-in jobs, ended before and after each change of the disk, and gone on with."""
    jobs = stand_ins.jobs(3)
    outcomes: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        whole = stand_ins.groups_of(stand_ins.run_to_the_end(Path(name) / "whole", jobs))
        for before in (True, False):
            for call in count(1):
                when = f"killed {'before' if before else 'after'} change {call} of the disk"
                folder = Path(name) / when
                if not stand_ins.killed_at(folder, jobs, call, before=before):
                    break
                wrong = outcomes.setdefault(when, [])
                if stand_ins.groups_of(stand_ins.gone_on_with(folder, jobs)) != whole:
                    wrong.append("another result")
                files = {path.name: path.read_bytes() for path in folder.iterdir()}
                if not {"0001_run.json"} <= set(files) <= {"0001_run.json", "0001_run.md"}:
                    wrong.append(f"left behind: {', '.join(files)}")
                if files.get("0001_run.md", stand_ins.TABLE) != stand_ins.TABLE:
                    wrong.append("half a table")
    yield Tried.of("kill -9 before and after each change of the disk", outcomes)


def real_runs(kills: int, limits: Sequence[int]) -> Iterator[Tried]:
    """Killed at random moments, or with files that may not grow beyond so many bytes, and gone on with.

    Nothing is left running, at most one job is measured again, and its bytes are those of a run that nothing stopped.
    """
    moments, most_lost = random.Random(0), 0
    killed: dict[str, list[str]] = {}
    full: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        begin = time.monotonic()
        expected = _finished(Path(name) / "whole")
        seconds = time.monotonic() - begin
        for number in range(1, kills + 1):
            moment = moments.uniform(0.1, 0.95) * seconds
            folder = Path(name) / f"kill {number}, after {moment:.1f} s"
            left = _killed_after(moment, folder)
            lost, wrong = _gone_on_with(folder, expected)
            most_lost = max(most_lost, lost)
            killed[folder.name] = left + wrong
        for limit in limits:
            folder = Path(name) / f"{limit} bytes"
            full[folder.name] = [*_stopped_by_a_limit(limit, folder), *_gone_on_with(folder, expected)[1]]
    goal = Goal("jobs that a kill lost, at most", most_lost, 1, form=".0f")
    yield Tried.of("kill -9 of a real run at random moments", killed, goal)
    yield Tried.of("files of a real run that may not grow any more", full)


def _command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-B", *_RUN, f"--benchmark-storage=file://{folder}", *more]


def _ended(folder: Path, *more: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(folder, *more), cwd=ROOT, check=False, capture_output=True, text=True, **how)


def _finished(folder: Path) -> dict[Case, Any]:
    """The exact figures of a run that is let end."""
    _ended(folder).check_returncode()
    return _figures(folder)


def _figures(folder: Path) -> dict[Case, Any]:
    (saved,) = folder.glob("*/*.json")
    return {result.case: misbehaving.exact(result.memory) for result in read(saved).results}


def _killed_after(seconds: float, folder: Path) -> list[str]:
    """What is left of a run some seconds after it was killed."""
    run = subprocess.Popen(_command(folder), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with suppress(subprocess.TimeoutExpired):
        run.wait(seconds)
    family = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
    run.kill()
    run.wait()
    _, left = psutil.wait_procs(family, timeout=15)
    return [f"{len(left)} processes are left"] if left else []


def _stopped_by_a_limit(limit: int, folder: Path) -> Iterator[str]:
    """What is not as promised where files may have so many bytes."""
    ended = _ended(folder, preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)))
    said = ended.stdout + ended.stderr
    if "Traceback" in said or "INTERNALERROR" in said:
        yield "a traceback"
    if "File too large" not in said or not ended.returncode:
        yield "it is not told"
    if list(folder.glob("*/*.json")):
        yield "a saved file"


def _gone_on_with(folder: Path, expected: Mapping[Case, Any]) -> tuple[int, list[str]]:
    """How many jobs were lost, and what is not as promised once the run was resumed; it is begun anew where no job had begun."""
    wrong, lost = [], 0
    if journal := next(folder.glob("*/.unfinished_*"), None):
        lines, _, _ = from_lines(journal.read_bytes())
        kinds = Counter(line.kind for line in lines)
        lost = kinds["begun"] - kinds["done"]
        resumed = _ended(folder, "--resume")
        again = re.search(r"\[1/(\d+)\]", resumed.stdout)
        if (int(again[1]) if again else 0) != lines[0].payload["jobs"] - kinds["done"]:
            wrong.append(f"{kinds['done']} jobs kept, {again and again[1]} measured after it")
        if resumed.returncode and "there is nothing to resume" not in resumed.stdout + resumed.stderr:
            return lost, [*wrong, f"--resume ended with {resumed.returncode}: {resumed.stdout[-200:]}"]
    elif not list(folder.glob("*/*.json")):
        _finished(folder)
    if _figures(folder) != expected:
        wrong.append("other exact figures")
    if left := [path.name for path in folder.glob("*/.*")]:
        wrong.append(f"left behind: {', '.join(left)}")
    return lost, wrong


def misbehaving_models(names: Sequence[str]) -> Iterator[Tried]:
    """Each in workers, and a control after each."""
    rows: dict[str, list[str]] = {}
    controls: dict[str, list[str]] = {}
    with closing(misbehaving.workers()) as workers:
        expected = misbehaving.control_bytes(workers)
        for name in names:
            rows[name] = misbehaving.broken_promises(name, workers)
            same = misbehaving.control_bytes(workers) == expected
            controls[name] = [] if same else ["other bytes in the next job"]
    yield Tried.of("models that misbehave, by their rows", rows)
    yield Tried.of("models that misbehave, by the exact figures of the next job", controls)


def long_run(jobs: int) -> Iterator[Tried]:
    """So many stand-in jobs in one run, by what they leave in this process: descriptors, children or memory."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            stand_ins.run_to_the_end(Path(folder), stand_ins.jobs(jobs))
        gc.collect()

    def held() -> tuple[int, int, int]:
        return process.num_fds(), len(process.children()), process.memory_info().rss

    process = psutil.Process()
    run()  # what is kept for good, such as compiled codecs, is there after the first
    before = held()
    run()
    descriptors, children, grown = (now - then for now, then in zip(held(), before, strict=True))
    leaks = descriptors > 0 or children > 0 or grown > _GROWTH_BYTES
    left = f"{descriptors} descriptors, {children} processes and {grown / 2**20:.0f} MiB are left"
    yield Tried("stand-in jobs in one run, by what they leave in the parent", jobs, [left] if leaks else [])


def journal_cost(effort: Effort) -> Iterator[Tried]:
    """The time that the journal takes for a job, over the time that the job took: the shortest of a default run's."""
    (job,) = plan(RunOptions(models=("mlp",), sizes=("tiny",), device=("cpu",), effort=effort))
    with closing(misbehaving.workers()) as workers:
        workers.wait()
        begin = time.perf_counter()
        groups = list(measure(job, workers))
        job_seconds = time.perf_counter() - begin
    times = 100
    with tempfile.TemporaryDirectory(dir=ROOT / "results") as folder:  # /tmp may be memory
        journal = Journal.begin(Path(folder), [job], {}, "")
        begin = time.perf_counter()
        for _ in journal.begun([job] * times):
            list(journal.kept(groups))
        seconds = (time.perf_counter() - begin) / times
        journal.close()
    told = f"the journal's share of a job's time ({seconds * 1e3:.1f} ms of {job_seconds:.1f} s)"
    yield Tried("journal lines of a real job", times, goals=[Goal(told, seconds / job_seconds, 0.01)])
