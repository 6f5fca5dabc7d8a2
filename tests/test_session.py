"""`pytest --benchmark`, ended: by a signal, a kill or a closed terminal, and gone on with; by a place that takes no more."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pytest
from builders import environment

from analysis.read import read

ROOT = Path(__file__).parent.parent
OPTIONS = (
    "--models", "mlp", "--sizes", "tiny,small", "--modes", "tracked,no_grad", "--device", "cpu", "--allocator", "pages_kept",
    "--budget", "0.1", "--processes", "1", "-p", "no:cacheprovider",
)  # fmt: skip


def as_from_a_shell() -> None:
    """Signals that are ignored here, as under nohup, are ignored by what is started, and rightly by a run."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def in_terminal(descriptor: int) -> None:
    as_from_a_shell()
    os.login_tty(descriptor)


def command(storage: Path, *more: str, options: Sequence[str] = OPTIONS) -> list[str]:
    return [sys.executable, "-m", "pytest", "--benchmark", *options, f"--benchmark-storage=file://{storage}", *more]


def run(storage: Path, *more: str, options: Sequence[str] = OPTIONS, **settings: Any) -> tuple[int, str]:
    ended = subprocess.run(
        command(storage, *more, options=options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment(),
        **settings,
    )
    return ended.returncode, ended.stdout + ended.stderr


def journals(storage: Path) -> list[Path]:
    return list(storage.glob("*/.unfinished_*.jsonl"))


def hidden(storage: Path) -> list[Path]:
    return list(storage.glob("*/.*"))


MODELS = """
from pathlib import Path
from torch import nn, ones

PIPE = Path(__file__).with_name("pipe")

class Waits(nn.Linear):
    def forward(self, values):
        if PIPE.exists():
            PIPE.read_bytes()
        return super().forward(values)

def steady():
    return nn.Linear(8, 8), ones(2, 8)

def waits():
    return Waits(8, 8), ones(2, 8)
"""


@dataclass
class Waiting:
    """A run in a terminal whose first job is done, and whose second waits in a worker until the pipe is closed."""

    process: subprocess.Popen[bytes]
    terminal: BinaryIO
    folder: Path
    shown: str = ""

    def __post_init__(self) -> None:
        self.storage = self.folder / "store"
        self.read_until("[2/2]")
        assert "[2/2]" in self.shown
        self.pipe = (self.folder / "pipe").open("wb")  # returns when the worker reads
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def go_on(self) -> None:
        (self.folder / "pipe").unlink()
        self.pipe.close()

    def ended(self) -> tuple[int, list[psutil.Process]]:
        """The exit status, and the processes that outlive the run."""
        if not self.terminal.closed:
            self.read_until("nothing but the end")
        return self.process.wait(60), psutil.wait_procs(self.family, timeout=30)[1]

    def read_until(self, text: str) -> None:
        with suppress(OSError):  # how Linux tells that nobody has the other end any more
            while text not in self.shown and (content := self.terminal.read(4096)):
                self.shown += content.decode(errors="replace")


def own(folder: Path) -> list[str]:
    return [f"--model={folder / 'models.py'}:{name}" for name in ("steady", "waits")]


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    (tmp_path / "models.py").write_text(MODELS)
    os.mkfifo(tmp_path / "pipe")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(tmp_path / "store", options=(*own(tmp_path), *OPTIONS[4:])), cwd=ROOT, stdin=theirs, stdout=theirs,
        stderr=theirs, env=environment(COLUMNS="300"), preexec_fn=partial(in_terminal, theirs),  # noqa: PLW1509 - no threads
    )  # fmt: skip
    os.close(theirs)
    with process, os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            yield Waiting(process, terminal, tmp_path)
        finally:
            process.kill()


@pytest.mark.parametrize("closed", [False, True])
def test_sigterm_or_a_closed_terminal_while_a_worker_hangs_saves_what_is_there_and_leaves_no_process(
    waiting: Waiting, *, closed: bool
) -> None:
    if closed:
        waiting.terminal.close()
    else:
        waiting.process.terminate()
    assert waiting.ended() == (2, [])
    assert closed or "1 of 2 jobs are kept in" in waiting.shown
    assert closed or f"--benchmark-storage=file://{waiting.storage} --resume" in waiting.shown
    (partial_run,) = waiting.storage.glob("*/*.json")
    assert [result.case.model for result in read(partial_run).results] == ["steady", "steady"]
    assert read(partial_run).conditions["unfinished"].startswith("1 of 2 jobs are measured; go on with: pytest --benchmark")
    assert hidden(waiting.storage) == journals(waiting.storage) != []


def test_a_kill_while_a_worker_hangs_leaves_no_process_and_the_run_is_gone_on_with(waiting: Waiting) -> None:
    waiting.process.kill()
    assert waiting.ended() == (-signal.SIGKILL, [])
    assert "trying" in waiting.shown
    assert "each for 300 s at most (--worker-timeout)" in waiting.shown
    waiting.go_on()
    assert list(waiting.storage.glob("*/*.json")) == []
    (journal,) = hidden(waiting.storage)
    assert len(read(journal).results) == 2
    status, shown = run(waiting.storage, "--resume", options=(*own(waiting.folder), *OPTIONS[4:]))
    assert (status, "1 of 2 jobs are there" in shown) == (0, True), shown
    (whole,) = waiting.storage.glob("*/*.json")
    assert [result.case.model for result in read(whole).results] == ["steady", "steady", "waits", "waits"]
    assert hidden(waiting.storage) == []


