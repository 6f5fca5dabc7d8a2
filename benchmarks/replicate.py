"""The whole plan on each of several machines: `pytest --benchmark` once for each, side by side; workers of one computer take turns."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.options import RunOptions
from benchmarks.remote import Machine, connected
from benchmarks.session import Signals


def replicate(chosen: RunOptions, arguments: Sequence[str]) -> int | None:
    """The worst exit status of the runs, whose lines are printed with the machine's name before them; `arguments` are pytest's.

    None where there is one machine only, or one plan is split over all: that is a run of this process. Raises OptionError.
    """
    if not chosen.machines or chosen.split:
        return None
    client, machines = connected(chosen.machines)
    client.close()  # type: ignore[no-untyped-call]
    if len(machines) == 1:
        return None
    computers: dict[str, list[Machine]] = {}
    for machine in machines:
        computers.setdefault(machine.host, []).append(machine)
    runs = Runs([*arguments, "--machines"], chosen.machines[0])
    signals = Signals()
    signals.catch()
    with ThreadPoolExecutor(len(computers)) as pool:
        try:
            return max(pool.map(runs.one_after_the_other, computers.values()))
        except KeyboardInterrupt:
            runs.stop()
            return 2
        finally:
            signals.restore()


class Runs:
    """Runs of one command, each for a machine."""

    def __init__(self, command: Sequence[str], address: str) -> None:
        self._command, self._address = command, address
        self._processes: list[subprocess.Popen[str]] = []
        self._stopped = False

    def one_after_the_other(self, machines: Sequence[Machine]) -> int:
        return max(self._run(machine) for machine in machines)

    def stop(self) -> None:
        """As Ctrl-C does, which those that a terminal has told already pass over."""
        self._stopped = True
        for process in self._processes:
            process.send_signal(signal.SIGINT)

    def _run(self, machine: Machine) -> int:
        if self._stopped:
            return 2
        command = [sys.executable, "-m", "pytest", *self._command, f"{self._address},{machine.name}"]
        process = subprocess.Popen(  # noqa: S603 - our own
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._processes.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{machine.name} | {line}", end="", flush=True)  # noqa: T201 - a relay's
        return process.wait()
