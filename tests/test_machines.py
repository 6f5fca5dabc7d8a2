"""What answers on another machine: a child without the engine's settings, which ends when nobody waits for it; and a run on two real workers."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from builders import environment
from commands import ROOT, SHORT, TINY, type_in

from analysis.read import read
from benchmarks import machines


def asked(*requests: tuple[Any, ...], worker: Any = None) -> list[Any]:
    """What a new child of `worker` answers to functions with their arguments."""
    worker = worker or SimpleNamespace(id="one", nanny=None)

    async def ask() -> list[Any]:
        await machines.begin(worker)
        try:
            return [pickle.loads(await machines.ask(pickle.dumps((function, args)), worker)) for function, *args in requests]
        finally:
            machines.end(worker)

    return asyncio.run(ask())


def test_a_child_answers_with_what_functions_return_or_raise() -> None:
    odd = "class Odd(Exception): ...\nraise Odd('here')"
    (there, pid), (_, again), (returned, error), (_, unsendable) = asked((os.getpid,), (os.getpid,), (int, "x"), (exec, odd))
    assert there
    assert pid == again != os.getpid()
    assert not returned
    assert isinstance(error, ValueError)
    assert str(unsendable) == "Odd: here"


def test_what_the_engine_has_set_is_not_there_and_what_the_user_has_set_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    names = [(os.getenv, name) for name in ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS")]
    nannied, plain = SimpleNamespace(id="one", nanny=object()), SimpleNamespace(id="two", nanny=None)
    assert [value for _, value in asked(*names, worker=nannied)] == [None, "7"]
    assert [value for _, value in asked(*names, worker=plain)] == ["65536", "7"]


def test_a_child_that_is_lost_or_was_never_begun_is_an_error() -> None:
    with pytest.raises(EOFError):
        asked((os._exit, 3))
    with pytest.raises(LookupError, match="nothing is measured twice"):
        asyncio.run(machines.ask(b"", SimpleNamespace(id="unknown")))


def test_a_child_ends_with_its_worker_in_the_middle_of_a_job() -> None:
    program = """
import asyncio, pickle, sys, time
from types import SimpleNamespace
from benchmarks import machines
async def main():
    worker = SimpleNamespace(id="one", nanny=None)
    await machines.begin(worker)
    print(machines._children["one"]._process.pid, flush=True)
    await machines.ask(pickle.dumps((time.sleep, (100,))), worker)
asyncio.run(main())
"""
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    child = psutil.Process(int(worker.stdout.readline()))
    worker.kill()
    worker.communicate()
    assert psutil.wait_procs([child], timeout=30)[1] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("worker", "10.0.0.1:8786"), "--host: a scheduler at 10.0.0.1:8786 does not reach a worker on 127.0.0.1"),
        (("scheduler", "--host", "192.0.2.1"), "192.0.2.1|assign"),
    ],
)
def test_what_cannot_be_started_is_one_line(arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(SystemExit) as ended:
        machines.main(arguments)
    assert ended.value.code == 2
    assert re.search(told, capsys.readouterr().err.splitlines()[-1])


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit):
        machines.main(["scheduler"])
    assert "pip install -e '.[machines]'" in capsys.readouterr().err


@pytest.fixture
def address() -> Iterator[str]:
    """Of a scheduler with two workers, as a user starts them."""
    pytest.importorskip("distributed")

    def started(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.machines", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        ending.callback(process.wait)
        ending.callback(process.send_signal, signal.SIGTERM)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "whoever reaches this port can run code here, by design" in line
        where = re.search(r"tcp://127\.0\.0\.1:\d+", line)
        assert where
        return where[0]

    with ExitStack() as ending:
        scheduler = started("scheduler", "--port", "0")
        for name in ("first", "second"):
            started("worker", scheduler, "--name", name)
        yield scheduler


@pytest.mark.slow
def test_the_whole_plan_is_measured_on_each_machine_and_saved_as_a_run_of_its_own(address: str, tmp_path: Path) -> None:
    options = (*TINY, "--modes", "tracked,no_grad", *SHORT, "--processes", "1")
    done = type_in(tmp_path, "--machines", address, *options)
    assert done.status == 0, done.output
    assert "first | [1/1] forward mlp tiny cpu float32" in done.output
    runs = [read(path) for path in done.saved]
    assert [run.conditions["machine"] for run in runs] == ["first", "second"]
    assert [[result.case.mode for result in run.results] for run in runs] == [["tracked", "no_grad"]] * 2
    assert all(run.machine["gradtax"]["torch"] and run.machine["cpu"] for run in runs)
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(address: str) -> None:
    command = [sys.executable, "-m", "benchmarks.machines", "worker", address, "--port", address.rpartition(":")[2]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, env=environment())
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "usage" not in line] == [done.stderr.splitlines()[-1]]
