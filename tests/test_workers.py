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
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.failure import Failure
from benchmarks.workers import LAUNCHES, InProcess, Launches, begin_anew, note_arm

ARMS = ("tracked", "no_grad")
MIB = 2**20


@pytest.fixture(scope="module")
def workers() -> Launches:
    return Launches(timeout_seconds=60)


@pytest.fixture
def hasty(workers: Launches) -> Iterator[Launches]:
    """The same launches, since each imports torch, but tasks are given up after a moment."""
    workers._timeout_seconds = 0.4
    yield workers
    workers._timeout_seconds = 60


def failure_of(workers: Launches, task: Callable[..., Any], *args: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        workers.run(task, *args, arms=ARMS)
    return caught.value


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


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


def hangs(where: str) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
    Path(where).write_text(f"{os.getpid()} {child.pid}")
    note_arm("no_grad")
    while True:
        signal.pause()


def prints(size: int) -> str:
    os.write(1, b"noise")
    for _ in range(size // MIB):
        print("x" * MIB)  # noqa: T201 - the very point
        sys.stderr.write("y" * MIB)
    return "done"


def sets_environment() -> str | None:
    before = os.environ.get("GRADTAX_TEST")
    os.environ["GRADTAX_TEST"] = "set"
    return before


def loads_data() -> list[int]:
    """What a DataLoader's two workers, forked from here, have read; a function of this place could not be sent to them."""
    data = TensorDataset(torch.arange(6))
    return [*DataLoader(data, batch_size=2, num_workers=2, collate_fn=lambda rows: int(sum(row[0] for row in rows)))]


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


def test_a_task_runs_in_a_process_of_its_own_without_the_parents_main_script(workers: Launches) -> None:
    (pid, _, main_imported), (again, *_) = workers.run(whereabouts), workers.run(whereabouts)
    assert len({pid, again, os.getpid()}) == 3
    assert not main_imported
    assert is_gone(pid)


def test_workers_of_different_launches_have_different_parents(workers: Launches) -> None:
    parents = [workers.run(whereabouts, launch=launch)[1] for launch in (0, 1, 0, LAUNCHES)]
    assert parents[0] == parents[2] == parents[3] != parents[1]
    assert os.getpid() not in parents


def test_an_exception_is_a_crash_with_its_place_and_even_leaving_the_program_is_told(workers: Launches) -> None:
    crash = failure_of(workers, raises, ValueError("no such layer"))
    assert crash.status == "crashed"
    assert crash.reason.startswith("ValueError: no such layer (test_workers.py:")
    assert failure_of(workers, raises, SystemExit(3)).reason.startswith("SystemExit: 3")
    assert failure_of(workers, raises, MemoryError("12 GiB")).status == "out_of_memory"
    known = failure_of(workers, raises, Failure("unsupported", "not here", "detach"))
    assert (known.status, known.reason, known.arm) == ("unsupported", "not here", "detach")


def test_a_segmentation_fault_names_the_signal_the_place_and_the_arm(workers: Launches) -> None:
    crash = failure_of(workers, dies_in, "no_grad", ctypes.string_at, 0)
    assert (crash.status, crash.arm) == ("crashed", "no_grad")
    assert crash.reason.startswith("the process was killed by SIGSEGV (test_workers.py:")


@pytest.mark.parametrize(
    ("death", "number", "reason"),
    [
        (os._exit, 3, "the process ended with exit status 3"),
        (os._exit, 0, "the process ended with exit status 0"),
        (kills_itself, signal.SIGKILL, "the process was killed by SIGKILL"),
        (kills_itself, signal.SIGRTMIN + 3, f"the process was killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_a_process_that_ends_without_a_word_is_a_crash_of_the_arm_that_ran(
    workers: Launches, death: Callable[..., Any], number: int, reason: str
) -> None:
    crash = failure_of(workers, dies_in, "tracked", death, number)
    assert (crash.status, crash.reason, crash.arm) == ("crashed", reason, "tracked")


def test_a_kill_is_out_of_memory_where_the_kernel_counted_one(workers: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((4, 5))
    monkeypatch.setattr("benchmarks.workers._out_of_memory_kills", lambda: next(counts))
    assert failure_of(workers, kills_itself, signal.SIGKILL).status == "out_of_memory"


def test_an_arm_that_is_not_one_of_the_tasks_is_not_told(workers: Launches) -> None:
    assert failure_of(workers, dies_in, "another", os._exit, 1).arm is None


def test_a_hang_is_given_up_and_killed_with_everything_that_it_started(hasty: Launches, tmp_path: Path) -> None:
    where = tmp_path / "pids"
    lost = failure_of(hasty, hangs, str(where))
    assert (lost.status, lost.arm) == ("timed_out", "no_grad")
    assert "0.4 s (--worker-timeout gives more)" in lost.reason
    assert all(is_gone(int(pid)) for pid in where.read_text().split())


def naps(pauses: int) -> str:
    for _ in range(pauses):
        time.sleep(0.25)
        begin_anew()
    return "done"


def test_a_task_may_have_its_time_begin_anew(hasty: Launches) -> None:
    assert hasty.run(naps, 4) == "done", "each of its parts is done in time, not all of them together"


def test_what_a_worker_prints_stays_in_it_however_much(workers: Launches, capfd: pytest.CaptureFixture[str]) -> None:
    assert workers.run(prints, 50 * MIB) == "done"
    assert capfd.readouterr() == ("", "")


def test_what_a_worker_does_to_itself_is_unknown_to_the_next(workers: Launches) -> None:
    assert [workers.run(sets_environment), workers.run(sets_environment)] == [None, None]
    assert "GRADTAX_TEST" not in os.environ


def test_a_dataloader_in_a_worker_forks_its_own(workers: Launches) -> None:
    assert workers.run(loads_data) == [1, 5, 9]


def test_a_served_task_answers_until_it_is_no_longer_asked_and_is_then_gone(workers: Launches) -> None:
    with workers.serve(counts_from, 10, arms=ARMS) as one, workers.serve(counts_from, 100, arms=ARMS, launch=1) as other:
        assert [one(1), other(2), one(3)] == [11, 102, 14]
        with pytest.raises(Failure) as caught:
            other(-1)
        assert (caught.value.reason, caught.value.arm) == ("the process was killed by SIGKILL", "no_grad")
        with pytest.raises(Failure):
            other(1)
        assert one(1) == 15
        workers_alive = [
            process for process in psutil.process_iter(["pid", "ppid"]) if process.info["ppid"] in servers(workers)
        ]
    assert all(is_gone(process.pid) for process in workers_alive)


def servers(workers: Launches) -> set[int]:
    return {vars(server)["_forkserver_pid"] for server in workers._servers}


def test_a_server_that_cannot_begin_says_so_when_it_is_asked(workers: Launches) -> None:
    with workers.serve(raises, ValueError("no such layer")) as ask, pytest.raises(Failure, match="no such layer"):
        ask(1)


def test_a_result_that_cannot_be_sent_is_a_crash(workers: Launches) -> None:
    assert "lambda" in failure_of(workers, returns_a_lambda).reason


def returns_a_lambda() -> Any:
    return lambda: None


def test_in_this_process_tasks_fail_alike_but_cannot_serve() -> None:
    here = InProcess()
    assert here.run(whereabouts)[0] == os.getpid()
    with pytest.raises(Failure, match="ValueError: no such layer"):
        here.run(raises, ValueError("no such layer"), arms=ARMS)
    with pytest.raises(Failure, match="--in-process") as caught, here.serve(counts_from, 1):
        pass
    assert caught.value.status == "unsupported"


def starts_a_session(where: str, *, hang: bool) -> None:
    """A child with a session of its own, which has one in turn; nobody in its group would end it with the worker."""
    grandchild = f"import subprocess, sys; subprocess.Popen({PAUSE!r}, start_new_session=True).wait()"
    child = subprocess.Popen([sys.executable, "-S", "-c", grandchild], start_new_session=True)
    while not (children := psutil.Process(child.pid).children()):
        pass
    Path(where).write_text(f"{os.getpid()} {child.pid} {children[0].pid}")
    while hang:
        signal.pause()


PAUSE = [sys.executable, "-S", "-c", "import signal; signal.pause()"]


def test_children_with_a_session_of_their_own_end_with_the_worker(workers: Launches, tmp_path: Path) -> None:
    workers.run(partial(starts_a_session, str(tmp_path / "pids"), hang=False))
    assert all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_nothing_outlives_the_process_that_was_killed_while_a_worker_hangs(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    os.mkfifo(told)
    program = "import sys, test_workers as t; t.Launches(600).run(t.partial(t.starts_a_session, sys.argv[1], hang=True))"
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    parent = subprocess.Popen([sys.executable, "-c", program, str(told)], env={**os.environ, "PYTHONPATH": folders})
    left = [psutil.Process(int(pid)) for pid in told.read_text().split()]
    launch = psutil.Process(left[0].ppid())
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs([*left, launch], timeout=30)
    assert alive == []


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


def test_a_worker_may_have_so_much_memory_and_no_more() -> None:
    limited = Launches(timeout_seconds=60, memory_limit=2 * 2**30)
    assert limited.run(fills, 2**20) == 2**20
    assert failure_of(limited, fills, 3 * 2**30).status == "out_of_memory"


def fills(size: int) -> int:
    return torch.zeros(size, dtype=torch.uint8).numel()