@pytest.mark.parametrize("taken", [False, True])
def test_a_folder_that_vanishes_is_made_again_and_where_it_cannot_be_the_run_is_shown(waiting: Waiting, *, taken: bool) -> None:
    shutil.rmtree(waiting.storage)
    if taken:
        waiting.storage.touch()
    waiting.go_on()
    status, alive = waiting.ended()
    assert (status, alive) == (int(taken), [])
    assert "Traceback" not in waiting.shown
    assert waiting.shown.index("what gradient tracking costs") < waiting.shown.rindex("waits")
    if taken:
        assert "the run could not be saved in " in waiting.shown
        assert "is gone: nothing is kept but what is shown here" in waiting.shown
    else:
        (whole,) = waiting.storage.glob("*/*.json")
        assert "unfinished" not in read(whole).conditions
        assert hidden(waiting.storage) == []


def test_ctrl_c_twice_saves_what_is_there_leaves_no_process_and_can_be_gone_on_with(tmp_path: Path) -> None:
    started = subprocess.Popen(
        command(tmp_path),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=as_from_a_shell,  # noqa: PLW1509 - no threads
    )
    assert started.stdout is not None
    shown = ""
    while "[2/2]" not in shown:
        shown += started.stdout.readline()
    family = psutil.Process(started.pid).children(recursive=True)
    started.send_signal(signal.SIGINT)
    started.send_signal(signal.SIGINT)
    shown += started.stdout.read()
    assert started.wait(60) == 2
    assert psutil.wait_procs(family, timeout=30)[1] == []
    assert "1 of 2 jobs are kept" in shown
    assert "--resume" in shown
    (partial,) = tmp_path.glob("*/*.json")
    (journal,) = journals(tmp_path)
    assert read(partial).conditions["unfinished"].startswith("1 of 2 jobs are measured")

    status, shown = run(tmp_path, "--retries", "0", "--resume")
    assert status == 2
    assert "jobs and options: " in shown
    assert journals(tmp_path) == [journal]

    status, shown = run(tmp_path, "--resume")
    assert status == 0, shown
    assert "1 of 2 jobs are there" in shown
    assert "[1/1] forward mlp small" in shown
    whole = read(max(tmp_path.glob("*/*.json")))
    assert [result.case.size for result in whole.results] == ["tiny", "tiny", "small", "small"]
    assert [segment["jobs"] for segment in whole.conditions["segments"]] == [1, 1]
    assert "unfinished" not in whole.conditions
    kept = json.loads(partial.read_text())["benchmarks"][0]["stats"]["data"]
    assert json.loads(whole.path.read_text())["benchmarks"][0]["stats"]["data"] == kept if whole.path else False
    assert journals(tmp_path) == []

    status, shown = run(tmp_path, "--resume")
    assert (status, "there is no unfinished run" in shown, "Warning" in shown) == (2, True, False)


@pytest.mark.parametrize("limit", [12 * 1024])
def test_a_disk_that_takes_no_more_is_told_and_what_was_measured_is_shown(tmp_path: Path, limit: int) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    status, shown = run(tmp_path / "store", f"--benchmark-json={tmp_path / 'too.json'}", preexec_fn=limited)
    assert "what gradient tracking costs" in shown
    assert "File too large" in shown
    assert "Traceback" not in shown
    assert status in (1, 2)
    assert [path.name for path in tmp_path.rglob("*.json")] == []
    (journal,) = journals(tmp_path / "store")
    assert journal.stat().st_size <= limit


def test_two_runs_at_once_get_two_files_each_with_its_own_table(tmp_path: Path) -> None:
    options = ("--sizes", "tiny", "--in-process", *OPTIONS[4:])
    commands = {name: command(tmp_path, "--models", name, options=options) for name in ("mlp", "lstm")}
    both = [subprocess.Popen(each, cwd=ROOT, stdout=subprocess.PIPE, env=environment()) for each in commands.values()]
    said = [each.communicate()[0].decode() for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    saved = sorted(tmp_path.glob("*/*.json"))
    assert [path.name[:4] for path in saved] == ["0001", "0002"]
    tables = {read(path).results[0].case.model: path.with_suffix(".md") for path in saved}
    assert set(tables) == set(commands)
    for name, other, text in (("mlp", "lstm", said[0]), ("lstm", "mlp", said[1])):
        assert str(tables[name]) in text
        assert f"{name} tiny" in tables[name].read_text()
        assert f"{other} tiny" not in tables[name].read_text()


def test_a_dump_that_cannot_be_written_does_not_cost_the_run(tmp_path: Path) -> None:
    (tmp_path / "dump.json").mkdir()
    status, shown = run(tmp_path / "store", f"--benchmark-json={tmp_path / 'dump.json'}", "-k", "tiny")
    assert status == 0
    assert "dump.json could not be written" in shown
    assert len(list((tmp_path / "store").glob("*/*.json"))) == 1
