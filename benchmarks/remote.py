"""A run on other machines: jobs are sent to them one at a time, and what they find is kept here.

Between here and there is Dask distributed. A request is a call of one worker (`Client.run`) and no task of the scheduler's, so that nothing can be
sent elsewhere, stolen or repeated; benchmarks/machines.py answers it there.
"""

from __future__ import annotations

import pickle
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import group, machines
from benchmarks.environment import Finding, steady
from benchmarks.executors import Measure
from benchmarks.failure import Failure, describe
from benchmarks.journal import code_of_the_suite
from benchmarks.local import Local, Met
from benchmarks.models.own import ModelError
from benchmarks.options import OptionError, RunOptions
from benchmarks.plan import Job
from benchmarks.record import GroupResult

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_SECONDS = 10
_LEASE_SECONDS = 45
"""How long to wait for a machine that another run has; the engine forgets one that was killed after 30 s."""

_OWN = ("computer", "threads", "affinity")
"""Facts in which machines that are split over may differ."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A worker of the engine's; those with one `host` share a computer."""

    name: str
    address: str
    host: str


@dataclass(frozen=True, slots=True)
class Opening:
    """What a machine tells when a run begins there."""

    jobs: list[Job]
    facts: dict[str, Any]
    machine_info: dict[str, Any]
    before: list[Finding]
    conditions: dict[str, Any]
    set_by_engine: dict[str, str] = field(default_factory=dict)
    """Environment variables that were removed there."""


class Lost(Exception):
    """A machine that gives no answer any more, and why."""


# What the child of a machine's worker is asked for.

_here: list[Local] = []
"""The one run that a child is there for."""


def opened(chosen: RunOptions, describe_machine: Callable[[], dict[str, Any]]) -> Opening:
    """Begins a run. Raises what Local does, and Failure for a device that does not open."""
    local = Local(chosen)
    _here.append(local)
    facts = local.facts | {"python": platform.python_version(), "computer": platform.node()}
    machine_info = steady(describe_machine()) | {"gradtax": local.facts}
    conditions, _ = local.met()[None]
    return Opening(local.jobs, facts, machine_info, local.before, conditions)


def measured(job: Job, measure: Measure) -> list[GroupResult]:
    return list(_here[-1].results([job], measure))


def ended() -> tuple[dict[str, Any], list[Finding]]:
    return _here[-1].met()[None]


# Where the run is kept.


