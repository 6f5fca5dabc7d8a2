"""Jobs on other machines: each is measured once, one at a time on a computer, and no run mixes machines that differ.

The engine is real, in this process; what measures stands in for it.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import builders
import pytest
import torch

from benchmarks import machines, remote
from benchmarks.failure import Failure
from benchmarks.journal import code_of_the_suite
from benchmarks.models import Source
from benchmarks.options import OptionError, RunOptions
from benchmarks.plan import Job
from benchmarks.record import GroupResult, Timed
from benchmarks.remote import Machines, Opening
from benchmarks.session import Session

distributed = pytest.importorskip("distributed")

NAMES = [f"model_{number}" for number in range(8)]
JOBS = [
    Job(scenario="forward", source=Source(name, "tiny"), device="cpu", dtype="float32", modes=("tracked",)) for name in NAMES
]
FACTS = {"torch": str(torch.__version__), "microcode": "0x1", "affinity": [0], "threads": 1, "computer": "one"}
INFO = {"node": "one", "system": "Linux", "release": "6.1", "cpu": {"brand_raw": "a processor"}}


def opening(jobs: Any = JOBS, info: Any = INFO, **facts: Any) -> Opening:
    return Opening(jobs, FACTS | facts, info, ["it is hot: cool it"], {"load": 0.1})


@dataclass
class Scene:
    """Takes the children's place: what they tell when a run begins, models that end their child or raise, and what was measured."""

    openings: list[Opening | Exception] = field(default_factory=lambda: [opening(), opening()])
    code: str = code_of_the_suite()
    lethal: str = ""
    raising: str = ""
    log: list[str] = field(default_factory=list)
    running: int = 0
    most_at_once: int = 0

    async def start(self, environment: Any) -> Scene:
        return self

    async def ask(self, request: bytes) -> bytes:
        function, args = pickle.loads(request)
        if function is remote.measured:
            return pickle.dumps(await self.measured(args[0].source.model))
        told: Any = ({"load": 0.2}, [])
        if function is remote.opened:
            told = self.openings.pop(0)
        elif function is code_of_the_suite:
            told = self.code
        return pickle.dumps((not isinstance(told, Exception), told))

    async def measured(self, model: str) -> tuple[bool, Any]:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        self.log.append(model)
        if model == self.lethal:
            raise EOFError("it is gone")
        if model == self.raising:
            return False, ValueError("no such thing")
        result = builders.result("tracked", model=model)
        return True, [GroupResult(result.case.group, [Timed(result, [1e-4], 1)])]

    def end(self) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with two workers in this process."""
    settings = {"processes": False, "protocol": "tcp", "dashboard_address": None, "silence_logs": logging.CRITICAL}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **settings) as cluster:
        yield cluster.scheduler_address


def of_each_worker(dask_worker: Any) -> str:
    """A computer for each worker."""
    return str(dask_worker.name)


def of_all_workers() -> str:
    return "one"


def nothing() -> dict[str, Any]:
    return {}


@pytest.fixture(autouse=True)
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene()
    monkeypatch.setattr(machines, "Child", made)
    monkeypatch.setattr(machines, "host", of_each_worker)
    return made


@pytest.fixture
def connect(address: str) -> Iterator[Callable[..., Machines]]:
    there: list[Machines] = []

    def connect(*names: str, **options: Any) -> Machines:
        there.append(Machines(RunOptions(machines=(address, *names), split=True, **options), nothing))
        return there[-1]

    yield connect
    for each in there:
        each.close()


@pytest.mark.parametrize(("host", "most"), [(of_each_worker, 2), (of_all_workers, 1)])
def test_every_job_is_measured_once_and_one_at_a_time_on_each_computer(
    connect: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch, host: Any, most: int
) -> None:
    monkeypatch.setattr(machines, "host", host)
    groups = list(connect().results(JOBS))
    assert sorted(one.group.model for one in groups) == sorted(scene.log) == NAMES
    assert {one.machine for one in groups} <= {"0", "1"}
    assert scene.most_at_once == most


def test_a_job_whose_machine_is_lost_is_a_row_and_the_others_are_measured_elsewhere(connect: Any, scene: Scene) -> None:
    scene.lethal = "model_2"
    groups = {one.group.model: one for one in connect().results(JOBS)}
    assert len(groups) == len(scene.log) == 8
    (row,) = groups["model_2"].unmeasured
    assert row.status == "crashed"
    assert row.reason.startswith(f"{groups['model_2'].machine} was lost while this was measured")
    assert all(groups[model].timed for model in groups if model != "model_2")


def test_when_no_machine_is_left_the_run_ends_and_the_job_is_no_row(connect: Any, scene: Scene) -> None:
    scene.lethal = "model_2"
    with pytest.raises(Failure, match=r"0 was lost .* no machine is left"):
        list(connect("0").results(JOBS))
    assert scene.log == NAMES[:3]


def test_an_error_there_costs_its_job_alone(connect: Any, scene: Scene) -> None:
    scene.raising = "model_0"
    first, second, *_ = connect("0").results(JOBS)
    assert "no such thing" in first.unmeasured[0].reason
    assert second.timed


def test_a_worker_that_was_started_again_measures_nothing_of_the_run(connect: Any) -> None:
    there = connect("0")
    machines._children.clear()
    with pytest.raises(Failure, match="nothing is measured twice"):
        list(there.results(JOBS))


def test_machines_say_what_they_are_and_under_what_conditions_they_measured(connect: Any) -> None:
    there = connect()
    assert set(there.machine_infos) == {"0", "1"}
    assert [str(finding) for finding in there.before] == ["it is hot: cool it"] * 2
    assert there.met()["1"] == ({"machine": "1", "set_by_engine": {}, "load": 0.2}, [])
    assert "computer" not in there.facts


DIFFERENT = {
    "another microcode": (opening(microcode="0x2", affinity=[1]), r"[01] and [01] differ \(microcode: (0x1, 0x2|0x2, 0x1)\)"),
    "another kernel": (opening(info=INFO | {"release": "6.2"}), r"kernel: Linux (6\.1, Linux 6\.2|6\.2, Linux 6\.1)\)"),
    "another plan": (opening(JOBS[1:]), "their plans"),
    "an option that cannot be had": (OptionError("--device cuda: no GPU"), "--device cuda: no GPU"),
    "a device that does not open": (Failure("crashed", "it is broken"), "[01]: crashed: it is broken"),
}


@pytest.mark.parametrize(("second", "told"), DIFFERENT.values(), ids=DIFFERENT)
def test_a_plan_is_not_split_over_machines_of_which_one_has(connect: Any, scene: Scene, second: Any, told: str) -> None:
    scene.openings[1] = second
    with pytest.raises(OptionError, match=told):
        connect()


def test_nor_over_machines_that_have_another_torch_or_commit_than_there_is_here(connect: Any, scene: Scene) -> None:
    scene.openings = [opening(torch="1.0") for _ in range(2)]
    with pytest.raises(OptionError, match=r"torch is .* here and 1\.0 on 0"):
        connect()
    scene.code = "0123"
    with pytest.raises(OptionError, match=r"[01] has another state of benchmarks/ than there is here"):
        connect()


def test_one_run_at_a_time_has_a_machine(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_LEASE_SECONDS", 0.1)
    first = connect("0")
    with pytest.raises(OptionError, match="another run is measuring on 0"):
        connect("0")
    first.close()
    connect("0")


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        (("7",), {}, r"there is no worker 7 \(there: [01], [01]\); start one there"),
        (("0", "8", "9"), {}, r"there is no worker 8, 9 \(there: [01], [01]\); start one there"),
        ((), {"in_process": True}, "--in-process"),
    ],
)
def test_what_cannot_be_had_is_told_with_the_way_out(connect: Any, names: Any, options: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        connect(*names, **options)


def test_where_no_scheduler_answers_it_is_told_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_CONNECT_SECONDS", 0.1)
    with pytest.raises(OptionError, match=r"no scheduler answers there .* benchmarks\.machines scheduler"):
        remote.connected(["127.0.0.1:1"])


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(OptionError, match=r"Dask distributed is not installed; pip install -e '\.\[machines\]'"):
        remote.connected(["127.0.0.1:8786"])


def test_a_split_run_is_saved_as_a_run_of_each_machine_also_where_one_is_gone_when_it_is_gone_on_with(
    connect: Any, address: str, scene: Scene, tmp_path: Path
) -> None:
    def session(*names: str) -> Session:
        begun = Session(RunOptions(machines=(address, *names), split=True), nothing, lines.append)
        try:
            begun.begin(tmp_path, resume=bool(names))
        finally:
            begun.signals.restore()
        return begun

    lines: list[str] = []

    first = session()
    for job in JOBS[:5]:
        first.run.result_of(job.cases[0])
    before = {one.group.model: one.machine for one in first.run.groups.values()}
    first.end()
    assert first.told

    scene.openings = [opening()]
    second = session("0")
    second.run.take()
    parts = list(second.parts({"benchmarks": [{"group": str(one.case.group)} for one in second.run.results]}))
    second.save(tmp_path, "run", (b"{}" for _ in parts))
    second.end()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0001_run.json", "0002_run.json"]
    there = list(before.values()).count("1")
    saved = {part["gradtax"]["conditions"]["machine"]: len(part["benchmarks"]) for part in parts}
    assert saved == {"0": 8 - there, "1": there}
    assert all(part["machine_info"]["node"] == "one" for part in parts)
    assert sorted(model for model in scene.log if model in before) == sorted(before)
