"""Workers: tasks come back with their value or as a Failure that names the arm, and leave nothing behind."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.failure import Failure
from benchmarks.workers import LAUNCHES, InProcess, Launches, begin_anew, note_arm

MIB = 2**20


@pytest.fixture(scope="module")
def workers() -> Iterator[Launches]:
    launches = Launches(timeout_seconds=60)
    yield launches
    launches.close()


@pytest.fixture
def hasty(workers: Launches, monkeypatch: pytest.MonkeyPatch) -> Launches:
    """The same launches, since each imports torch, but tasks are given up after a moment."""
    monkeypatch.setattr(workers, "_timeout_seconds", 1.0)
    return workers


def failure_of(workers: Launches, task: Callable[..., Any], *args: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        workers.run(task, *args)
    return caught.value


def all_gone(where: Path) -> bool:
    """The processes that a task has told of."""
    there = [pid for pid in map(int, where.read_text().split()) if psutil.pid_exists(pid)]
    return all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in there)


def imported(name: str) -> bool:
    return name in sys.modules


def whereabouts() -> tuple[int, int, bool]:
    return os.getpid(), os.getppid(), hasattr(sys.modules["__main__"], "__file__")


def raises(error: BaseException) -> None:
    note_arm("tracked")
    raise error


def dies_in(arm: str, death: Callable[..., Any], *args: Any) -> None:
    note_arm(arm)
    death(*args)


def kills_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def returns_a_lambda() -> Any:
    return lambda: None


def starts_sessions(where: Path, hang: bool) -> None:
    """A child with a session of its own, which has one in turn; nobody in the worker's group would end it."""
    pause = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
    grandchild = f"import subprocess; subprocess.Popen({pause!r}, start_new_session=True).wait()"
    child = subprocess.Popen([sys.executable, "-S", "-c", grandchild], start_new_session=True)
    while not (children := psutil.Process(child.pid).children()):
        pass
    where.write_text(f"{os.getpid()} {child.pid} {children[0].pid}")
    note_arm("no_grad")
    while hang:
        signal.pause()


def prints(size: int) -> str:
    os.write(1, b"noise")
    for _ in range(size // MIB):
        print("x" * MIB)  # noqa: T201 - the very point
        sys.stderr.write("y" * MIB)
    return "done"


def loads_data() -> list[int]:
    """What a DataLoader's two workers, forked from here, have read; a function of this place could not be sent to them."""
    data = TensorDataset(torch.arange(6))
    return [*DataLoader(data, batch_size=2, num_workers=2, collate_fn=lambda rows: int(sum(row[0] for row in rows)))]


def naps(pauses: int) -> str:
    for _ in range(pauses):
        time.sleep(0.6)
        begin_anew()
    return "done"


def fills(size: int) -> int:
    return torch.zeros(size, dtype=torch.uint8).numel()


def counts_from(start: int) -> Callable[[int], int]:
    total = start

    def answer(question: int) -> int:
        nonlocal total
        if question < 0:
            note_arm("no_grad")
            kills_itself(signal.SIGKILL)
        total += question
        return total

    return answer


def test_a_task_runs_in_a_process_of_its_launch_without_the_parents_main_script(workers: Launches) -> None:
    pids, parents, main_imported = zip(
        *(workers.run(whereabouts, launch=launch) for launch in (0, 1, 0, LAUNCHES)), strict=True
    )
    assert len({*pids, os.getpid()}) == 5
    assert parents[0] == parents[2] == parents[3] != parents[1]
    assert os.getpid() not in parents
    assert not any(main_imported)


FAILURES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[str, str | None, str]]] = {
    "raises": (raises, (ValueError("no such layer"),), ("crashed", None, "ValueError: no such layer (test_workers.py:")),
    "leaves the program": (raises, (SystemExit(3),), ("crashed", None, "SystemExit: 3")),
    "gets no memory": (raises, (MemoryError("12 GiB"),), ("out_of_memory", None, "MemoryError: 12 GiB")),
    "knows why": (raises, (Failure("unsupported", "not here", "detach"),), ("unsupported", "detach", "not here")),
    "returns what cannot be sent": (returns_a_lambda, (), ("crashed", None, "")),
    "segfaults": (
        dies_in, ("no_grad", ctypes.string_at, 0), ("crashed", "no_grad", "the process was killed by SIGSEGV (test_workers.py:")
    ),
    "is killed": (
        dies_in, ("tracked", kills_itself, signal.SIGKILL), ("crashed", "tracked", "the process was killed by SIGKILL")
    ),
    "gets a signal without a name": (
        dies_in, ("tracked", kills_itself, signal.SIGRTMIN + 3), ("crashed", "tracked", "the process was killed by signal ")
    ),
    "ends its process": (dies_in, ("tracked", os._exit, 3), ("crashed", "tracked", "the process ended with exit status 3")),
    "ends it well": (dies_in, ("tracked", os._exit, 0), ("crashed", "tracked", "the process ended with exit status 0")),
}  # fmt: skip


@pytest.mark.parametrize(("task", "args", "expected"), FAILURES.values(), ids=FAILURES)
def test_a_failure_tells_status_arm_and_reason_of_a_task_that(
    workers: Launches, task: Callable[..., Any], args: Any, expected: tuple[str, str | None, str]
) -> None:
    failure = failure_of(workers, task, *args)
    assert (failure.status, failure.arm, failure.reason[: len(expected[2])]) == expected


