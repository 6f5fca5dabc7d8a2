"""From a group to its results: who is examined, who is timed, what becomes of the rest; and the door for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_ins import FakeCuda
from torch import nn

from benchmarks import tasks
from benchmarks.device import Cuda
from benchmarks.failure import Failure
from benchmarks.lockstep import LAYOUTS
from benchmarks.measure.timing import Limits, Timings
from benchmarks.models import Source, Workload
from benchmarks.options import OptionError, RunOptions
from benchmarks.plan import Planned
from benchmarks.record import Contract, Group, Interval, Kernels, Memory, ModelFacts, Result
from benchmarks.room import ThisProcess, nobody
from benchmarks.suite import Bench, Outcome, measure_model
from benchmarks.tasks import Examination, Job, examine, time_group

GROUP = Group("forward", "mlp", "tiny", "cpu", "float32", "resident")
MODES = ("tracked", "no_grad", "inference_mode")
HOLDS = Contract(holds=True)


class StandInRooms:
    """Answers tasks from a script: what each mode's examination finds, and how long each lane's calls take.

    `later` are seconds that differ from `seconds` in the second timing, the third and so on.
    """

    fresh = True

    def __init__(
        self, seconds: dict[str, float], examinations: dict[str, Contract | Failure], lost: Sequence[Failure] = (),
        later: Sequence[dict[str, float]] = (),
    ) -> None:  # fmt: skip
        self.seconds = seconds
        self.later = iter(later)
        self.calls: list[int | None] = []
        self.examinations = examinations
        self.lost = list(lost)
        self.with_tracked: dict[str, bool] = {}
        self.timed: list[list[str]] = []

    def open(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("nothing is to be driven")

    def run(self, task: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if task is examine:
            mode = args[1]
            assert mode not in self.with_tracked, "examined twice"
            self.with_tracked[mode] = kwargs["with_tracked"]
            found = self.examinations.get(mode, HOLDS)
            if isinstance(found, Failure):
                raise found
            return Examination(found, Kernels(same_as_tracked=True), Memory(1, 2, 3, 4), ModelFacts(1, 4, []), 0.25)
        assert task is time_group
        modes: list[str] = args[1]
        self.timed.append(modes)
        if self.lost:
            raise self.lost.pop(0)
        lanes = [*modes, "placebo"] if "tracked" in modes else modes
        self.calls.append(args[2].calls)
        seconds = {lane: [self.seconds[lane]] * 20 for lane in lanes}
        self.seconds = self.seconds | next(self.later, {})
        return Timings(2, dict.fromkeys(lanes, 4), 1.5, seconds, {}, dict.fromkeys(lanes, 0.5))


def measured(
    rooms: StandInRooms, modes: tuple[str, ...] = MODES, **options: Any
) -> tuple[dict[str, Result], dict[str, str], Outcome]:
    outcome = Bench(RunOptions(devices=("cpu",), **options), rooms).measure(Planned(GROUP, Source("mlp", "tiny"), modes))
    results = {timed.result.case.mode: timed.result for timed in outcome.measured}
    return results, {one.case.mode: one.status for one in outcome.unmeasured}, outcome


SECONDS = {"tracked": 3.0, "placebo": 3.0, "no_grad": 2.0, "inference_mode": 3.003}


def test_speedups_are_against_tracked_and_seconds_are_per_call() -> None:
    results, unmeasured, outcome = measured(StandInRooms(SECONDS, {}))
    assert {mode: result.verdict for mode, result in results.items()} == {
        "tracked": "baseline", "no_grad": "faster", "inference_mode": "same",
    }  # fmt: skip
    speedup = results["no_grad"].speedup
    assert speedup is not None
    assert speedup.estimate == pytest.approx(1.5)
    assert (results["no_grad"].seconds, results["no_grad"].page_faults) == (1.0, 0.5)
    inference_mode = results["inference_mode"].over_no_grad
    assert inference_mode is not None
    assert inference_mode.estimate == pytest.approx(2 / 3.003)
    assert results["no_grad"].over_no_grad is results["tracked"].over_no_grad is None
    assert all(result.trusted for result in results.values())
    assert unmeasured == {}
    assert outcome.measured_seconds == 3 * 0.25 + 1.5


def test_a_placebo_that_reads_faster_marks_the_group_untrusted() -> None:
    results, _, _ = measured(StandInRooms({**SECONDS, "placebo": 2.9}, {}), retries=0)
    assert not any(result.trusted for result in results.values())
    assert results["no_grad"].discarded_placebos == []
    assert results["no_grad"].placebo is not None
    assert results["no_grad"].placebo.estimate == pytest.approx(3.0 / 2.9)


def test_an_untrusted_group_is_timed_again_and_what_was_discarded_is_told() -> None:
    rooms = StandInRooms({**SECONDS, "placebo": 2.9}, {}, later=[{"placebo": 3.0, "no_grad": 1.5}])
    results, _, _ = measured(rooms)
    assert len(rooms.timed) == 2
    assert results["no_grad"].trusted
    assert results["no_grad"].speedup == Interval(2.0, 2.0, 2.0), "of the timing that counts"
    assert [reading.estimate for reading in results["no_grad"].discarded_placebos] == [pytest.approx(3.0 / 2.9)]


def test_a_group_that_stays_untrusted_is_timed_no_more_often_than_asked() -> None:
    rooms = StandInRooms({**SECONDS, "placebo": 2.9}, {})
    results, _, _ = measured(rooms, retries=2)
    assert len(rooms.timed) == 3
    assert not results["tracked"].trusted
    assert len(results["tracked"].discarded_placebos) == 2


def test_several_processes_are_combined_and_recorded_one_by_one() -> None:
    rooms = StandInRooms(SECONDS, {}, later=[{"no_grad": 2.2}, {"no_grad": 2.1}])
    results, _, outcome = measured(rooms, processes=3)
    no_grad = results["no_grad"]
    assert [(one.rounds, one.seconds) for one in no_grad.processes] == [(20, 1.0), (20, 1.1), (20, 1.05)]
    assert [one.speedup for one in no_grad.processes] == pytest.approx([1.5, 3 / 2.2, 3 / 2.1])
    assert no_grad.speedup is not None
    assert no_grad.speedup.low < 3 / 2.2 < 1.5 < no_grad.speedup.high, "each process was certain, but they do not agree"
    assert no_grad.seconds == 1.05
    assert [len(timed.blocks) for timed in outcome.measured] == [60, 60, 60]
    assert rooms.calls == [None, 2, 2], "all blocks hold as many calls as the first process chose"


def test_one_process_is_not_recorded_twice() -> None:
    results, _, _ = measured(StandInRooms(SECONDS, {}))
    assert results["no_grad"].processes == []


def test_both_allocators_share_an_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = StandInRooms(SECONDS, {})
    driven: list[Sequence[str]] = []

    def in_lock_step(rooms: Any, job: Job, modes: Sequence[str], limits: Limits, layout: int, listen: Any) -> Timings:
        driven.append(modes)
        assert limits.budget_seconds == 4 / LAYOUTS
        return Timings(2, dict.fromkeys(SECONDS, 4), 0.5, {lane: [SECONDS[lane]] * 20 for lane in SECONDS}, {}, SECONDS)

    monkeypatch.setattr("benchmarks.suite.time_in_lock_step", in_lock_step)
    bench = Bench(RunOptions(devices=("cpu",)), rooms)
    resident = bench.measure(Planned(GROUP, Source("mlp", "tiny"), MODES))
    default = bench.measure(Planned(replace(GROUP, allocator="default"), Source("mlp", "tiny"), MODES))
    assert (len(rooms.timed), driven) == (1, [list(MODES)] * LAYOUTS)
    assert [timed.result.memory for timed in default.measured] == [timed.result.memory for timed in resident.measured]
    assert (resident.measured_seconds, default.measured_seconds) == (3 * 0.25 + 1.5, LAYOUTS * 0.5)


def test_as_shipped_heaps_that_read_apart_widen_the_interval_and_few_rounds_in_each_suffice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each heap is certain of itself, and identical code reads from 0.75 to 1.28: no verdict follows, and it says so."""
    placebos = iter([1.28, 0.9, 0.75, 0.98, 0.92, 1.1])

    def in_lock_step(rooms: Any, job: Job, modes: Sequence[str], limits: Limits, layout: int, listen: Any) -> Timings:
        seconds = {"tracked": [1.0] * 3, "no_grad": [0.5] * 3, "placebo": [1 / next(placebos)] * 3}
        return Timings(1, dict.fromkeys(seconds, 4), 1.0, seconds, {}, dict.fromkeys(seconds, layout))

    monkeypatch.setattr("benchmarks.suite.time_in_lock_step", in_lock_step)
    planned = Planned(replace(GROUP, allocator="default"), Source("mlp", "tiny"), ("tracked", "no_grad"))
    tracked, no_grad = (timed.result for timed in Bench(RunOptions(), StandInRooms(SECONDS, {})).measure(planned).measured)
    assert tracked.placebo is not None
    assert tracked.placebo.low < 0.8
    assert tracked.placebo.high > 1.2
    assert tracked.trusted
    assert (no_grad.speedup, no_grad.verdict) == (Interval(2.0, 2.0, 2.0), "faster")
    assert no_grad.page_faults == 2.5
    assert {one.rounds for one in no_grad.processes} == {3}
    assert [one.placebo for one in no_grad.processes] == pytest.approx([1.28, 0.9, 0.75, 0.98, 0.92, 1.1])


