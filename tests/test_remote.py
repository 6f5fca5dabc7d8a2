"""Jobs on other machines: each is measured once, one at a time on a computer, and no run mixes machines that differ.

The engine is real, in this process; what measures stands in for it.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import builders
import pytest
import torch

from benchmarks import machines, remote
from benchmarks.environment import Finding
from benchmarks.failure import Failure
from benchmarks.journal import code_of_the_suite
from benchmarks.models import Source
from benchmarks.options import OptionError, RunOptions
from benchmarks.plan import Job, plan
from benchmarks.record import GroupResult, Timed
from benchmarks.remote import Machines, Opening
from benchmarks.session import Session

distributed = pytest.importorskip("distributed")

ROOT = Path(__file__).parent.parent
JOBS = [
    Job(scenario="forward", source=Source(f"model_{number}", "tiny"), device="cpu", dtype="float32", modes=("tracked",))
    for number in range(8)
]
FACTS = {"torch": "2.13.0+cpu", "microcode": "0x1", "libc": "glibc 2.36", "affinity": [0], "threads": 1, "computer": "one"}
INFO = {"node": "one", "system": "Linux", "release": "6.1", "cpu": {"brand_raw": "a processor"}}


def opening(**changes: Any) -> Opening:
    facts = FACTS | {"torch": str(torch.__version__)} | changes.pop("facts", {})
    told = Opening(JOBS, facts, INFO | {"gradtax": facts}, [Finding("it is hot", "cool it")], {"load": 0.1})
    return replace(told, **changes)


def of_each_worker(dask_worker: Any) -> str:
    """A computer for each worker."""
    return str(dask_worker.name)


def of_all_workers() -> str:
    return "one"


def nothing() -> dict[str, Any]:
    return {}


class Child:
    """Takes a child's place: measures at once, or fails, as the scene says."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.opening = scene.openings.pop(0) if scene.openings else opening()

    async def ask(self, request: bytes) -> bytes:
        function, args = pickle.loads(request)
        if function is remote.opened:
            return pickle.dumps((not isinstance(self.opening, Exception), self.opening))
        if function is code_of_the_suite:
            return pickle.dumps((True, self.scene.code))
        if function is remote.ended:
            return pickle.dumps((True, ({"load": 0.2}, [])))
        assert function is remote.measured
        return pickle.dumps(await self.scene.measured(self, args[0].source.model))

    def end(self) -> None:
        pass


@dataclass
class Scene:
    """What children tell when a run begins, models that end their child or raise, what was measured, and how many jobs were at once."""

    openings: list[Opening | Exception] = field(default_factory=list)
    code: str = code_of_the_suite()
    lethal: str = ""
    raising: str = ""
    log: list[str] = field(default_factory=list)
    running: list[Child] = field(default_factory=list)
    most_at_once: int = 0
    most_in_one: int = 0

    async def start(self, environment: Any) -> Child:
        return Child(self)

    async def measured(self, child: Child, model: str) -> tuple[bool, Any]:
        self.running.append(child)
        self.most_at_once = max(self.most_at_once, len(self.running))
        self.most_in_one = max(self.most_in_one, self.running.count(child))
        await asyncio.sleep(0.01)
        self.running.remove(child)
        self.log.append(model)
        if model == self.lethal:
            raise EOFError("it is gone")
        if model == self.raising:
            return False, ValueError("no such thing")
        result = builders.result("tracked", model=model)
        return True, [GroupResult(result.case.group, [Timed(result, [1e-4], 1)])]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with two workers in this process."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address


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


def test_every_job_is_measured_once_and_one_at_a_time_on_each_machine(connect: Any, scene: Scene) -> None:
    groups = list(connect().results(JOBS))
    assert sorted(one.group.model for one in groups) == sorted(scene.log) == [job.source.model for job in JOBS]
    assert {one.machine for one in groups} == {"0", "1"}
    assert (scene.most_at_once, scene.most_in_one) == (2, 1)


def test_workers_of_one_computer_are_never_measured_on_at_once(
    connect: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "host", of_all_workers)
    assert len(list(connect().results(JOBS))) == 8
    assert scene.most_at_once == 1


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
    found: list[GroupResult] = []
    with pytest.raises(Failure, match=r"0 was lost .* no machine is left"):
        found.extend(connect("0").results(JOBS))
    assert scene.log == ["model_0", "model_1", "model_2"]


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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"facts": {"microcode": "0x2", "affinity": [1], "computer": "two"}}, r"[01] and [01] differ \(microcode: 0x1, 0x2\)"),
        ({"machine_info": INFO | {"release": "6.2"}}, "kernel: Linux 6.1, Linux 6.2"),
        ({"jobs": JOBS[1:]}, "their plans"),
    ],
)
def test_a_plan_is_not_split_over_machines_that_differ(connect: Any, scene: Scene, changes: Any, told: str) -> None:
    scene.openings = [opening(), opening(**changes)]
    with pytest.raises(OptionError, match=told):
        connect()


