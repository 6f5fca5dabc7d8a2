"""The clean room: a task in a fresh process, forked from a server that has torch loaded and nothing else done.

What a task does to its process (allocator, threads, caches, a crash) stays there. A task is a function of a module, called
with keyword `announce`; what it returns comes back, and a process that is lost comes back as a Failure that names the lane.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import math
import multiprocessing
import multiprocessing.connection
import os
import pickle
import re
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Protocol, TypeVar

from benchmarks.failure import Failure

T = TypeVar("T")
Listen = Callable[[str], None]
"""Told in words what goes on in the room."""


def nobody(text: str) -> None:
    """Listens to nothing."""


_START_SECONDS = 120.0
_PR_SET_PDEATHSIG = 1
_PRELOADED = ["torch", "benchmarks.tasks"]


class Rooms(Protocol):
    """Where tasks run. `fresh` says whether each has a process of its own."""

    fresh: bool

    def run(self, task: Callable[..., T], *args: Any, lanes: Sequence[str] = (), listen: Listen = ..., **kwargs: Any) -> T:
        """Runs `task(*args, **kwargs, announce=...)` and returns what it returns.

        `lanes` are the names that the task may announce. Raises Failure if it fails, is lost, or is not done in time.
        """

    def open(
        self, task: Callable[..., Any], *args: Any, lanes: Sequence[str] = (), **kwargs: Any
    ) -> AbstractContextManager[Room]:
        """A room in which `task` serves questions until the context is left. Raises Failure where there are no rooms."""


class Aloud:
    """What a task announces to in the process of the one who listens."""

    def __init__(self, listen: Listen) -> None:
        self._listen = listen

    def lane(self, name: str) -> None:
        pass

    def rounds(self, done: int, elapsed_seconds: float) -> None:
        self._listen(f"{done} rounds in {elapsed_seconds:.1f} s")


class ThisProcess:
    """No room at all: for debuggers, profilers and live objects. A crash or a hang is the caller's own."""

    fresh = False

    def run(self, task: Callable[..., T], *args: Any, lanes: Sequence[str] = (), listen: Listen = nobody, **kwargs: Any) -> T:
        del lanes
        try:
            return task(*args, **kwargs, announce=Aloud(listen))
        except Exception as error:
            raise Failure.of(error) from error

    def open(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - the interface's
        raise Failure("unsupported", "needs a process per lane, which --in-process does without")


class CleanRooms:
    """Fresh processes from a fork server; each may take `timeout_seconds` once it is ready."""

    fresh = True

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def run(self, task: Callable[..., T], *args: Any, lanes: Sequence[str] = (), listen: Listen = nobody, **kwargs: Any) -> T:
        with self.open(task, *args, lanes=lanes, **kwargs) as room:
            found: T = room.hear(listen)
            return found

    @contextmanager
    def open(self, task: Callable[..., Any], *args: Any, lanes: Sequence[str] = (), **kwargs: Any) -> Iterator[Room]:
        ours, theirs = self._context.Pipe()
        running = self._context.RawValue(ctypes.c_int, -1)
        with tempfile.NamedTemporaryFile(prefix="gradtax-room-") as noise:
            call = (theirs, running, tuple(lanes), noise.name, task, args, kwargs)
            process = self._context.Process(target=_live, args=call, name="gradtax room")
            room = Room(process, ours, self._timeout_seconds, Path(noise.name), lambda: _name(lanes, running.value))
            try:
                with _main_not_imported():
                    process.start()
                theirs.close()
                yield room
            finally:
                _end(process)
                room.close()


class Room:
    """A process with a task in it, seen from the parent. A room that is lost, or too late, raises Failure."""

    def __init__(
        self, process: BaseProcess, connection: multiprocessing.connection.Connection, timeout_seconds: float, noise: Path,
        lane: Callable[[], str | None],
    ) -> None:  # fmt: skip
        self._process, self._connection, self._noise, self._lane = process, connection, noise, lane
        self._timeout_seconds = timeout_seconds
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._deadline = time.monotonic() + _START_SECONDS
        self._kills_before = _out_of_memory_kills()

    def close(self) -> None:
        self._socket.close()
        self._connection.close()

    def ask(self, question: Any) -> Any:
        """The answer of a task that serves questions (`announce.serve`)."""
        with suppress(OSError):  # a room that is gone is told by what is heard
            self._connection.send(question)
        return self.hear()

    def hear(self, listen: Listen = nobody) -> Any:
        """The task's next answer, or what it returns."""
        try:
            while (left := self._deadline - time.monotonic()) > 0:
                # The socket's own time limit: to poll before reading costs another 50 us.
                self._socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", *divmod(math.ceil(left * 1e6), 10**6))
                )
                kind, value = self._connection.recv()
                if kind == "ready":
                    self._deadline = time.monotonic() + self._timeout_seconds
                elif kind == "says":
                    listen(value)
                elif kind == "failed":
                    raise Failure(*value)
                else:
                    return value
        except BlockingIOError:
            pass
        except (OSError, EOFError, pickle.UnpicklingError):
            self._process.join(10)
            said = self._noise.read_text(errors="replace")
            raise _lost(self._process.exitcode, said, self._kills_before, self._lane()) from None
        reason = f"not done within {self._timeout_seconds:g} s (--timeout gives more)"
        raise Failure("timed_out", reason, self._lane())


