# ruff: noqa: S603 - this suite's own commands
"""`selfcheck faults`: what is lost when a run is killed, a disk is full, a model misbehaves or a file is hostile."""

from __future__ import annotations

import gc
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.journal import unfinished
from benchmarks.record import from_lines
from benchmarks.selfcheck import misbehaving, stand_ins
from benchmarks.selfcheck.findings import Findings, Goal, table
from benchmarks.selfcheck.misbehaving import CONTROL, LATE, MISBEHAVIOURS
from benchmarks.selfcheck.mutations import mutated_files

ROOT = Path(__file__).parents[2]
_RUN = (
    "-m", "pytest", "--benchmark", "-q", "-p", "no:cacheprovider", "--device", "cpu", "--models", "mlp", "--sizes", "tiny,small",
    "--allocator", "pages_kept", "--budget", "0.2", "--processes", "2",
)  # fmt: skip
_EXACT = ("peak_tensor_bytes", "held_tensor_bytes", "saved_bytes")
_GROWTH_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Tried:
    """How often something was tried, and what broke a promise."""

    what: str
    times: int
    broken: list[str]


def faults(*, quick: bool = False) -> Findings:
    tried = [
        killed_where_something_is_written(),
        killed_at_random(3 if quick else 50),
        full_disks((4096,) if quick else (4096, 8192, 16384, 32768)),
        *misbehaving_models(list(MISBEHAVIOURS)[:6] if quick else list(MISBEHAVIOURS)),
        Tried("mutated files through every analysis", *mutated_files(300 if quick else 10_000, seed=0)),
        Tried("stand-in jobs in one run, by what they leave in the parent", 2000, [text for text in [long_run(2000)] if text]),
    ]
    rows = [[one.what, str(one.times), str(one.times - len(one.broken)), str(len(one.broken))] for one in tried]
    return Findings(
        [table("What was tried, and what became of it", ["tried", "times", "as promised", "not"], rows)],
        [text for one in tried for text in one.broken[:5]],
        [Goal(f"promises broken: {one.what}", len(one.broken), 0, form=".0f") for one in tried],
        {"tried": [[one.what, one.times, one.broken] for one in tried]},
    )


def killed_where_something_is_written() -> Tried:
    """A run of stand-in jobs, ended before and after each change of the disk, and gone on with."""
    jobs, broken, times = stand_ins.jobs(3), [], 0
    with tempfile.TemporaryDirectory() as name:
        whole = stand_ins.groups_of(stand_ins.run_to_the_end(Path(name) / "whole", jobs))
        for before in (True, False):
            call = 1
            while stand_ins.killed_at(folder := Path(name) / f"{call}{before}", jobs, call, before=before):
                if stand_ins.groups_of(stand_ins.gone_on_with(folder, jobs)) != whole:
                    broken.append(f"killed {'before' if before else 'after'} change {call} of the disk: another result")
                call, times = call + 1, times + 1
    return Tried("kill -9 before and after each change of the disk", times, broken)


def killed_at_random(times: int) -> Tried:
    """A real run, killed at random moments and resumed: nothing is left running, at most one job is measured again, bytes are equal."""
    moments = random.Random(0)
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        begin = time.monotonic()
        whole = _finished(Path(name) / "whole")
        seconds = time.monotonic() - begin
        for number in range(times):
            moment = moments.uniform(0.1, 0.95) * seconds
            broken += [
                f"killed after {moment:.1f} s: {fault}" for fault in _killed_after(moment, Path(name) / str(number), whole)
            ]
    return Tried("kill -9 of a real run at random moments", times, broken)


def _command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, *_RUN, f"--benchmark-storage=file://{folder}", *more]


def _finished(folder: Path, *more: str) -> dict[str, Any]:
    """The exact figures of a run that is let end. Raises CalledProcessError."""
    subprocess.run(_command(folder, *more), cwd=ROOT, check=True, capture_output=True)
    return _figures(folder)


def _figures(folder: Path) -> dict[str, Any]:
    (saved,) = folder.glob("*/*.json")
    results = [benchmark["extra_info"] for benchmark in json.loads(saved.read_text())["benchmarks"]]
    return {json.dumps(one["case"]): [one["memory"][name] for name in _EXACT] for one in results}


