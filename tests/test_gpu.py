"""What is measured where calls are only queued: three clocks, long blocks, a warm device, and what is sent while nobody looks."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stand_ins import MIB, WAIT_SECONDS, FakeCuda, Work

from benchmarks.device import Cpu, Cuda
from benchmarks.failure import Failure
from benchmarks.group import examine_modes, measure
from benchmarks.intervals import median_ratio
from benchmarks.measure.alternating import PLACEBO, time_together
from benchmarks.measure.examine import Examination, examine, examine_together
from benchmarks.measure.known_blocks import try_meters
from benchmarks.measure.queued import HELD_BLOCKS, WARM_SECONDS, bound_by, busy_seconds, limits_on
from benchmarks.measure.timing import Block, Limits, RunBlock, Timings, arm, time_arms
from benchmarks.models import Source
from benchmarks.modes import Step
from benchmarks.options import Effort
from benchmarks.plan import Job
from benchmarks.record import Contract, Kernels, Memory, ModelFacts
from benchmarks.selfcheck import device as selfcheck
from benchmarks.selfcheck import findings
from benchmarks.selfcheck.__main__ import main
from benchmarks.selfcheck.findings import Goal
from benchmarks.selfcheck.planted import CALLS, repeated
from benchmarks.workers import InProcess

US = 1e-6
SHORT = Limits(rounds=10, seconds=0.0, longest_seconds=math.inf)


def run_of(cuda: FakeCuda, name: str, step: Step) -> RunBlock:
    return arm(name, step, Cuda(cuda=cuda), cuda.clock, lambda: 0)


def timed(cuda: FakeCuda, steps: Mapping[str, Step], limits: Limits = SHORT, process: int = 0) -> Timings:
    """As a first process times them on a GPU, which this one needs no half a second to warm up."""
    device = Cuda(cuda=cuda)
    arms = {name: run_of(cuda, name, step) for name, step in steps.items()}
    limits = replace(limits_on(device, limits, process), warm_seconds=0.0)
    timings = time_arms(arms, limits, random.Random(0), cuda.clock)
    return replace(timings, busy_seconds=busy_seconds(steps, device, timings))


@pytest.mark.parametrize(("device_us", "wall_us"), [(1, 50), (7, 70), (50, 500)])
def test_three_clocks_tell_what_the_host_takes_what_a_loop_takes_and_what_the_device_works(
    device_us: float, wall_us: float
) -> None:
    """Ten kernels of 5 us of the host each. The clock of the device alone is not the wall's, however slow the host is."""
    cuda = FakeCuda()
    found = timed(cuda, {"tracked": Work(cuda, 10, 5 * US, device_us * US)})
    wall = found.seconds["tracked"][0] / found.calls
    assert found.host_seconds["tracked"] == pytest.approx(50 * US, rel=1e-3)
    assert found.busy_seconds["tracked"] == pytest.approx(10 * device_us * US, rel=1e-3)
    assert wall == pytest.approx(wall_us * US, rel=0.01)


@pytest.mark.parametrize(
    ("busy", "expected"), [(0.1, "host"), (0.49, "host"), (0.51, "both"), (0.89, "both"), (0.91, "device"), (1.01, "device")]
)
def test_what_decides_is_told_by_the_share_that_the_device_works(busy: float, expected: str) -> None:
    assert bound_by(busy * 3e-4, 3e-4) == expected


def test_blocks_are_so_long_that_waiting_does_not_show_in_a_ratio() -> None:
    """In blocks of 200 us the wait of 15 us, the same for each arm, makes 1.300 about 1.27."""
    cuda = FakeCuda()
    steps = {"tracked": Work(cuda, 13, 5 * US, 1 * US), "no_grad": Work(cuda, 10, 5 * US, 1 * US)}
    found = timed(cuda, steps)
    assert median_ratio(found.seconds["tracked"], found.seconds["no_grad"]) == pytest.approx(1.3, rel=0.001)
    assert found.calls * found.host_seconds["no_grad"] >= 0.99 * 5e-3
    arms = {name: run_of(cuda, name, step) for name, step in steps.items()}
    short = time_arms(arms, replace(SHORT, washout=1), random.Random(0), cuda.clock)
    assert median_ratio(short.seconds["tracked"], short.seconds["no_grad"]) < 1.285


