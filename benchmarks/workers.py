"""Workers: fresh processes in which a task runs, forked from launches that have torch loaded and nothing else done.

What a task does to its process (allocator, threads, caches, a crash) stays there. A task is a function of a module; what it
returns comes back, and a process that is lost comes back as a Failure that names the arm that was running.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import pickle
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import psutil

from benchmarks.failure import Failure, describe

T = TypeVar("T")

LAUNCHES = 8
"""Fork servers whose workers take turns. Workers of one share its address-space layout and agree with each other more than launches do."""

_START_SECONDS = 120.0
_LONGEST_NAME = 4096
_PRELOADED = ("benchmarks.launch", "torch", "numpy.random", "benchmarks.measure.examine", "benchmarks.measure.known_blocks")
_LAST_WORDS_BYTES = 64 * 1024
_READY = ("ready", None)
"""What a worker says when the time that its task may take begins."""


class InProcess:
    """No worker at all: for debuggers, profilers and live objects. A crash or a hang is the caller's own."""

    fresh = False
    """Whether each task has a process of its own."""

    def run(self, task: Callable[..., T], *args: Any, launch: int = 0) -> T:  # noqa: ARG002
        try:
            return task(*args)
        except (Exception, SystemExit) as error:
            raise Failure.of(error) from error

    def serve(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:  # noqa: ARG002 - as of Launches
        raise Failure("unsupported", "needs a process per arm, which --in-process does without")


class Launches:
    """Fresh processes from LAUNCHES fork servers; each task may take `timeout_seconds` once its process runs, and `memory_limit` bytes.

    `preload` names modules that every server imports, so that no worker has to: a user's model may import for seconds. Servers import
    side by side in the background from when the first is needed.
    """

    fresh = True

    def __init__(self, timeout_seconds: float, preload: Sequence[str] = (), memory_limit: int | None = None) -> None:
        self._timeout_seconds, self._memory_limit = timeout_seconds, memory_limit
        self._living: set[int | None] = set()
        self._context = multiprocessing.get_context("forkserver")
        self._servers = [forkserver.ForkServer() for _ in range(LAUNCHES)]
        for server in self._servers:
            server.set_forkserver_preload([*_PRELOADED, *preload])

    def run(self, task: Callable[..., T], *args: Any, launch: int = 0) -> T:
        """Runs `task(*args)` and returns what it returns. Raises Failure if it fails, is lost, or is not done in time."""
        with self._open(task, args, launch, serving=False) as worker:
            result: T = worker.hear()
            return result

    @contextmanager
    def serve(self, task: Callable[..., Any], *args: Any, launch: int = 0) -> Iterator[Callable[[Any], Any]]:
        """A worker in which the function that `task(*args)` returns answers questions until the context is left.

        Entering it does not wait for the worker to be ready.
        """
        with self._open(task, args, launch, serving=True) as worker:
            yield worker.ask

    def prepare(self, launches: int = LAUNCHES) -> None:
        """Starts so many servers, which import in the background. Where that fails, the tasks will say so."""
        for server in self._servers[:launches]:
            with suppress(OSError):
                server.ensure_running()

    def wait(self, launches: int = LAUNCHES) -> None:
        """Starts so many servers, and returns when none of them imports any more."""
        self.prepare(launches)
        for launch in range(min(launches, LAUNCHES)):
            self.run(os.getpid, launch=launch)

    def close(self) -> None:
        """Ends all servers. They end with this process anyway."""
        for server in self._servers:
            if server._forkserver_pid is not None:  # type: ignore[attr-defined]
                server._stop()  # type: ignore[attr-defined]

    @contextmanager
    def _open(self, task: Callable[..., Any], args: Sequence[Any], launch: int, *, serving: bool) -> Iterator[_Worker]:
        server = self._servers[launch % LAUNCHES]
        with ExitStack() as closing:
            try:
                (ours, theirs), (last_words, dying) = self._context.Pipe(), self._context.Pipe(duplex=False)
                for end in (ours, theirs, last_words, dying):
                    closing.callback(end.close)
                arm = self._context.RawArray(ctypes.c_char, _LONGEST_NAME)
                process = self._context.Process(
                    target=_live, name="gradtax worker", args=(theirs, dying, arm, self._memory_limit, serving, task, args)
                )
                worker = _Worker(process, ours, last_words, arm, self._timeout_seconds)
                del arm
                closing.callback(worker.forget_arm)
                closing.callback(self._end, process, server)
                with _forked_by(server):
                    process.start()
            except (OSError, EOFError) as error:
                raise Failure("crashed", f"no process could be started: {describe(error)}") from error
            theirs.close()
            dying.close()
            self._living.add(process.pid)
            yield worker

    def _end(self, process: BaseProcess, server: forkserver.ForkServer) -> None:
        """Ends the worker with whatever it started, also what has left its group: that has become the launch's."""
        launch = server._forkserver_pid  # type: ignore[attr-defined]
        if process.pid is not None:  # it was started
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join(10)
            self._living.discard(process.pid)
        if launch is not None:
            end_children(launch, self._living)
        with suppress(ValueError):  # it cannot be killed
            process.close()  # a failure that is kept would hold its descriptors


Workers = InProcess | Launches
"""Where tasks run."""


class _Worker:
    """A process with a task in it, seen from the parent. One that is lost, or too late, raises Failure."""

    def __init__(
        self, process: BaseProcess, connection: Connection, last_words: Connection, arm: Any, timeout_seconds: float
    ) -> None:
        self._process, self._connection, self._last_words = process, connection, last_words
        self._noted, self._timeout_seconds = arm, timeout_seconds
        self._deadline = time.monotonic() + _START_SECONDS
        self._kills_before = _out_of_memory_kills()

    def ask(self, question: Any) -> Any:
        """The answer of a task that serves questions."""
        with suppress(OSError):  # a worker that is gone is told by what is heard
            self._connection.send(question)
        return self.hear()

    def hear(self) -> Any:
        """The task's next answer, or what it returns."""
        try:
            while self._connection.poll(max(0.0, self._deadline - time.monotonic())):
                kind, value = self._connection.recv()
                if kind == _READY[0]:
                    self._deadline = time.monotonic() + self._timeout_seconds
                elif kind == "failed":
                    raise value
                else:
                    return value
        except (OSError, EOFError, pickle.UnpicklingError):
            self._process.join(10)
            raise self._lost() from None
        reason = f"not done within {self._timeout_seconds:g} s (--worker-timeout gives more)"
        raise Failure("timed_out", reason, self._arm)

    def forget_arm(self) -> None:
        """A failure that is kept would hold the memory that is shared with the worker, which takes a descriptor."""
        self._noted = None

    @property
    def _arm(self) -> str | None:
        return self._noted.value.decode(errors="replace") or None

    def _lost(self) -> Failure:
        """The failure that the process's end without a word amounts to."""
        exit_status = self._process.exitcode
        if exit_status == -signal.SIGKILL and _out_of_memory_kills() > self._kills_before:
            return Failure("out_of_memory", "the kernel killed the process, because memory was short", self._arm)
        end = f"ended with exit status {exit_status}"
        if exit_status is not None and exit_status < 0:
            known = {number.value: number.name for number in signal.Signals}  # real-time signals have no name
            end = f"was killed by {known.get(-exit_status, f'signal {-exit_status}')}"
        return Failure("crashed", f"the process {end}{self._place()}", self._arm)

    def _place(self) -> str:
        """The innermost frame outside of Python and its libraries, as faulthandler told it."""
        os.set_blocking(self._last_words.fileno(), False)
        with suppress(OSError):
            said = os.read(self._last_words.fileno(), _LAST_WORDS_BYTES).decode(errors="replace")
            for path, line in re.findall(r'File "([^"]+)", line (\d+) in ', said):
                if not path.startswith((sys.prefix, sys.base_prefix)):
                    return f" ({Path(path).name}:{line})"
        return ""


class _Running:
    """This process, where it is a worker: the way to its parent, and the name of the arm that runs.

    The name is in memory shared with the parent: noting it costs no system call.
    """

    parent: Connection | None = None
    arm: Any = None


def note_arm(name: str) -> None:
    """Tells the parent which arm runs from now on, in case this process is lost. Does nothing outside a worker."""
    if _Running.arm is not None:
        _Running.arm.value = name.encode()[:_LONGEST_NAME]


def begin_anew() -> None:
    """The time that the task may take begins again, as after a model was compiled. Does nothing outside a worker."""
    if _Running.parent is not None:
        _Running.parent.send(_READY)


def _live(
    parent: Connection, dying: Connection, arm: Any, memory_limit: int | None, serving: bool, task: Callable[..., Any],
    args: Sequence[Any],
) -> None:  # fmt: skip
    """The life of a worker, in the new process: a process group of its own, and what it prints is not kept."""
    os.setsid()
    _die_with_launch()
    multiprocessing.set_start_method(None, force=True)  # a DataLoader's workers would else be fork servers' too
    gc.freeze()  # a collection need not go through all of torch, which takes half a second
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.set_blocking(dying.fileno(), False)
    faulthandler.enable(dying.fileno())
    with suppress(OSError):  # this process, not its parent, when memory is short
        Path("/proc/self/oom_score_adj").write_text("1000")
    if memory_limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    _Running.parent, _Running.arm = parent, arm
    begin_anew()
    try:
        result = task(*args)
        if not serving:
            parent.send(("answer", result))
        with suppress(EOFError):
            while serving:
                parent.send(("answer", result(parent.recv())))
    except BaseException as error:  # noqa: BLE001 - SystemExit from a model's code too
        parent.send(("failed", Failure.of(error)))
    parent.close()
    os._exit(0)


def _die_with_launch() -> None:
    """A worker that hangs does not outlive its launch, which ends with the process that started it (Linux).

    The launch ends when nobody holds the pipe that it inherited any more, so a worker must not.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    alive = forkserver._forkserver._forkserver_alive_fd  # type: ignore[attr-defined]
    if alive is not None:
        os.close(alive)


def _out_of_memory_kills() -> int:
    with suppress(OSError, LookupError):
        return int(Path("/proc/vmstat").read_text().partition("\noom_kill ")[2].split()[0])
    return 0


def end_children(parent: int, but: Collection[int | None] = ()) -> None:
    """Kills the children of `parent`, and theirs as they become its own, `but` for some."""
    killed: set[int] = set()
    with suppress(psutil.Error):
        while chosen := [child for child in psutil.Process(parent).children() if child.pid not in {*but, *killed}]:
            for child in chosen:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            killed |= {child.pid for child in chosen}
            psutil.wait_procs(chosen, timeout=1)


@contextmanager
def _forked_by(server: forkserver.ForkServer) -> Iterator[None]:
    """Processes started inside are forked by this server, while multiprocessing itself has one alone, and do without the parent's
    main script, which it would import into each: here that is pytest, or the user's script."""
    usual, main = forkserver.connect_to_new_process, sys.modules["__main__"]
    forkserver.connect_to_new_process = server.connect_to_new_process
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        forkserver.connect_to_new_process = usual
        sys.modules["__main__"] = main