class _Announce:
    """Tells the parent: the lane in shared memory, which costs no system call, and rounds as messages."""

    def __init__(self, parent: multiprocessing.connection.Connection, running: Any, lanes: Sequence[str]) -> None:
        self._parent, self._running = parent, running
        self._numbers = {name: number for number, name in enumerate(lanes)}

    def lane(self, name: str) -> None:
        self._running.value = self._numbers.get(name, -1)

    def rounds(self, done: int, elapsed_seconds: float) -> None:
        self._parent.send(("says", f"{done} rounds in {elapsed_seconds:.1f} s"))

    def serve(self, answer: Callable[[Any], Any]) -> None:
        """Answers the parent's questions for as long as it asks."""
        with suppress(EOFError):
            while True:
                self._parent.send(("answer", answer(self._parent.recv())))


def _live(
    parent: multiprocessing.connection.Connection, running: Any, lanes: Sequence[str], noise: str,
    task: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any],
) -> None:  # fmt: skip
    """The life of a room, in the new process: a process group of its own, what it prints goes to the file `noise`."""
    os.setsid()
    _die_with_parent()
    gc.freeze()  # a collection need not go through all of torch, which takes half a second
    output = os.open(noise, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable(output)
    with suppress(OSError):  # this process, not its parent, when memory is short
        Path("/proc/self/oom_score_adj").write_text("1000")
    parent.send(("ready", None))
    try:
        message: tuple[str, Any] = ("done", task(*args, **kwargs, announce=_Announce(parent, running, lanes)))
    except BaseException as error:  # noqa: BLE001 - SystemExit from a model's code too
        failure = Failure.of(error)
        message = ("failed", (failure.status, failure.reason, failure.lane))
    parent.send(message)
    parent.close()
    os._exit(0)


def _die_with_parent() -> None:
    """A room that hangs does not outlive the fork server, which ends with the process that started it (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _name(lanes: Sequence[str], number: int) -> str | None:
    return lanes[number] if 0 <= number < len(lanes) else None


def _lost(exit_status: int | None, noise: str, kills_before: int, lane: str | None) -> Failure:
    """The failure that a process's end without a word amounts to."""
    frames = re.findall(r'File "([^"]+)", line (\d+) in ', noise)
    own_frames = [frame for frame in frames if not frame[0].startswith((sys.prefix, sys.base_prefix))]
    place = f" ({Path(own_frames[0][0]).name}:{own_frames[0][1]})" if own_frames else ""
    if exit_status is None or exit_status >= 0:
        return Failure("crashed", f"the process ended with exit status {exit_status}{place}", lane)
    if exit_status == -signal.SIGKILL and _out_of_memory_kills() > kills_before:
        return Failure("out_of_memory", "the kernel killed the process, for memory was short", lane)
    return Failure("crashed", f"the process was killed by {signal.Signals(-exit_status).name}{place}", lane)


def _out_of_memory_kills() -> int:
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _end(process: BaseProcess) -> None:
    """Kills the room and whatever it started; one that could not be started has nothing to kill."""
    if process.pid is None:
        return
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(10)


@contextmanager
def _main_not_imported() -> Iterator[None]:
    """multiprocessing imports the parent's main script into every child, which here would be pytest, or the user's script."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