def test_what_a_call_takes_by_itself_is_waited_for() -> None:
    cuda = FakeCuda()
    found = timed(cuda, {"tracked": Work(cuda, 4, 2.0**-10, 2.0**-8)})
    assert (found.washout, found.first_seconds) == (1, {"tracked": 2.0**-10 + 4 * 2.0**-8 + WAIT_SECONDS})
    mostly_waiting = timed(cuda, {"tracked": Work(cuda, 1, 1 * US, 1 * US)})
    assert mostly_waiting.calls == pytest.approx(5000, rel=0.02), "a block is as long as asked"


@pytest.mark.parametrize(("process", "least"), [(0, WARM_SECONDS), (1, 0.15)])
def test_the_device_is_warmed_up_with_blocks_back_to_back_and_not_with_single_calls(process: int, least: float) -> None:
    """A clock that rises for half a second would else be timed, and single calls leave the device idle."""
    cuda = FakeCuda()
    blocks: list[int] = []
    run = run_of(cuda, "tracked", Work(cuda, 10, 5 * US, 1 * US))

    def counted(washout: int, calls: int) -> Block:
        blocks.append(calls)
        return run(washout, calls)

    limits = limits_on(Cuda(cuda=cuda), SHORT, process)
    calls = time_arms({"tracked": counted}, limits, random.Random(0), cuda.clock).calls
    warm = blocks[1:-10]
    assert warm[:3] == [1, 2, 4]
    assert blocks[-10:] == [calls] * 10
    assert sum(warm) * 50 * US >= 0.95 * least


def test_a_cpu_is_timed_as_before() -> None:
    assert limits_on(Cpu(), SHORT, 0) is SHORT
    block = arm("tracked", lambda: None, Cpu())(1, 2)
    assert (block.host_seconds, block.driver_allocations) == (None, 0)


@pytest.mark.parametrize("step", ["waits", "long"])
def test_the_devices_own_work_is_not_told_of_steps_that_cannot_all_wait_in_the_queue(step: str) -> None:
    cuda = FakeCuda()
    steps = {"waits": Work(cuda, 10, 5 * US, 1 * US, waits=True), "long": Work(cuda, 1100, 5 * US, 6 * US)}
    found = timed(cuda, {step: steps[step], "tracked": Work(cuda, 10, 5 * US, 1 * US)})
    assert set(found.busy_seconds) == {"tracked"}
    assert found.host_seconds[step] > 0


def test_arms_run_in_turn_behind_a_held_queue_fewer_times_if_they_are_slow_and_one_that_raises_there_is_named() -> None:
    cuda, order = FakeCuda(), list[str]()
    work = Work(cuda, 1, 5 * US, 50 * US)

    def raising_after(calls: float, name: str) -> Step:
        def call() -> None:
            order.append(name)
            if len(order) > calls:
                raise ValueError("boom")
            work()

        return call

    steps = {name: raising_after(math.inf, name) for name in "ab"}
    timings = Timings(4, 1, dict.fromkeys("ab", [2e-4] * 3), host_seconds={"a": 5 * US, "b": 5 * US})
    busy_seconds(steps, Cuda(cuda=cuda), timings)
    assert order == ["a", "a", "b", "b"] * HELD_BLOCKS
    order.clear()
    busy_seconds(steps, Cuda(cuda=cuda), replace(timings, seconds=dict.fromkeys("ab", [10.0] * 3)))
    assert order == ["a", "a", "b", "b"] * 5, "a call that takes seconds varies little"
    with pytest.raises(Failure, match="boom") as caught:
        busy_seconds(steps | {"b": raising_after(len(order) + 6, "b")}, Cuda(cuda=cuda), timings)
    assert caught.value.arm == "b"


