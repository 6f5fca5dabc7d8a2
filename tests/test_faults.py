"""Whatever a model does to its process, wherever a run is killed and whatever a disk lacks: the loss is told, and nothing else is lost.

`python -m benchmarks.selfcheck faults` counts what these tests try, with those that are marked `whole`, which take half an hour together.
"""

from __future__ import annotations

import gc
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import count
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import stand_in_jobs
from builders import environment
from commands import ROOT, SHORT, benchmark
from misbehaving import LATE, MEASURED, MISBEHAVIOURS

from analysis.read import read
from benchmarks.group import measure
from benchmarks.journal import Journal
from benchmarks.models import Source
from benchmarks.modes import DEFAULT_MODES
from benchmarks.options import Effort
from benchmarks.plan import Job
from benchmarks.record import FORWARD, Case, GroupResult
from benchmarks.saving import from_lines
from benchmarks.workers import Launches

MIB = 2**20
RUN = (*SHORT, "--models", "mlp", "--sizes", "tiny,small", "--budget", "0.2", "--processes", "2")
MODES = ("tracked", "no_grad")

exact = attrgetter("peak_tensor_bytes", "held_tensor_bytes", "saved_bytes")
"""The figures of a Memory that are the same in every run."""


def whole(*cases: Any) -> list[Any]:
    return [pytest.param(case, marks=pytest.mark.whole) for case in cases]


def slow(*cases: Any) -> list[Any]:
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


# Models that misbehave.


@pytest.fixture(scope="module")
def workers() -> Iterator[Launches]:
    with closing(Launches(60.0, memory_limit=4 * 2**30)) as launches:
        yield launches


@pytest.fixture(scope="module")
def control(workers: Launches) -> Iterator[dict[str, Any]]:
    """The exact figures of a model that behaves: they have to be the same whatever ran before."""
    before = control_bytes(workers)
    assert all(before["tracked"])
    yield before
    assert control_bytes(workers) == before


def measured(name: str, workers: Launches) -> GroupResult:
    """One that loops is given up after two seconds."""
    source = Source(name, "own", f"{Path(__file__).with_name('misbehaving.py')}:{name}")
    effort = Effort(budget=0.05, processes=1, retries=0)
    job = Job(scenario=FORWARD, source=source, device="cpu", dtype="float32", modes=MODES, effort=effort)
    with pytest.MonkeyPatch.context() as patched:
        if LATE in MISBEHAVIOURS[name].statuses:
            patched.setattr(workers, "_timeout_seconds", 2.0)
        (group,) = measure(job, workers)
    return group


def control_bytes(workers: Launches) -> dict[str, Any]:
    return {timed.result.case.mode: exact(timed.result.memory) for timed in measured("behaves", workers).timed}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_model_that_misbehaves(workers: Launches, control: dict[str, Any], name: str) -> None:
    """Has rows that say what has to become of it."""
    expected = MISBEHAVIOURS[name]
    group = measured(name, workers)
    statuses = {one.case.mode: str(one.status) for one in group.unmeasured}
    statuses |= {timed.result.case.mode: MEASURED for timed in group.timed}
    for mode in MODES:
        allowed = expected.statuses if expected.mode in (None, mode) else {MEASURED}
        assert statuses[mode] in allowed, group.unmeasured


@pytest.mark.whole
@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_the_job_after_a_model_that_misbehaves(workers: Launches, control: dict[str, Any], name: str) -> None:
    """Has the exact figures that it has without it."""
    measured(name, workers)
    assert control_bytes(workers) == control


# Runs that are killed.


def test_kill_9_before_and_after_each_change_of_the_disk(tmp_path: Path, record_property: Any) -> None:
    """A run of stand-in jobs goes on and ends as if it had not been killed."""
    jobs, tried = stand_in_jobs.jobs(3), 0
    expected = stand_in_jobs.groups_of(stand_in_jobs.run_to_the_end(tmp_path / "whole", jobs))
    for before in (True, False):
        for call in count(1):
            folder = tmp_path / f"killed {'before' if before else 'after'} change {call}"
            if not stand_in_jobs.killed_at(folder, jobs, call, before=before):
                break
            tried += 1
            assert stand_in_jobs.groups_of(stand_in_jobs.gone_on_with(folder, jobs)) == expected, folder.name
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            assert {"0001_run.json"} <= set(files) <= {"0001_run.json", "0001_run.md"}, folder.name
            assert files.get("0001_run.md", stand_in_jobs.TABLE) == stand_in_jobs.TABLE, folder.name
    assert tried > 60
    record_property("times", tried)