def test_the_default_allocator_is_measured_where_pages_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.allocator.unavailable", lambda: "no glibc")
    found = Bench(RunOptions(devices=("cpu",)), ThisProcess()).measure(
        Planned(replace(GROUP, allocator="default"), Source("mlp", "tiny"), ("tracked",))
    )
    assert [one.reason for one in found.unmeasured] == ["needs a process per lane, which --in-process does without"]


def test_a_mode_that_was_not_asked_for_is_not_reported_though_tracked_is_measured_for_comparison() -> None:
    rooms = StandInRooms(SECONDS, {})
    results, unmeasured, _ = measured(rooms, ("no_grad",))
    assert (list(results), unmeasured) == (["no_grad"], {})
    assert rooms.timed == [["tracked", "no_grad"]]
    assert results["no_grad"].verdict == "faster"


def test_a_lane_that_breaks_its_contract_is_known_before_the_rest_are_timed() -> None:
    rooms = StandInRooms(SECONDS, {"no_grad": Contract(holds=False, broken=["a", "b"])})
    results, unmeasured, outcome = measured(rooms)
    assert unmeasured == {"no_grad": "broken_contract"}
    assert outcome.unmeasured[0].reason == "a; b"
    assert rooms.timed == [["tracked", "inference_mode"]]
    assert list(results) == ["tracked", "inference_mode"]