def test_an_error_of_the_device_names_the_arm_that_was_waited_for() -> None:
    cuda = FakeCuda()

    def asserts() -> None:
        cuda.launch(1 * US, error="CUDA error: device-side assert triggered")

    with pytest.raises(Failure, match="device-side assert") as caught:
        timed(cuda, {"tracked": asserts})
    assert (caught.value.arm, caught.value.status) == ("tracked", "crashed")


def test_what_the_driver_is_asked_for_in_timed_calls_is_counted_and_what_was_asked_before_is_not() -> None:
    found = {}
    for size_bytes in (MIB, 32 * MIB):
        cuda = FakeCuda()
        work = Work(cuda, 10, 5 * US, 1 * US)

        def step(cuda: FakeCuda = cuda, work: Work = work, size_bytes: int = size_bytes) -> None:
            work()
            cuda.free(cuda.allocate(size_bytes))
            if size_bytes > MIB:
                cuda.empty_cache()

        found[size_bytes] = timed(cuda, {"step": step}).driver_allocations["step"]
    assert found == {MIB: 0.0, 32 * MIB: 2.0}


def test_a_process_of_a_group_reads_all_three_clocks_and_a_later_one_two(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quick(Cuda):
        min_block_seconds = 1e-4

    monkeypatch.setattr("benchmarks.measure.alternating.device_named", lambda _: Quick(cuda=FakeCuda()))
    monkeypatch.setattr("benchmarks.measure.queued.WARM_SECONDS", 0.0)
    monkeypatch.setattr("benchmarks.measure.queued.WARM_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("benchmarks.allocator.keep_pages", lambda: None)
    job = Job(scenario="forward", source=Source("mlp", "tiny"), device="cpu", dtype="float32", modes=("tracked", "no_grad"))
    limits = Limits(rounds=2, seconds=0.0)
    first = time_together(job, job.modes, limits, 0, own_process=False)
    assert set(first.busy_seconds) == {"tracked", "no_grad"}
    assert set(first.host_seconds) == {"tracked", "no_grad", "placebo"}
    later = time_together(job, job.modes, limits, 1, own_process=False)
    assert (later.busy_seconds, set(later.host_seconds)) == ({}, {"tracked", "no_grad", "placebo"})


ON_GPU = Job(scenario="forward", source=Source("mlp", "tiny"), device="cuda", dtype="float32", modes=("no_grad", "detach"))
FOUND = Examination(Contract(holds=True), Kernels(same_as_tracked=True), Memory(1, 2, 3, 4), ModelFacts(1, 4), None)


class Examining:
    """Workers in which `failing` modes fail each by itself, and which come as far as `together` says with all of them in one."""

    def __init__(self, together: Sequence[str] | None, failing: Sequence[str] = ()) -> None:
        self.together, self.failing = together, failing
        self.alone: list[str] = []
        self.fresh = True

    def run(self, task: Any, job: Job, mode: Any, *args: Any, arms: Sequence[str], launch: int = 0) -> Any:
        if task is examine_together:
            assert tuple(arms) == tuple(mode) == ("tracked", "no_grad", "detach")
            if self.together is None:
                raise Failure("crashed", "the process was killed")
            return dict.fromkeys(self.together, FOUND)
        assert task is examine
        self.alone.append(mode)
        if mode in self.failing:
            raise Failure("crashed", "device-side assert")
        return FOUND


ALL = ["tracked", "no_grad", "detach"]


@pytest.mark.parametrize(
    ("device", "together", "alone"),
    [("cuda", ALL, []), ("cuda", ALL[:1], ALL[1:]), ("cuda", None, ALL), ("cpu", (), ALL)],
    ids=["all", "until one fails", "lost", "a heap each"],
)
def test_one_worker_examines_all_modes_on_a_gpu_and_what_it_does_not_come_to_gets_one_each(
    device: str, together: Sequence[str] | None, alone: list[str]
) -> None:
    workers: Any = Examining(together, failing=("no_grad",))
    modes = examine_modes(replace(ON_GPU, device=device), workers)
    assert workers.alone == alone
    assert set(modes.failures) == {"no_grad"} & set(alone)
    assert set(modes.examined) == set(ALL) - set(modes.failures)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device-side assert"), Failure("unsupported", "no")])
def test_examining_together_ends_where_a_mode_fails_because_a_failed_device_spoils_what_follows(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def examined(job: Job, mode: str, **how: Any) -> Examination:
        assert how == {"with_tracked": True, "own_process": False, "calls_only": False}
        if mode == "no_grad":
            raise error
        return FOUND

    monkeypatch.setattr("benchmarks.measure.examine.examine", examined)
    assert list(examine_together(ON_GPU, ["tracked", "inference_mode", "no_grad", "detach"])) == ["tracked", "inference_mode"]


@pytest.mark.parametrize(("device_us", "decides", "speedup"), [(1.0, "host", 1.24), (50.0, "device", 1.0)])
def test_what_was_read_on_a_gpu_reaches_the_record(device_us: float, decides: str, speedup: float) -> None:
    """Tracked takes 12 us of the host more, the device as long in both modes: time is the host's where that is slower."""

    class OnFake(Examining):
        def run(self, task: Any, job: Job, mode: Any, *args: Any, arms: Sequence[str], launch: int = 0) -> Any:
            if task is not time_together:
                return super().run(task, job, mode, *args, arms=arms)
            cuda = FakeCuda()
            costs = {"tracked": 6.2, PLACEBO: 6.2, "no_grad": 5.0, "detach": 6.3}
            steps = {name: Work(cuda, 10, costs[name] * US, device_us * US) for name in arms}
            return timed(cuda, steps, process=args[1])

    workers: Any = OnFake(ALL)
    (group,) = measure(replace(ON_GPU, modes=tuple(ALL), effort=Effort(processes=2)), workers)
    found = {one.result.case.mode: one.result for one in group.timed}
    assert {(one.bound_by, one.driver_allocations) for one in found.values()} == {(decides, 0.0)}
    assert found["no_grad"].speedup is not None
    assert found["no_grad"].speedup.estimate == pytest.approx(speedup, rel=0.01)
    assert found["tracked"].host_seconds == pytest.approx(62 * US, rel=0.001)
    assert found["tracked"].busy_seconds == pytest.approx(10 * device_us * US, rel=0.001)


# The device's own check.


class OnFakeCuda(InProcess):
    """Workers on a sound accelerator, whose bytes are those of a CPU; `lost` is a task whose worker is lost."""

    def __init__(self, lost: Any = None) -> None:
        self.lost = lost
        self.launches: list[int] = []

    def run(self, task: Any, *args: Any, arms: Sequence[str] = (), launch: int = 0) -> Any:
        if task is self.lost:
            raise Failure("crashed", "the process was killed by SIGSEGV")
        if task is time_together:
            self.launches.append(launch)
            return clocks_of(arms, device_us=50.0 if args[0].source.size == "huge" else 1.0)
        if task is examine_together:
            return super().run(task, replace(args[0], device="cpu"), args[1], arms=arms)
        known: dict[Any, Any] = {(selfcheck.opened, "cuda"): (False, 0.5, True), (try_meters, "cuda"): {}}
        return known[task, args[0]] if (task, args[0]) in known else super().run(task, *args)


def clocks_of(arms: Sequence[str], device_us: float = 1.0) -> Timings:
    cuda = FakeCuda()
    step = Work(cuda, 10, 6 * US, device_us * US)
    known = {"no_grad": Work(cuda, 10, 5 * US, device_us * US)} | {
        name: repeated(step, int(name.removesuffix(CALLS))) for name in (selfcheck.LONGER, selfcheck.SHORTER)
    }
    return timed(cuda, {name: known.get(name, step) for name in arms})


@pytest.mark.parametrize("lost", [None, examine_together])
def test_a_sound_accelerator_reaches_every_goal_but_those_of_workers_that_are_lost(
    monkeypatch: pytest.MonkeyPatch, lost: Any
) -> None:
    sizes = {name: selfcheck.FAMILY.sizes[name] for name in ("tiny", "odd")}
    monkeypatch.setattr(selfcheck, "FAMILY", replace(selfcheck.FAMILY, sizes=sizes))
    monkeypatch.setattr(selfcheck, "TIMED", (("mlp", "tiny"), ("mlp", "huge")))
    monkeypatch.setattr(selfcheck, "PLANTED", (("mlp", "tiny"),))
    workers = OnFakeCuda(lost)
    told = list(selfcheck.goals("cuda", workers))
    missed = [str(goal) for goal in told if not goal.reached]
    assert missed == (["MISSED  workers lost (crashed: the process was killed by SIGSEGV): 1 (at most 0)"] * 2 if lost else [])
    assert len(told) == 2 + 1 + (2 if lost else 8) + 2 * 6 + 1 + 1
    assert workers.launches[-5:] == [0, 1, 2, 3, 4]


def missed(timings: Timings) -> list[str]:
    return [goal.what.removeprefix("it") for goal in selfcheck.clock_goals("it", timings) if not goal.reached]


def test_clocks_are_held_against_each_other() -> None:
    timings = clocks_of(("tracked", PLACEBO, "no_grad"))
    assert missed(timings) == []
    assert missed(replace(timings, driver_allocations={"tracked": 0.1})) == [", driver allocations while timing"]
    (apart,) = missed(replace(timings, seconds=timings.seconds | {PLACEBO: [1.0] * len(timings.seconds[PLACEBO])}))
    assert apart.endswith("the same code timed twice")
    too_long = {name: 1.5 * timings.seconds[name][0] / timings.calls for name in ("tracked", "no_grad")}
    assert [what.split(",")[0] for what in missed(replace(timings, busy_seconds=too_long))] == [" tracked", " no_grad"]
    gaps = missed(replace(timings, host_seconds=dict.fromkeys(timings.seconds, 1 * US)))
    assert gaps == [" tracked, the same", " no_grad, the same"], "nothing accounts for the time of a call"
    assert len(missed(replace(timings, busy_seconds={}))) == 4


def test_bytes_and_two_percent_that_are_not_those_on_paper_are_missed() -> None:
    workers: Any = SimpleNamespace(run=lambda *_, **__: {"tracked": FOUND, "no_grad": FOUND})
    told = [str(goal) for goal in selfcheck.mlp_bytes("tiny", "cuda", workers)]
    assert told[0] == (
        "MISSED  mlp tiny tracked, peak, held and saved bytes: (1, 2, 3), known: (10240, 8192, 8192); wrong: 1 (at most 0)"
    )
    assert [line.split(" ")[0] for line in told] == ["MISSED"] * 4
    workers.run = lambda *_, **__: Timings(1, 1, {selfcheck.LONGER: [1.0], selfcheck.SHORTER: [1.0]})
    (goal,) = selfcheck.planted("mlp", "tiny", "cuda", workers)
    assert not goal.reached


def test_the_check_tells_each_goal_and_is_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.device.Cuda.unavailable", lambda _: None)
    goals = [Goal("first", 1, 0, form="g"), Goal("second", 0, 0, form="g")]
    monkeypatch.setattr(selfcheck, "goals", lambda device, workers: iter(goals))
    monkeypatch.setattr(findings, "FOLDER", tmp_path)
    assert main(["device", "--device", "cuda"]) == 1
    assert capsys.readouterr().out.splitlines() == [*map(str, goals), "", f"saved as {tmp_path / 'device.json'}"]


@pytest.mark.parametrize(("device", "said"), [("cpu", "this checks accelerators alone"), ("mps", "there is no clock")])
def test_without_an_accelerator_the_check_says_so(capsys: pytest.CaptureFixture[str], device: str, said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["device", "--device", device])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