def connected(spec: Sequence[str]) -> tuple[Client, list[Machine]]:
    """The engine, and of its workers those that `spec` names behind the scheduler's address; all where it names none. Raises OptionError."""
    address, *names = spec
    try:
        from distributed import Client
    except ImportError as error:
        raise OptionError(f"--machines: Dask distributed is not installed; {machines.INSTALL} installs it") from error
    try:
        client: Client = Client(address, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        start = "python -m benchmarks.machines scheduler"
        raise OptionError(
            f"--machines {address}: no scheduler answers there ({describe(error)}); start one: {start}"
        ) from error
    with ExitStack() as closing:
        closing.callback(client.close)
        workers = client.scheduler_info()["workers"]
        found = dict(sorted((str(worker["name"]), worker_address) for worker_address, worker in workers.items()))
        start = f"start one there, in the checkout: python -m benchmarks.machines worker {address}"
        missing = [name for name in names if name not in found]
        if missing or not found:
            listed = f" (there: {', '.join(found)})" if found else ""
            raise OptionError(f"--machines {address}: there is no worker {', '.join(missing)}".rstrip() + f"{listed}; {start}")
        chosen = {name: found[name] for name in names or found}
        hosts = client.run(machines.host, workers=list(chosen.values()), on_error="return")
        for name, worker_address in chosen.items():
            if not isinstance(hosts[worker_address], str):
                raise OptionError(f"--machines {address}: worker {name}: {describe(hosts[worker_address])}; {start}")
        closing.pop_all()
        return client, [Machine(name, worker_address, hosts[worker_address]) for name, worker_address in chosen.items()]


class Machines:
    """Other machines as the site of a run: its jobs are spread over all of `chosen.machines`, which have to be equal where they are several.

    `describe_machine` is a function of a module, called there. Raises OptionError and own.ModelError.
    """

    def __init__(self, chosen: RunOptions, describe_machine: Callable[[], dict[str, Any]]) -> None:
        if chosen.in_process:
            raise OptionError("--in-process: other machines measure in workers; leave it out, or --machines")
        self._client, self.machines = connected(chosen.machines or ())
        self._running: dict[Future[list[GroupResult]], tuple[Machine, Job]] = {}
        self._present = list(self.machines)
        with ExitStack() as closing:
            closing.callback(self._client.close)
            for lease in self._leases():
                closing.callback(lease.release)
            closing.callback(self._stop, self.machines)
            there = replace(chosen, machines=None, split=False)
            with ThreadPoolExecutor() as pool:
                openings = pool.map(partial(self._open, there, describe_machine), self.machines)
                self._openings = dict(zip(self.machines, openings, strict=True))
            if chosen.split:
                _require_equal(self._openings)
            self._closing = closing.pop_all()
        first = self._openings[self.machines[0]]
        self.jobs, self.before = first.jobs, [finding for opening in self._openings.values() for finding in opening.before]
        self.facts = _compared(first) if chosen.split else first.facts

    @property
    def machine_infos(self) -> dict[str, dict[str, Any]]:
        return {machine.name: opening.machine_info for machine, opening in self._openings.items()}

    def results(self, jobs: Iterable[Job], measure: Measure = group.measure) -> Iterator[GroupResult]:
        """One job at a time on each computer. A job whose machine is lost is a row where others go on.

        Raises Failure when none is left; the job is then no row, and can be taken up when the run is gone on with.
        """
        coming = iter(jobs)
        with ThreadPoolExecutor(len(self.machines)) as pool:
            try:
                while True:
                    while (machine := self._idle()) and (job := next(coming, None)):
                        self._running[pool.submit(self._ask, machine, measured, job, measure)] = machine, job
                    if not self._running:
                        return
                    for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                        yield from self._found(*self._running.pop(future), future)
            finally:
                self._stop()

    def met(self) -> Met:
        self._stop()
        return {machine.name: self._met_by(machine) for machine in self.machines}

    def close(self) -> None:
        with suppress(Exception):  # where the scheduler is gone, there is nothing to give back
            self._closing.close()

    def _leases(self) -> Iterator[Any]:
        """One run at a time for each computer; the engine takes a lease back from a run that was killed. Raises OptionError."""
        from distributed import Semaphore

        for host in dict.fromkeys(machine.host for machine in self.machines):
            lease = Semaphore(1, f"gradtax {host}")  # type: ignore[no-untyped-call]
            if not lease.acquire(timeout=_LEASE_SECONDS):  # type: ignore[no-untyped-call]
                names = ", ".join(machine.name for machine in self.machines if machine.host == host)
                raise OptionError(f"--machines: another run is measuring on {names}; wait until it has ended")
            yield lease

    def _open(self, chosen: RunOptions, describe_machine: Callable[[], dict[str, Any]], machine: Machine) -> Opening:
        """Raises OptionError where the machine does not answer, and what is wrong with the options as it is."""
        try:
            removed = self._call(machine, machines.begin)
            same_code = self._ask(machine, code_of_the_suite) == code_of_the_suite()
            opening: Opening | None = self._ask(machine, opened, chosen, describe_machine) if same_code else None
        except (OptionError, ModelError):
            raise
        except Exception as error:
            raise OptionError(f"--machines: {machine.name}: {Failure.of(error)}") from error
        if opening is None:
            other = f"--machines: {machine.name} has another state of benchmarks/ than there is here"
            raise OptionError(f"{other}; check out one commit on both")
        return replace(opening, set_by_engine=removed)

    def _idle(self) -> Machine | None:
        busy = {machine.host for machine, _ in self._running.values()}
        return next((machine for machine in self._present if machine.host not in busy), None)

    def _found(self, machine: Machine, job: Job, future: Future[list[GroupResult]]) -> list[GroupResult]:
        try:
            groups = future.result()
        except Exception as error:
            failure = Failure.of(error)
            if isinstance(error, Lost):
                self._present.remove(machine)
                failure = Failure("crashed", f"{machine.name} was lost while this was measured: {error}")
                if not self._present:
                    raise Failure("crashed", f"{job}: {failure.reason}; no machine is left") from error
            groups = [job.failed(name, failure) for name in job.allocators]
        return [replace(one, machine=machine.name) for one in groups]

    def _met_by(self, machine: Machine) -> tuple[dict[str, Any], list[Finding]]:
        opening = self._openings[machine]
        try:
            conditions, findings = self._ask(machine, ended)
        except Lost:
            conditions, findings = opening.conditions, []
        return {"machine": machine.name, "set_by_engine": opening.set_by_engine, **conditions}, findings

    def _stop(self, chosen: Iterable[Machine] = ()) -> None:
        """Ends the children that are measuring, and those of `chosen`: nobody waits for what they would find."""
        for machine in {*chosen, *(machine for machine, _ in self._running.values())}:
            with suppress(Lost):
                self._call(machine, machines.end)
        self._running.clear()

    def _ask(self, machine: Machine, function: Callable[..., Any], *args: Any) -> Any:
        """What the child there returns or raises. Raises Lost."""
        returned, value = pickle.loads(self._call(machine, machines.ask, pickle.dumps((function, args))))  # noqa: S301 - the engine's way
        if not returned:
            raise value
        return value

    def _call(self, machine: Machine, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._client.run(function, *args, workers=[machine.address])[machine.address]
        except Exception as error:
            raise Lost(describe(error)) from error


def _require_equal(openings: Mapping[Machine, Opening]) -> None:
    """Raises OptionError with what differs."""
    (first, opening), *others = openings.items()
    for machine, other in others:
        one, two = _compared(opening), _compared(other)
        differing = [f"{name}: {one.get(name)}, {two.get(name)}" for name in {**one, **two} if one.get(name) != two.get(name)]
        if differing or other.jobs != opening.jobs:
            what = "; ".join(differing) or "their plans, because not the same libraries are installed"
            raise OptionError(f"--split: {first.name} and {machine.name} differ ({what}); leave it out to measure all on each")
    ours, theirs = (version.partition("+")[0] for version in (torch.__version__, opening.facts["torch"]))
    if ours != theirs:
        raise OptionError(f"--split: torch is {ours} here and {theirs} on {first.name}; install one version on both")


def _compared(opening: Opening) -> dict[str, Any]:
    """What is the same on equal machines."""
    info = opening.machine_info
    system = {"processor": info["cpu"].get("brand_raw"), "kernel": f"{info['system']} {info['release']}"}
    return system | {name: value for name, value in opening.facts.items() if name not in _OWN}