def test_without_tracked_the_others_go_on_without_comparison() -> None:
    rooms = StandInRooms(SECONDS, {"tracked": Failure("out_of_memory", "needs 2 GiB")})
    results, unmeasured, _ = measured(rooms, ("no_grad", "inference_mode"))
    assert rooms.with_tracked == {"tracked": True, "no_grad": False, "inference_mode": False}
    assert unmeasured == {"tracked": "out_of_memory"}, "told though not asked for: it is why there are no speedups"
    assert {(result.speedup, result.verdict, result.trusted, result.placebo) for result in results.values()} == {
        (None, "unclear", False, None)
    }


def test_a_lane_lost_while_timing_is_left_out_and_the_rest_timed_again() -> None:
    rooms = StandInRooms(SECONDS, {}, [Failure("crashed", "SIGSEGV", "no_grad")])
    results, unmeasured, _ = measured(rooms)
    assert rooms.timed == [["tracked", "no_grad", "inference_mode"], ["tracked", "inference_mode"]]
    assert (list(results), unmeasured) == (["tracked", "inference_mode"], {"no_grad": "crashed"})


def test_a_lost_placebo_is_trackeds_loss() -> None:
    _, unmeasured, _ = measured(StandInRooms(SECONDS, {}, [Failure("crashed", "SIGSEGV", "placebo")]))
    assert unmeasured == {"tracked": "crashed"}