def _killed_after(seconds: float, folder: Path, whole: dict[str, Any]) -> Iterator[str]:
    """What is not as promised after a kill at that moment."""
    run = subprocess.Popen(_command(folder), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with suppress(subprocess.TimeoutExpired):
        run.wait(seconds)
    family = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=15)
    if alive:
        yield f"{len(alive)} processes are left"
    journals = unfinished(next(folder.glob("*"), folder))
    lines = from_lines(journals[0].read_bytes())[0] if journals else []
    if not lines:  # before the first job, or after the last
        figures = _figures(folder) if list(folder.glob("*/*.json")) else _finished(folder)
    else:
        resumed = subprocess.run(_command(folder, "--resume"), cwd=ROOT, check=False, capture_output=True, text=True)
        done, begun = (sum(line.kind == kind for line in lines) for kind in ("done", "begun"))
        again = re.search(r"\[1/(\d+)\]", resumed.stdout)
        if begun - done > 1 or (int(again[1]) if again else 0) != lines[0].payload["jobs"] - done:
            yield f"{begun} jobs begun, {done} kept, {again and again[1]} measured after it"
        if resumed.returncode:
            yield f"--resume ended with {resumed.returncode}: {resumed.stdout[-200:]}"
            return
        figures = _figures(folder)
    if figures != whole:
        yield "other exact figures"
    if left := [path.name for path in folder.glob("*/.*")]:
        yield f"left behind: {', '.join(left)}"


def full_disks(limits: tuple[int, ...]) -> Tried:
    """A real run whose files may have so many bytes, and then go on without a limit."""
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for limit in limits:
            folder = Path(name) / str(limit)

            def limited(size: int = limit) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

            command = [sys.executable, "-B", *_command(folder)[1:]]
            ended = subprocess.run(command, cwd=ROOT, preexec_fn=limited, check=False, capture_output=True, text=True)
            if "Traceback" in ended.stdout + ended.stderr or "INTERNALERROR" in ended.stdout:
                broken.append(f"{limit} bytes: a traceback")
            if "File too large" not in ended.stdout + ended.stderr:
                broken.append(f"{limit} bytes: it is not told")
            if list(folder.glob("*/*.json")):
                broken.append(f"{limit} bytes: a saved file")
            journal = unfinished(next(folder.glob("*"), folder))
            if journal and journal[0].stat().st_size:
                with suppress(subprocess.CalledProcessError):
                    _finished(folder, "--resume")
                if not list(folder.glob("*/*.json")):
                    broken.append(f"{limit} bytes: it cannot be gone on with")
    return Tried("files of a real run that may not grow any more", len(limits), broken)


def misbehaving_models(names: list[str]) -> Iterator[Tried]:
    """Each in workers, and a control after each."""
    launches = misbehaving.workers(60)
    expected = misbehaving.exact_figures(misbehaving.outcome(CONTROL, launches))
    wrong, changed = [], []
    for name in names:
        launches._timeout_seconds = 3 if LATE in MISBEHAVIOURS[name].statuses else 60
        wrong.append(misbehaving.broken_promise(name, misbehaving.outcome(name, launches)))
        launches._timeout_seconds = 60
        if misbehaving.exact_figures(misbehaving.outcome(CONTROL, launches)) != expected:
            changed.append(f"{name}: other bytes in the next job")
    yield Tried("models that misbehave, by their rows", len(names), [text for text in wrong if text])
    yield Tried("models that misbehave, by the exact figures of the next job", len(names), changed)


def long_run(times: int) -> str:
    """What so many stand-in jobs leave in this process: descriptors, children or memory; empty where nothing is left."""

    def jobs_in_a_run(number: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            chosen = stand_ins.jobs(number)
            stand_ins.run_to_the_end(Path(folder), chosen)

    process = psutil.Process()
    jobs_in_a_run(times)  # what is kept for good, such as compiled codecs, is there after the first
    gc.collect()
    before = process.num_fds(), len(process.children()), process.memory_info().rss
    jobs_in_a_run(times)
    gc.collect()
    after = process.num_fds(), len(process.children()), process.memory_info().rss
    left = [*(name for name, old, new in zip(("descriptors", "processes"), before, after, strict=False) if new > old)]
    grown = after[2] - before[2]
    return ", ".join([*left, *([f"{grown / 2**20:.0f} MiB"] if grown > _GROWTH_BYTES else [])])
