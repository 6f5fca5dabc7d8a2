"""The clean room: tasks come back with their value or as a Failure that names the lane, and leave nothing behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.failure import Failure
from benchmarks.measure.timing import Announce
from benchmarks.room import CleanRooms, ThisProcess

LANES = ("one", "two")


def adds(one: int, other: int, *, announce: Announce) -> tuple[int, int, bool]:
    del announce
    return one + other, os.getpid(), hasattr(sys.modules["__main__"], "__file__")


def speaks(*, announce: Announce) -> None:
    announce.rounds(7, 0.5)


def raises(*, announce: Announce) -> None:
    announce.lane("one")
    raise ValueError("no such layer")


def crashes(*, announce: Announce) -> None:
    announce.lane("two")
    ctypes.string_at(0)


def ends(status: int, *, announce: Announce) -> None:
    announce.lane("one")
    os._exit(status)


def is_killed(*, announce: Announce) -> None:
    del announce
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(where: str, *, announce: Announce) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    Path(where).write_text(f"{os.getpid()} {child.pid}")
    announce.lane("two")
    while True:
        signal.pause()


def prints(*, announce: Announce) -> None:
    del announce
    os.write(1, b"noise")
    os.write(2, b"noise")
    print("noise")  # noqa: T201 - the very point


def sets_environment(*, announce: Announce) -> str | None:
    del announce
    before = os.environ.get("GRADTAX_TEST")
    os.environ["GRADTAX_TEST"] = "set"
    return before


@pytest.fixture(scope="module")
def rooms() -> CleanRooms:
    return CleanRooms(timeout_seconds=60)


def failure_of(rooms: CleanRooms, task: Callable[..., Any], *args: Any) -> tuple[str, str, str | None]:
    with pytest.raises(Failure) as caught:
        rooms.run(task, *args, lanes=LANES)
    return caught.value.status, caught.value.reason, caught.value.lane


def test_a_task_runs_in_a_process_of_its_own_without_the_parents_main_script(rooms: CleanRooms) -> None:
    total, pid, main_imported = rooms.run(adds, 2, 3)
    again = rooms.run(adds, 2, other=3)
    assert (total, again[0]) == (5, 5)
    assert len({pid, again[1], os.getpid()}) == 3
    assert not main_imported


def test_what_a_room_says_is_heard(rooms: CleanRooms) -> None:
    heard: list[str] = []
    rooms.run(speaks, listen=heard.append)
    assert heard == ["7 rounds in 0.5 s"]


def test_an_exception_is_a_crash_with_its_place(rooms: CleanRooms) -> None:
    status, reason, lane = failure_of(rooms, raises)
    assert (status, lane) == ("crashed", None)
    assert reason.startswith("ValueError: no such layer (test_room.py:")


def test_a_segmentation_fault_names_the_signal_the_place_and_the_lane(rooms: CleanRooms) -> None:
    status, reason, lane = failure_of(rooms, crashes)
    assert (status, lane) == ("crashed", "two")
    assert reason.startswith("the process was killed by SIGSEGV (test_room.py:")


def test_an_exit_without_a_word_is_a_crash_with_its_status(rooms: CleanRooms) -> None:
    assert failure_of(rooms, ends, 3) == ("crashed", "the process ended with exit status 3", "one")
    assert failure_of(rooms, ends, 0)[1] == "the process ended with exit status 0"


def test_a_kill_is_out_of_memory_only_where_the_kernel_counted_one(rooms: CleanRooms, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure_of(rooms, is_killed) == ("crashed", "the process was killed by SIGKILL", None)
    counts = iter((4, 5))
    monkeypatch.setattr("benchmarks.room._out_of_memory_kills", lambda: next(counts))
    assert failure_of(rooms, is_killed)[0] == "out_of_memory"


def test_a_hang_is_given_up_and_killed_with_everything_that_it_started(tmp_path: Path) -> None:
    where = tmp_path / "pids"
    status, reason, lane = failure_of(CleanRooms(timeout_seconds=3), hangs, str(where))
    assert (status, lane) == ("timed_out", "two")
    assert "3 s" in reason
    gone = [int(pid) for pid in where.read_text().split()]
    assert all(not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in gone)


def test_what_a_room_prints_stays_in_it(rooms: CleanRooms, capfd: pytest.CaptureFixture[str]) -> None:
    rooms.run(prints)
    assert capfd.readouterr() == ("", "")


def test_what_a_room_does_to_itself_is_unknown_to_the_next(rooms: CleanRooms) -> None:
    assert [rooms.run(sets_environment), rooms.run(sets_environment)] == [None, None]
    assert "GRADTAX_TEST" not in os.environ


def test_without_a_room_tasks_run_here_and_fail_alike() -> None:
    assert ThisProcess().run(adds, 2, 3)[1] == os.getpid()
    with pytest.raises(Failure) as caught:
        ThisProcess().run(raises, lanes=LANES)
    assert (caught.value.status, caught.value.reason[:26]) == ("crashed", "ValueError: no such layer ")


def test_a_task_that_cannot_be_sent_is_told_as_that(rooms: CleanRooms) -> None:
    with pytest.raises(AttributeError, match="local object"):
        rooms.run(lambda: None)
