"""`pytest --benchmark`, ended: by a signal, a kill or a closed terminal, and gone on with; by a place that takes no more."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from builders import environment
from commands import HERE, ROOT, SHORT, TINY, benchmark, type_here

from analysis.read import read

MODELS = """
import os, shutil, signal, subprocess, sys
from pathlib import Path
from torch import nn, ones

FOLDER = Path(__file__).parent
STORE, TRAP = FOLDER / "store", FOLDER / "trap"

class Trapped(nn.Linear):
    def forward(self, values):
        if TRAP.exists():
            TRAP.unlink()
            EVENT
        return super().forward(values)

def full(_):
    raise OSError(28, "No space left on device")

def steady():
    return nn.Linear(8, 8), ones(2, 8)

def trapped():
    return Trapped(8, 8), ones(2, 8)
"""


@pytest.fixture(autouse=True)
def _as_from_a_shell() -> Iterator[None]:
    """Signals that are ignored here, as under nohup, would be ignored by a run, here or started from here, and rightly."""
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def models(folder: Path, event: str, names: tuple[str, ...] = ("steady", "trapped")) -> list[str]:
    """What measures two models. `event` is what happens in one of them, each time that the file `trap` is there."""
    (folder / "models.py").write_text(MODELS.replace("EVENT", event))
    (folder / "trap").touch()
    return [*(f"--model={folder / 'models.py'}:{name}" for name in names), "--modes", "tracked,no_grad"]


def hidden(storage: Path) -> list[Path]:
    return list(storage.glob("*/.*"))


class Waiting:
    """A run in a terminal whose first job is done, and whose second waits in a worker with a child that has a session of its own."""

    EVENT = (
        "subprocess.Popen([sys.executable, '-S', '-c', 'import signal; signal.pause()'], start_new_session=True); "
        "(FOLDER / 'pipe').read_bytes()"
    )

    def __init__(self, folder: Path, shown: str, *more: str) -> None:
        command = benchmark(folder / "store", *models(folder, self.EVENT), *SHORT, "--processes", "1", *more)
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *command], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
            env=environment(COLUMNS="300"), preexec_fn=partial(os.login_tty, theirs),  # noqa: PLW1509 - no threads
        )  # fmt: skip
        os.close(theirs)
        self.terminal = os.fdopen(ours, "rb", buffering=0)
        self.shown = ""
        with suppress(OSError):  # how Linux tells that nobody has the other end any more
            while shown not in self.shown:
                self.shown += self.terminal.read(4096).decode(errors="replace")
        assert shown in self.shown
        with (folder / "pipe").open("wb") as pipe:  # returns when the worker reads
            self.pipe = os.dup(pipe.fileno())
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def ended(self) -> tuple[int, list[psutil.Process]]:
        """The exit status, and the processes that outlive the run."""
        status, alive = self.process.wait(60), psutil.wait_procs(self.family, timeout=30)[1]
        self.terminal.close()
        os.close(self.pipe)
        return status, alive


def test_a_kill_and_later_a_closed_terminal_leave_no_process_and_what_was_measured_before(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    storage = tmp_path / "store"
    killed = Waiting(tmp_path, "[2/2]")
    killed.process.kill()
    assert killed.ended() == (-signal.SIGKILL, [])
    assert "trying" in killed.shown
    assert "each for 300 s at most (--worker-timeout)" in killed.shown
    (journal,) = hidden(storage)
    assert len(read(journal).results) == 2
    assert list(storage.glob("*/*.json")) == []

    closed = Waiting(tmp_path, "[1/1]", "--resume")
    closed.terminal.close()
    assert closed.ended() == (2, [])
    assert "1 of 2 jobs are there" in closed.shown
    (partial_run,) = storage.glob("*/*.json")
    assert [result.case.model for result in read(partial_run).results] == ["steady", "steady"]
    assert hidden(storage) == [journal]


class SecondSignal:
    def pytest_keyboard_interrupt(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_and_one_more_save_what_is_there_and_the_run_can_be_gone_on_with(tmp_path: Path, name: str) -> None:
    storage = tmp_path / "store"
    options = (*models(tmp_path, f"os.kill(os.getpid(), signal.{name})"), *HERE)
    ended = type_here(storage, *options, plugins=(SecondSignal(),))
    assert ended.status == 2, ended.output
    assert "1 of 2 jobs are kept in" in ended.output
    assert f"--benchmark-storage=file://{storage}" in ended.output
    assert "--resume" in ended.output
    (first,) = ended.saved
    assert read(first).conditions["unfinished"].startswith("1 of 2 jobs are measured; go on with: pytest --benchmark")
    (journal,) = hidden(storage)

    refused = type_here(storage, *options, "--retries", "0", "--resume")
    assert (refused.status, "jobs and options: " in refused.output) == (2, True)
    assert hidden(storage) == [journal]

    gone_on = type_here(storage, *options, "--resume")
    assert gone_on.status == 0, gone_on.output
    assert "1 of 2 jobs are there" in gone_on.output
    assert "[1/1] forward trapped" in gone_on.output
    whole = read(gone_on.saved[-1])
    assert [result.case.model for result in whole.results] == ["steady", "steady", "trapped", "trapped"]
    assert [segment["jobs"] for segment in whole.conditions["segments"]] == [1, 1]
    assert "unfinished" not in whole.conditions
    kept, again = (json.loads(path.read_text())["benchmarks"][0]["stats"]["data"] for path in gone_on.saved)
    assert kept == again
    assert hidden(storage) == []

    nothing = type_here(storage, *options, "--resume")
    assert (nothing.status, "there is no unfinished run" in nothing.output, "Warning" in nothing.output) == (2, True, False)


def test_a_signal_that_the_user_has_had_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        ended = type_here(tmp_path / "store", *models(tmp_path, "os.kill(os.getpid(), signal.SIGTERM)"), *HERE)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (ended.status, len(ended.results())) == (0, 4), ended.output


def test_a_folder_that_vanishes_is_made_again(tmp_path: Path) -> None:
    ended = type_here(tmp_path / "store", *models(tmp_path, "shutil.rmtree(STORE)"), *HERE)
    assert ended.status == 0, ended.output
    assert "unfinished" not in read(ended.saved[0]).conditions
    assert hidden(ended.storage) == []


FULL = "cannot be written: No space left on device; --benchmark-storage names another place"
GONE = "is gone: nothing is kept but what is shown here"


@pytest.mark.parametrize(
    ("first", "second", "event", "status", "reasons"),
    [
        ("steady", "trapped", "shutil.rmtree(STORE); STORE.touch()", 1, ["Not a directory", GONE]),
        ("trapped", "steady", "os.fsync = full", 2, ["No space left on device", FULL]),
    ],
)
def test_a_place_that_takes_no_more_is_told_and_what_was_measured_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str, event: str, status: int, reasons: list[str]
) -> None:
    monkeypatch.setattr(os, "fsync", os.fsync)  # and put back after the run
    ended = type_here(tmp_path / "store", *models(tmp_path, event, (first, second)), *HERE)
    assert ended.output.index("what gradient tracking costs") < ended.output.rindex("trapped own")
    assert f"the run could not be saved in {ended.storage}" in ended.output
    assert [reason for reason in reasons if reason not in ended.output] == [], ended.output
    assert "Traceback" not in ended.output
    assert (ended.status, ended.saved) == (status, [])


def test_a_dump_that_cannot_be_written_does_not_cost_the_run(tmp_path: Path) -> None:
    (tmp_path / "dump.json").mkdir()
    ended = type_here(tmp_path / "store", f"--benchmark-json={tmp_path / 'dump.json'}", *TINY, *HERE, "-k", "tracked")
    assert (ended.status, len(ended.saved)) == (0, 1)
    assert "dump.json could not be written" in ended.output