def test_a_failure_of_no_lane_in_particular_is_everyones() -> None:
    rooms = StandInRooms(SECONDS, {}, [Failure("timed_out", "3 rounds")])
    results, unmeasured, _ = measured(rooms)
    assert (results, unmeasured) == ({}, dict.fromkeys(MODES, "timed_out"))
    assert len(rooms.timed) == 1


def test_nothing_is_timed_when_only_tracked_is_left_and_was_not_asked_for() -> None:
    rooms = StandInRooms(SECONDS, {"no_grad": Failure("crashed", "")})
    results, unmeasured, _ = measured(rooms, ("no_grad",))
    assert (results, unmeasured, rooms.timed) == ({}, {"no_grad": "crashed"}, [])


def test_where_pages_cannot_be_kept_the_resident_cases_are_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.allocator.unavailable", lambda: "no glibc")
    results, unmeasured, _ = measured(StandInRooms(SECONDS, {}))
    assert (results, unmeasured) == ({}, dict.fromkeys(MODES, "unsupported"))


def test_a_live_module_is_measured_in_three_lines() -> None:
    module, inputs = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256)), torch.randn(64, 256)
    result = measure_model(module, inputs, modes="tracked,no_grad", budget=0.05)
    assert result["tracked"].memory.peak_tensor_bytes == 2 * 65536
    assert result["tracked"].memory.peak_rss_bytes is None
    assert result["no_grad"].case.size == "own"
    assert "Sequential own" in repr(result)
    assert "no_grad" in repr(result)
    with pytest.raises(KeyError, match="detach"):
        result["detach"]


def test_a_live_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    inputs = torch.randn(4, 8)
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    measure_model(module, inputs, modes="frozen,detached_parameters,detach", budget=0.05)
    assert module.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_spec_is_measured_in_clean_rooms_with_resident_memory(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("import torch\ndef net():\n    return torch.nn.Linear(4, 4), torch.randn(2**20, 4)\n")
    result = measure_model(f"{path}:net", modes="no_grad", budget=0.05)
    resident = result["no_grad"].memory.peak_rss_bytes
    assert resident is not None
    assert resident == pytest.approx(16 * 2**20, rel=0.02, abs=256 * 1024)


def test_wrong_use_is_told_in_words() -> None:
    module, inputs = nn.Linear(2, 2), torch.randn(1, 2)
    with pytest.raises(TypeError, match="inputs are missing"):
        measure_model(module)
    with pytest.raises(TypeError, match="nothing to track"):
        measure_model(nn.ReLU(), inputs)
    with pytest.raises(TypeError, match="inputs must be a tensor"):
        measure_model(module, [inputs])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="--budget 0"):
        measure_model(module, inputs, budget=0)


def test_the_whole_way_through_a_cuda_device_is_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "DEVICES", {"cuda": lambda: Cuda(FakeCuda())})
    workload = Workload.of(nn.Linear(8, 8), torch.randn(4, 8))
    job = Job(Group("forward", "linear", "own", "cuda", "float32", "resident"), lambda: workload, threads=1)
    options = RunOptions(devices=("cuda",), budget=0.05)
    outcome = Bench(options, ThisProcess()).measure_job(job, ("tracked", "no_grad"), nobody)
    results = [timed.result for timed in outcome.measured]
    assert [result.case.device for result in results] == ["cuda", "cuda"]
    assert all(result.device_seconds is not None for result in results)
    assert all(result.memory.peak_rss_bytes is None and result.memory.peak_reserved_bytes is not None for result in results)


def test_a_mode_that_leaves_the_model_untracked_for_the_next_call_breaks_its_contract() -> None:
    class Forgets(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.is_grad_enabled():
                self.requires_grad_(requires_grad=False)
            return super().forward(x)

    result = measure_model(Forgets(4, 4), torch.randn(2, 4), modes="tracked,no_grad", budget=0.05)
    assert [(one.case.mode, one.reason) for one in result.unmeasured] == [
        ("no_grad", "a tracked call after no_grad is not tracked")
    ]