def test_another_commit_there_is_refused(connect: Any, scene: Scene) -> None:
    scene.code = "0123"
    with pytest.raises(OptionError, match=r"[01] has another state of benchmarks/ than there is here"):
        connect()


def test_a_plan_is_not_split_over_machines_with_another_torch_than_here(connect: Any, scene: Scene) -> None:
    scene.openings = [opening(facts={"torch": "1.0"}) for _ in range(2)]
    with pytest.raises(OptionError, match=r"torch is .* here and 1\.0 on 0"):
        connect()


def test_what_cannot_be_had_there_is_told_as_it_is_here(connect: Any, scene: Scene) -> None:
    scene.openings = [OptionError("--device cuda: no GPU"), Failure("crashed", "the device is broken")]
    with pytest.raises(OptionError, match="--device cuda: no GPU"):
        connect("0")
    with pytest.raises(OptionError, match="0: crashed: the device is broken"):
        connect("0")


def test_one_run_at_a_time_has_a_machine(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_LEASE_SECONDS", 0.1)
    first = connect("0")
    with pytest.raises(OptionError, match="another run is measuring on 0"):
        connect()
    first.close()
    connect()


@pytest.mark.parametrize(("names", "told"), [(("7",), "there is no worker 7"), (("0", "8", "9"), "there is no worker 8, 9")])
def test_a_worker_that_is_not_there_is_named_with_those_that_are(connect: Any, names: tuple[str, ...], told: str) -> None:
    with pytest.raises(OptionError, match=rf"{told} \(there: [01], [01]\); start one there"):
        connect(*names)


def test_in_process_is_refused(connect: Any) -> None:
    with pytest.raises(OptionError, match="--in-process"):
        connect(in_process=True)


def test_there_is_nothing_to_split_over_without_machines() -> None:
    with pytest.raises(OptionError, match="--split: spreads a plan over the machines of --machines"):
        plan(RunOptions(split=True))


def test_where_no_scheduler_answers_it_is_told_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_CONNECT_SECONDS", 0.1)
    with pytest.raises(OptionError, match=r"no scheduler answers there .* benchmarks\.machines scheduler"):
        remote.connected(["127.0.0.1:1"])


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(OptionError, match=r"Dask distributed is not installed; pip install -e '\.\[machines\]'"):
        remote.connected(["127.0.0.1:8786"])


def test_the_library_is_not_imported_unless_it_is_asked_for() -> None:
    program = "import sys, conftest; sys.exit(bool({'dask', 'distributed'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


class Quiet:
    """No progress."""

    def __init__(self, jobs: Any) -> None:
        pass

    def announced(self, jobs: Any) -> Any:
        return iter(jobs)

    def shown(self, groups: Any) -> Any:
        return iter(groups)


def test_a_split_run_is_saved_as_a_run_of_each_machine_also_where_one_is_gone_when_it_is_gone_on_with(
    connect: Any, address: str, scene: Scene, tmp_path: Path
) -> None:
    def session(*names: str) -> Session:
        begun = Session(RunOptions(machines=(address, *names), split=True), nothing)
        try:
            begun.begin(Quiet, tmp_path, resume=bool(names))
        finally:
            begun.signals.restore()
        return begun

    first = session()
    for _ in range(5):
        first.run._take()
    measured_before = {one.group.model: one.machine for one in first.run.groups.values()}
    first.end()
    assert first.told

    second = session("0")
    second.run.take_all()
    whole = {"benchmarks": [{"param": str(one.case)} for one in second.run.results], "gradtax": second.top_level()}
    parts = list(second.parts(whole))
    second.save(tmp_path, "run", (b"{}" for _ in parts))
    second.end()
    assert (
        [path.name for path in second.saved]
        == [path.name for path in sorted(tmp_path.iterdir())]
        == ["0001_run.json", "0002_run.json"]
    )

    expected = Counter({"0": 8 - list(measured_before.values()).count("1"), "1": list(measured_before.values()).count("1")})
    saved = {part["gradtax"]["conditions"]["machine"]: len(part["benchmarks"]) for part in parts}
    assert Counter(saved) == expected
    assert all(part["machine_info"]["node"] == "one" for part in parts)
    assert sorted(model for model in scene.log if model in measured_before) == sorted(measured_before)
