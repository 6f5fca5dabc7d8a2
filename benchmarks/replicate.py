"""The whole plan on each of several machines: `pytest --benchmark` once for each, side by side; workers of one computer take turns."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.remote import Machine, connected
from benchmarks.session import Signals


def replicate(spec: Sequence[str], arguments: Sequence[str]) -> int | None:
    """The worst exit status of the runs, whose lines are printed with the machine's name before them; `arguments` are pytest's.

    None where `spec` names one machine only: that is a run of this process. Raises OptionError.
    """
    client, machines = connected(spec)
    client.close()  # type: ignore[no-untyped-call]
    if len(machines) == 1:
        return None
    computers: defaultdict[str, list[Machine]] = defaultdict(list)
    for machine in machines:
        computers[machine.host].append(machine)
    runs = Runs([sys.executable, "-m", "pytest", *arguments, "--machines"], address=spec[0])
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
        process = subprocess.Popen(  # noqa: S603 - our own
            [*self._command, f"{self._address},{machine.name}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._processes.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{machine.name} | {line}", end="", flush=True)  # noqa: T201 - a relay's
        return process.wait()
