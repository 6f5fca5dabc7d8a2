"""The engine's side of `pytest --benchmark --machines`: `python -m benchmarks.machines scheduler|worker`, and what runs inside a worker.

The engine is Dask distributed. Its worker stays idle while it measures: requests go to a child process, which ends with the worker and whose
environment is without what the engine has set. This module imports no torch, and no engine before it is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import pickle
import platform
import queue
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BufferedRWPair
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOOPBACK = "127.0.0.1"
PORT = 8786
INSTALL = "pip install -e '.[machines]'"
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.interval": "5s",
    "distributed.admin.tick.limit": "1h",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.diagnostics.nvml": False,
    "logging": {"distributed": "warning", "distributed.worker": "critical"},
}
"""Off, or seldom: what a worker does beside its work, up to a hundred times a second."""

_LENGTH = struct.Struct("!Q")


class Child:
    """The process that measures, seen from the engine's. It answers one request at a time: a function of a module and its arguments, pickled."""

    def __init__(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process, self._reader, self._writer, self._turn = process, reader, writer, asyncio.Lock()

    @classmethod
    async def start(cls, environment: Mapping[str, str]) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "benchmarks.machines", "child", str(theirs.fileno())]
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - milliseconds, and our own
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def ask(self, request: bytes) -> bytes:
        """Its answer to `request`. Raises EOFError where it is lost."""
        async with self._turn:
            try:
                self._writer.write(_LENGTH.pack(len(request)) + request)
                await self._writer.drain()
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                return await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, OSError) as error:
                raise EOFError("the process that measures has ended") from error

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._writer.close()


_children: dict[str, Child] = {}
"""By the engine's worker, which has another identity when it is started again."""


def host() -> str:
    """Names the computer, also where several containers share it: they are measured on one after the other."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


async def begin(dask_worker: Any) -> dict[str, str]:
    """A new child for a new run. Returns the environment variables that the engine had set, which the child does not have."""
    end(dask_worker)
    seen = _set_by_engine() if dask_worker.nanny is not None else {}
    _children[dask_worker.id] = await Child.start({name: text for name, text in os.environ.items() if name not in seen})
    return seen


def _set_by_engine() -> dict[str, str]:
    """What the engine's nanny sets for its worker, by its own settings: the allocator's trimming, numbers of threads."""
    import dask

    settings = {**dask.config.get("distributed.nanny.pre-spawn-environ"), **dask.config.get("distributed.nanny.environ")}
    return {name: str(value) for name, value in settings.items() if os.environ.get(name) == str(value)}


async def ask(request: bytes, dask_worker: Any) -> bytes:
    """The child's answer. Raises LookupError where the worker has been started again since the run began."""
    if dask_worker.id not in _children:
        raise LookupError("the worker was started again, and nothing is measured twice")
    return await _children[dask_worker.id].ask(request)


def end(dask_worker: Any) -> None:
    """Ends the child, whatever it is measuring."""
    child = _children.pop(dask_worker.id, None)
    if child is not None:
        child.end()


def _answer(stream: BufferedRWPair) -> None:
    """The child's life. It ends with the stream, also in the middle of a request, because nobody waits for the answer any more."""
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
            requests.put(stream.read(*_LENGTH.unpack(head)))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            function, args = pickle.loads(requests.get())  # noqa: S301 - the engine has run code that it was sent to come here
            answer = pickle.dumps((True, function(*args)))
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            answer = _pickled(error)
        stream.write(_LENGTH.pack(len(answer)) + answer)
        stream.flush()


def _pickled(error: Exception) -> bytes:
    with suppress(Exception):
        content = pickle.dumps((False, error))
        pickle.loads(content)  # noqa: S301 - some exceptions can be packed and not unpacked
        return content
    return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["child"]:
        with socket.socket(fileno=int(given[1])) as parent, parent.makefile("rwb") as stream:
            parent.set_inheritable(False)
            _answer(stream)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.machines", description="Machines for pytest --benchmark --machines."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    scheduler = commands.add_parser("scheduler", help="what workers and runs meet at; start it first")
    scheduler.add_argument("--host", default=LOOPBACK, help="the address that it is reached at (default: %(default)s)")
    scheduler.add_argument("--port", type=int, default=PORT, help="(default: %(default)s)")
    worker = commands.add_parser(
        "worker", help="a worker on this machine, which measures for runs that meet it at the scheduler"
    )
    worker.add_argument("address", metavar="ADDRESS", help="the scheduler's, such as 127.0.0.1:8786 or tls://HOST:8786")
    worker.add_argument("--name", default=platform.node(), help="what runs call it (default: the host's name)")
    worker.add_argument(
        "--host", help=f"the address that the scheduler reaches it at (default: {LOOPBACK}, if the scheduler is there too)"
    )
    worker.add_argument("--port", type=int, default=0, help="(default: a free one)")
    chosen = parser.parse_args(given)
    if chosen.command == "worker" and chosen.host is None and not _is_loopback(chosen.address):
        parser.error(
            f"--host: a scheduler at {chosen.address} does not reach a worker on {LOOPBACK}; name this machine's address"
        )
    try:
        asyncio.run(_serve(chosen))
    except ImportError:
        parser.error(f"Dask distributed is not installed; {INSTALL} installs it")
    except (OSError, ValueError, RuntimeError) as error:
        parser.error(" ".join(f"{' '.join(given)}: {error} {error.__cause__ or ''}".split()))
    except KeyboardInterrupt:
        pass
    return 0


def _is_loopback(address: str) -> bool:
    name = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


async def _serve(chosen: argparse.Namespace) -> None:
    import dask

    with dask.config.set(QUIET):
        from distributed import Scheduler, Worker  # which reads some of the settings

        server: Any
        status = f"{LOOPBACK}:0"  # a page of the engine's, which would be shown to everybody
        if chosen.command == "scheduler":
            server = Scheduler(host=chosen.host, port=chosen.port, dashboard_address=status, dashboard=False)
        else:
            server = Worker(
                chosen.address, nthreads=1, name=chosen.name, host=chosen.host or LOOPBACK, port=chosen.port, memory_limit=0,
                dashboard_address=status, dashboard=False, death_timeout="30s",
            )  # fmt: skip
        async with server:
            print(f"{chosen.command} at {server.address}; whoever reaches this port can run code here, by design", flush=True)  # noqa: T201
            await server.finished()


if __name__ == "__main__":
    sys.exit(main())