def test_a_kill_is_out_of_memory_where_the_kernel_counted_one(workers: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((4, 5))
    monkeypatch.setattr("benchmarks.workers._out_of_memory_kills", lambda: next(counts))
    assert failure_of(workers, kills_itself, signal.SIGKILL).status == "out_of_memory"


def test_a_hang_is_given_up_and_killed_with_everything_that_it_started(hasty: Launches, tmp_path: Path) -> None:
    lost = failure_of(hasty, starts_sessions, tmp_path / "pids", True)
    assert (lost.status, lost.arm) == ("timed_out", "no_grad")
    assert "1 s (--worker-timeout gives more)" in lost.reason
    assert all_gone(tmp_path / "pids")


def test_a_task_may_have_its_time_begin_anew(hasty: Launches) -> None:
    assert hasty.run(naps, 2) == "done", "each of its parts is done in time, not both together"


def test_children_with_a_session_of_their_own_end_with_the_worker(workers: Launches, tmp_path: Path) -> None:
    workers.run(starts_sessions, tmp_path / "pids", False)
    assert all_gone(tmp_path / "pids")


def test_what_a_worker_prints_stays_in_it_however_much(workers: Launches, capfd: pytest.CaptureFixture[str]) -> None:
    assert workers.run(prints, 2 * MIB) == "done"
    assert capfd.readouterr() == ("", "")


def test_a_dataloader_in_a_worker_forks_its_own(workers: Launches) -> None:
    assert workers.run(loads_data) == [1, 5, 9]


def test_a_served_task_answers_until_it_is_no_longer_asked_and_is_then_gone(workers: Launches) -> None:
    with workers.serve(counts_from, 10) as one, workers.serve(counts_from, 100, launch=1) as other:
        assert [one(1), other(2), one(3)] == [11, 102, 14]
        with pytest.raises(Failure) as caught:
            other(-1)
        assert (caught.value.reason, caught.value.arm) == ("the process was killed by SIGKILL", "no_grad")
        with pytest.raises(Failure):
            other(1)
        assert one(1) == 15
        launches = {workers.run(whereabouts, launch=launch)[1] for launch in (0, 1)}
        serving = [process for launch in launches for process in psutil.Process(launch).children()]
    assert psutil.wait_procs(serving, timeout=0)[1] == []
    with workers.serve(raises, ValueError("no such layer")) as ask, pytest.raises(Failure, match="no such layer"):
        ask(1)


def test_in_this_process_tasks_fail_alike_but_cannot_serve() -> None:
    here = InProcess()
    assert here.run(whereabouts)[0] == os.getpid()
    with pytest.raises(Failure, match="ValueError: no such layer"):
        here.run(raises, ValueError("no such layer"))
    with pytest.raises(Failure, match="--in-process") as caught, here.serve(counts_from, 1):
        pass
    assert caught.value.status == "unsupported"


def test_failures_that_are_kept_hold_no_descriptors(workers: Launches) -> None:
    kept = [failure_of(workers, raises, ValueError("no such layer"))]
    before = psutil.Process().num_fds()
    for _ in range(3):
        kept.append(failure_of(workers, dies_in, "tracked", os._exit, 1))
        with pytest.raises(Failure) as caught, workers.serve(raises, ValueError("no such layer")) as ask:
            ask(1)
        kept.append(caught.value)
    assert psutil.Process().num_fds() <= before


def test_where_no_process_can_be_started_that_is_a_failure_and_no_error(workers: Launches) -> None:
    workers.run(os.getpid)
    usual, taken = resource.getrlimit(resource.RLIMIT_NOFILE), os.pipe()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(taken), usual[1]))
        Launches(timeout_seconds=60).prepare()
        lost = failure_of(workers, os.getpid)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        for descriptor in taken:
            os.close(descriptor)
    assert lost.reason.startswith("no process could be started: OSError: [Errno 24] Too many open files")
    assert workers.run(os.getpid) != os.getpid()


def test_a_worker_may_have_so_much_memory_and_no_more(workers: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_memory_limit", 2 * 2**30)
    assert workers.run(fills, 2**20) == 2**20
    assert failure_of(workers, fills, 3 * 2**30).status == "out_of_memory"


def test_a_launch_that_is_killed_costs_the_task_that_ran_and_not_the_next(workers: Launches) -> None:
    launch = psutil.Process(workers.run(whereabouts)[1])
    with workers.serve(counts_from, 1) as ask:
        assert ask(1) == 2
        launch.kill()
        while launch.status() != psutil.STATUS_ZOMBIE:
            pass
        with pytest.raises(Failure, match="the process "):
            ask(1)
    assert workers.run(whereabouts)[1] not in (launch.pid, os.getpid())


IMPORTS = """
import pathlib
pathlib.Path({pids!r}).write_text(str(__import__("os").getpid()))
pathlib.Path({pipe!r}).read_bytes()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a launch ends once it has imported")
def test_a_library_that_cannot_be_imported_does_not_cost_a_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{tmp_path}")
    with closing(Launches(60.0, ["broken_library", "ftplib"])) as launches:
        assert launches.run(imported, "ftplib"), "what comes behind it is there all the same"


def test_a_launch_that_still_imports_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    pipe, pids = tmp_path / "pipe", tmp_path / "pids"
    os.mkfifo(pipe)
    (tmp_path / "never_done.py").write_text(IMPORTS.format(pipe=str(pipe), pids=str(pids)))
    starts = "from benchmarks.workers import Launches; Launches(1, ['never_done']).prepare(1); input()"
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}:{tmp_path}"}
    process = subprocess.Popen([sys.executable, "-c", starts], stdin=subprocess.PIPE, env=environment)
    with pipe.open("wb"):  # returns when the launch reads
        launch = psutil.Process(int(pids.read_text()))
        process.kill()
        process.communicate()
        assert psutil.wait_procs([launch], timeout=20)[1] == []