class Real:
    """A run of two jobs in a process of its own, which may be killed and gone on with."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-B", "-m", "pytest", *benchmark(self.storage, "-q", *RUN, *more)]

    def end(self, *more: str, **how: Any) -> subprocess.CompletedProcess[str]:
        command = self.command(*more)
        return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, **how)

    def figures(self) -> dict[Case, Any]:
        """The exact ones of the saved run."""
        (saved,) = self.storage.glob("*/*.json")
        return {result.case: exact(result.memory) for result in read(saved).results}

    def go_on(self, expected: dict[Case, Any]) -> int:
        """Asserts that all is as if nothing had been, and returns how many jobs were lost; a run that had begun none begins anew."""
        lost = 0
        if journal := next(self.storage.glob("*/.unfinished_*"), None):
            lines, _, _ = from_lines(journal.read_bytes())
            kinds = Counter(line.kind for line in lines)
            lost = kinds["begun"] - kinds["done"]
            resumed = self.end("--resume")
            said = resumed.stdout + resumed.stderr
            assert not resumed.returncode or "there is nothing to resume" in said, said
            again = re.search(r"\[1/(\d+)\]", said)
            assert (int(again[1]) if again else 0) == lines[0].payload["jobs"] - kinds["done"], said
        elif not list(self.storage.glob("*/*.json")):
            self.end().check_returncode()
        assert self.figures() == expected
        assert not list(self.storage.glob("*/.*"))
        return lost


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[Case, Any], float]:
    """The exact figures of a run that is let end, and the seconds that it takes."""
    run, begin = Real(tmp_path_factory.mktemp("undisturbed")), time.monotonic()
    run.end().check_returncode()
    return run.figures(), time.monotonic() - begin


@pytest.mark.parametrize("number", [*slow(1, 2), *whole(*range(3, 51))])
def test_kill_9_of_a_real_run_at_a_random_moment(
    tmp_path: Path, undisturbed: tuple[dict[Case, Any], float], number: int, record_property: Any
) -> None:
    """Leaves no process, and loses one job at most."""
    expected, seconds = undisturbed
    run = Real(tmp_path)
    with subprocess.Popen(run.command(), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(random.Random(number).uniform(0.1, 0.95) * seconds)
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
    _, left = psutil.wait_procs(family, timeout=15)
    lost = run.go_on(expected)
    record_property("jobs that a kill lost, at most 1", lost)
    assert (lost <= 1, left) == (True, [])


@pytest.mark.parametrize("limit", [*slow(4096), *whole(8192, 16384, 32768)])
def test_a_real_run_whose_files_may_not_grow(tmp_path: Path, undisturbed: tuple[dict[Case, Any], float], limit: int) -> None:
    """Says so, saves no part of a file and can be gone on with."""
    run = Real(tmp_path)
    ended = run.end(preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)))
    said = ended.stdout + ended.stderr
    assert ended.returncode
    assert "File too large" in said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    assert not list(tmp_path.glob("*/*.json"))
    run.go_on(undisturbed[0])


# Long runs.


@pytest.mark.parametrize("jobs", [300, *whole(2000)])
def test_what_stand_in_jobs_of_one_run_leave_in_their_parent(
    tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """Is no descriptor, no process and no memory to speak of."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    process = psutil.Process()

    def held() -> tuple[int, int, int]:
        gc.collect()
        return process.num_fds(), len(process.children()), process.memory_info().rss

    stand_in_jobs.run_to_the_end(tmp_path / "first", stand_in_jobs.jobs(jobs))  # what is kept for good is there after it
    before = held()
    stand_in_jobs.run_to_the_end(tmp_path / "second", stand_in_jobs.jobs(jobs))
    descriptors, children, resident = (now - then for now, then in zip(held(), before, strict=True))
    record_property("times", jobs)
    assert (descriptors, children) == (0, 0)
    assert resident < 16 * MIB


@pytest.mark.whole
def test_the_journals_share_of_a_jobs_time(workers: Launches, record_property: Any) -> None:
    """Of the shortest job of a default run, is less than a hundredth."""
    job = Job(scenario=FORWARD, source=Source("mlp", "tiny"), device="cpu", dtype="float32", modes=DEFAULT_MODES)
    workers.wait()
    begin = time.perf_counter()
    groups = list(measure(job, workers))
    job_seconds, times = time.perf_counter() - begin, 100
    results = ROOT / "results"  # /tmp may be memory
    with TemporaryDirectory(dir=results) as folder, closing(Journal.begin(Path(folder), [job], {}, "")) as journal:
        begin = time.perf_counter()
        for _ in journal.begun([job] * times):
            list(journal.kept(groups))
        share = (time.perf_counter() - begin) / times / job_seconds
    record_property("times", times)
    record_property("per cent of a job's time that the journal takes, at most 1", 100 * share)
    assert share < 0.01
