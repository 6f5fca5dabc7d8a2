"""From a job to its results: which modes are examined and timed, in how many processes, and what their figures say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from benchmarks.failure import Failure
from benchmarks.group import check, measure
from benchmarks.measure.alternating import KEPT_PAGES, PLACEBO, serve_arm, time_together
from benchmarks.measure.examine import AsShipped, Examination, examine
from benchmarks.measure.timing import Block, Limits, Timings
from benchmarks.models import Source
from benchmarks.options import Effort
from benchmarks.plan import Job
from benchmarks.record import (
    AS_SHIPPED,
    PAGES_KEPT,
    Broken,
    Contract,
    GroupResult,
    Interval,
    Kernels,
    Memory,
    ModelFacts,
    Result,
    Unmeasured,
)
from benchmarks.scenarios import SCENARIOS
from benchmarks.workers import LAUNCHES

BOTH = (PAGES_KEPT, AS_SHIPPED)
MODES = ("tracked", "no_grad", "inference_mode")
SECONDS = {"tracked": 3.0, PLACEBO: 3.0, KEPT_PAGES: 2.5, "no_grad": 2.0, "inference_mode": 3.003}
JOB = Job(scenario="forward", source=Source("mlp", "tiny"), device="cpu", dtype="float32", modes=MODES)
EXAMINED = Examination(Contract(holds=True), Kernels(same_as_tracked=True), Memory(1, 2, 3, 4), ModelFacts(1, 4), None)


@pytest.fixture(autouse=True)
def pages_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.allocator.unavailable", lambda: None)


@dataclass
class StandIn:
    """Workers that answer from a script: what a mode's examination finds, and the seconds of each arm's blocks of two calls.

    `later` are arms whose seconds differ in the second process, the third and so on. `lost` are failures of as many timings.
    """

    found: Mapping[str, Examination | Failure] = field(default_factory=dict)
    later: Sequence[dict[str, float]] = ()
    lost: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: SECONDS)
    elapsed_seconds: float = 1.0
    fresh = True
    with_tracked: dict[str, bool] = field(default_factory=dict)
    calls_only: set[bool] = field(default_factory=set)
    timed: list[tuple[str, ...]] = field(default_factory=list)
    """The modes of each timing with pages kept."""
    limits: list[Limits] = field(default_factory=list)
    launches: list[int] = field(default_factory=list)
    served: list[str] = field(default_factory=list)

    def run(self, task: Callable[..., Any], *args: Any, arms: Sequence[str] = (), launch: int = 0) -> Any:
        if task is examine:
            return self._examined(*args[1:])
        assert task is time_together
        _, modes, limits, process, own_process = args
        assert own_process
        assert arms == (*modes, *((PLACEBO,) if "tracked" in modes else ()))
        self.timed.append(tuple(modes))
        self.limits.append(limits)
        self.launches.append(launch)
        if self.lost:
            raise self.lost.pop(0)
        changed = self.later[len(self.timed) - 2] if 0 < len(self.timed) - 1 <= len(self.later) else {}
        seconds = {arm: [(self.seconds | changed)[arm]] * 20 for arm in arms}
        return Timings(2, 4, seconds, dict.fromkeys(arms, 1.8), dict.fromkeys(arms, process), self.elapsed_seconds)

    def _examined(self, mode: str, with_tracked: bool, own_process: bool, calls_only: bool) -> Examination:
        assert mode not in self.with_tracked, "examined twice"
        self.with_tracked[mode] = with_tracked
        self.calls_only.add(calls_only)
        found = self.found.get(mode, EXAMINED)
        if isinstance(found, Failure):
            raise found
        return found

    @contextmanager
    def serve(self, task: Callable[..., Any], *args: Any, arms: Sequence[str] = (), launch: int = 0) -> Iterator[Any]:
        assert task is serve_arm
        name = args[1]
        assert tuple(arms) == (name,)
        self.served.append(name)

        def ask(question: tuple[int, int]) -> Block:
            if self.lost and self.lost[0].arm == name:
                raise Failure(self.lost[0].status, self.lost.pop(0).reason)
            washout, calls = question
            return Block(1.5 if washout else None, self.seconds[name] * calls, 3 * calls)

        yield ask


def estimate(interval: Interval | None) -> float:
    assert interval is not None
    return interval.estimate


def effort(**changes: Any) -> Effort:
    return replace(Effort(processes=1, retries=0), **changes)


def groups(workers: StandIn, job: Job = JOB, **changes: Any) -> list[GroupResult]:
    return list(measure(replace(job, effort=effort(**changes)), workers))


def measured(workers: StandIn, job: Job = JOB, **changes: Any) -> tuple[dict[str, Result], dict[str, Unmeasured]]:
    """By mode, of a job with one allocator."""
    (group,) = groups(workers, job, **changes)
    return {one.result.case.mode: one.result for one in group.timed}, {one.case.mode: one for one in group.unmeasured}


def faulting(faults: float = 100.0, seconds: float = 0.01) -> dict[str, Examination]:
    return {"no_grad": replace(EXAMINED, as_shipped=AsShipped(faults, seconds, None))}


# One process.


def test_speedups_are_against_tracked_and_seconds_are_per_call() -> None:
    results, unmeasured = measured(StandIn())
    assert unmeasured == {}
    assert {mode: result.verdict for mode, result in results.items()} == {
        "tracked": "baseline", "no_grad": "faster", "inference_mode": "same",
    }  # fmt: skip
    no_grad = results["no_grad"]
    assert no_grad.speedup is not None
    assert (no_grad.speedup.low, no_grad.speedup.high) == pytest.approx((1.5, 1.5))
    assert results["tracked"].speedup == Interval(1.0, 1.0, 1.0)
    assert (no_grad.seconds, no_grad.after_switch_seconds, no_grad.washout_calls) == pytest.approx((1.0, 1.8, 4))
    assert (no_grad.memory, no_grad.kernels, no_grad.model) == (EXAMINED.memory, EXAMINED.kernels, EXAMINED.model)
    assert (no_grad.placebo, no_grad.resolution, no_grad.trusted) == (Interval(1.0, 1.0, 1.0), 0.0, True)
    assert estimate(results["inference_mode"].over_no_grad) == pytest.approx(2 / 3.003)
    assert results["no_grad"].over_no_grad is results["tracked"].over_no_grad is None


@pytest.mark.parametrize(
    ("found", "results", "timed"),
    [({}, ["no_grad"], [("tracked", "no_grad")]), ({"no_grad": Failure("unsupported", "")}, [], [])],
)
def test_only_what_was_asked_for_is_reported_though_tracked_is_measured_for_comparison(
    found: dict[str, Failure], results: list[str], timed: list[tuple[str, ...]]
) -> None:
    workers = StandIn(found)
    measured_, unmeasured = measured(workers, replace(JOB, modes=("no_grad",)))
    assert (list(measured_), list(unmeasured), workers.timed) == (results, list(found), timed)


def test_no_verdict_is_finer_than_what_identical_code_reads() -> None:
    results, _ = measured(StandIn(seconds=SECONDS | {PLACEBO: 3.0 / 1.009, "no_grad": 3.0 / 1.0505}))
    assert results["no_grad"].verdict == "faster"
    results, _ = measured(StandIn(seconds=SECONDS | {PLACEBO: 3.0 / 1.06, "no_grad": 3.0 / 1.0505}))
    assert results["no_grad"].resolution == pytest.approx(0.06)
    assert {result.verdict for mode, result in results.items() if mode != "tracked"} == {"unclear"}


# Several processes.


def test_processes_come_from_launches_in_turn_and_keep_what_the_first_one_found() -> None:
    workers = StandIn()
    measured(workers, processes=LAUNCHES + 2)
    assert workers.launches == list(range(LAUNCHES + 2))
    assert [(limits.washout, limits.calls) for limits in workers.limits] == [(None, None)] + [(4, 2)] * (LAUNCHES + 1)


@pytest.mark.parametrize(("scenario", "processes", "fewest"), [("forward", 4, 3), ("operators", 3, 3), ("forward", 1, 10)])
def test_a_scenarios_share_of_the_budget_is_shared_by_processes_and_a_timeout_leaves_time_to_say_so(
    scenario: str, processes: int, fewest: int
) -> None:
    """One process's own rounds have to give an interval, so there have to be more of them."""
    workers, share = StandIn(), SCENARIOS[scenario].budget_share
    job = replace(JOB, scenario=scenario, modes=("tracked", "no_grad"))
    measured(workers, job, processes=processes, budget=8.0, worker_timeout=100.0)
    assert {(limits.longest_seconds, limits.fewest_rounds) for limits in workers.limits} == {(share * 8.0 / processes, fewest)}
    assert {limits.timeout_seconds < 100.0 for limits in workers.limits} == {True}
    assert (share < 1) == (scenario == "operators")


def test_the_interval_is_across_processes_and_each_is_recorded() -> None:
    workers = StandIn(later=[{"no_grad": 2.2}, {"no_grad": 2.1}])
    (group,) = groups(workers, processes=3, precision=0.9)
    no_grad = group.timed[1].result
    assert [(one.launch, one.rounds, one.page_faults) for one in no_grad.processes] == [(0, 20, 0), (1, 20, 1), (2, 20, 2)]
    assert [one.seconds for one in no_grad.processes] == pytest.approx([1.0, 1.1, 1.05])
    assert [one.speedup for one in no_grad.processes] == pytest.approx([1.5, 3 / 2.2, 3 / 2.1])
    assert [one.placebo for one in no_grad.processes] == [1.0] * 3
    assert no_grad.speedup is not None
    assert no_grad.speedup.low < 3 / 2.2 < 1.5 < no_grad.speedup.high, "each was certain, but they do not agree"
    assert (no_grad.seconds, no_grad.page_faults) == pytest.approx(((1.0 * 1.1 * 1.05) ** (1 / 3), 1.0))
    assert (group.timed[1].blocks, group.timed[1].calls) == ([2.0] * 20 + [2.2] * 20 + [2.1] * 20, 2)


APART = [{"no_grad": 2.2}, {"no_grad": 2.1}, {"no_grad": 1.9}]


@pytest.mark.parametrize(
    ("later", "changes", "number"),
    [
        ([], {"processes": 4, "budget": 100.0}, 4),
        (APART, {"processes": 4, "budget": 100.0}, 6),
        (APART, {"processes": 4, "budget": 4.5}, 5),
        (APART, {"processes": 4, "budget": 1.0}, 4),
        (APART, {"processes": 4, "budget": 100.0, "precision": 0.5}, 4),
        (APART, {"processes": 1, "budget": 100.0}, 1),
    ],
)
def test_processes_are_added_while_intervals_are_wide_and_the_budget_lasts(
    later: list[dict[str, float]], changes: dict[str, Any], number: int
) -> None:
    workers = StandIn(later=[*later, *later, *later])
    results, _ = measured(workers, **changes)
    assert len(workers.timed) == len(results["no_grad"].processes) == number


def test_as_shipped_a_group_has_half_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def together(workers: StandIn, job: Job, modes: Sequence[str], limits: Limits, process: int) -> Timings:
        timings: Timings = workers.run(time_together, job, modes, limits, process, True, arms=(*modes, PLACEBO))
        return timings

    monkeypatch.setattr("benchmarks.group.time_apart", together)
    workers = StandIn(later=[*APART, *APART])
    measured(workers, replace(JOB, allocators=(AS_SHIPPED,)), processes=4, budget=9.0)
    assert len(workers.timed) == 5
    assert {limits.longest_seconds for limits in workers.limits} == {4.5 / 4}


# Trust.


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_an_untrusted_group_is_timed_again_as_often_as_asked_and_what_was_discarded_is_told(retries: int) -> None:
    """The third timing can be trusted."""
    off = {PLACEBO: 2.9}
    workers = StandIn(seconds=SECONDS | off, later=[off, {PLACEBO: 3.0, "no_grad": 1.5}])
    no_grad = measured(workers, retries=retries)[0]["no_grad"]
    timings = min(retries, 2) + 1
    assert (len(workers.timed), no_grad.trusted) == (timings, timings == 3)
    assert estimate(no_grad.speedup) == pytest.approx(2.0 if timings == 3 else 1.5), "of the timing that counts"
    assert [one.estimate for one in no_grad.discarded_placebos] == [pytest.approx(3.0 / 2.9)] * (timings - 1)


# Modes that fail.


def breaking(**broken: str) -> Examination:
    """By promise, how it was broken."""
    return replace(EXAMINED, contract=Contract(holds=False, broken=[Broken(*one) for one in broken.items()]), memory=None)  # type: ignore[arg-type]


UNTRACKED = "there is nothing to switch off: no parameter requires grad"
NO_GRAD_IS_LOST, PLACEBO_IS_LOST = (Failure("crashed", "SIGSEGV", arm) for arm in ("no_grad", PLACEBO))


@pytest.mark.parametrize(
    ("workers", "mode", "status", "reason"),
    [
        (StandIn({"no_grad": breaking(history="made", grad_mode="off")}), "no_grad", "broken_contract", "made; off"),
        (StandIn({"tracked": breaking(history="none")}), "tracked", "unsupported", UNTRACKED),
        (StandIn(lost=[NO_GRAD_IS_LOST]), "no_grad", "crashed", "SIGSEGV"),
        (StandIn(lost=[PLACEBO_IS_LOST]), "tracked", "crashed", "SIGSEGV"),
    ],
    ids=["breaks its contract", "tracks nothing", "lost while timing", "lost as the placebo, which is the same code"],
)
def test_a_mode_that_fails_is_told_for_what_it_is_and_the_rest_is_timed(
    workers: StandIn, mode: str, status: str, reason: str
) -> None:
    was_lost = bool(workers.lost)
    results, unmeasured = measured(workers)
    rest = tuple(name for name in MODES if name != mode)
    assert {name: one.status for name, one in unmeasured.items()} == {mode: status}
    assert unmeasured[mode].reason.startswith(reason)
    assert unmeasured[mode].promises == {"made; off": ["history", "grad_mode"], UNTRACKED: ["history"]}.get(reason, [])
    assert workers.timed == ([MODES, rest] if was_lost else [rest])
    assert tuple(results) == rest
    assert (results["inference_mode"].speedup is None) == (mode == "tracked")
    assert (results["inference_mode"].over_no_grad is None) == (mode == "no_grad")


def test_without_tracked_the_others_go_on_without_comparison_and_it_is_told_though_not_asked_for() -> None:
    workers = StandIn({"tracked": Failure("out_of_memory", "needs 2 GiB")})
    results, unmeasured = measured(workers, replace(JOB, modes=("no_grad", "inference_mode")), processes=3)
    assert workers.with_tracked == {"tracked": True, "no_grad": False, "inference_mode": False}
    assert list(unmeasured) == ["tracked"]
    assert {(one.speedup, one.verdict, one.trusted, one.placebo, one.resolution) for one in results.values()} == {
        (None, "unclear", False, None, None)
    }
    assert {reading.speedup for reading in results["no_grad"].processes} == {None}


def test_a_failure_of_no_arm_in_particular_is_everyones() -> None:
    workers = StandIn(lost=[Failure("timed_out", "3 rounds")])
    results, unmeasured = measured(workers)
    assert {mode: one.status for mode, one in unmeasured.items()} == dict.fromkeys(MODES, "timed_out")
    assert (results, workers.timed) == ({}, [MODES])


def test_checking_examines_contracts_and_times_nothing() -> None:
    workers = StandIn({"no_grad": Failure("unsupported", "refused")})
    found = list(check(replace(JOB, allocators=BOTH), workers))
    assert [[one.case.mode for one in group.unmeasured] for group in found] == [["no_grad"], ["no_grad"]]
    assert not any(group.timed for group in found)
    assert (workers.calls_only, workers.timed) == ({True}, [])


# Two allocators.


def test_where_pages_cannot_be_kept_those_cases_are_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.allocator.unavailable", lambda: "no glibc")
    results, unmeasured = measured(StandIn())
    assert (results, {(one.status, one.reason) for one in unmeasured.values()}) == ({}, {("unsupported", "no glibc")})


@pytest.mark.parametrize("found", [{}, faulting(0.4, 1e-5), faulting(19.9, 0.01)], ids=["none", "now and then", "below 1 %"])
def test_a_job_whose_faults_cannot_tell_is_one_figure_for_both_allocators(found: dict[str, Examination]) -> None:
    workers = StandIn(found)
    kept, shipped = groups(workers, replace(JOB, allocators=BOTH))
    assert (shipped.group.allocator, shipped.timed, shipped.unmeasured, workers.served) == (AS_SHIPPED, [], [], [])
    assert {timed.result.also_as_shipped for timed in kept.timed} == {True}
    (alone,) = groups(StandIn())
    assert {timed.result.also_as_shipped for timed in alone.timed} == {False}, "it was not asked whether it faults"


@pytest.mark.parametrize("faults", [20.1, 2000.0])
def test_a_mode_that_faults_has_the_job_timed_as_shipped_too_in_a_process_per_arm(faults: float) -> None:
    workers = StandIn(faulting(faults))
    kept, shipped = groups(workers, replace(JOB, allocators=BOTH), processes=3, budget=0.03)
    assert list(workers.with_tracked) == list(MODES), "examined once for both"
    assert sorted(workers.served) == sorted([*MODES, PLACEBO, KEPT_PAGES] * 3)
    assert {(timed.result.also_as_shipped, timed.result.kept_pages) for timed in kept.timed} == {(False, None)}
    result = shipped.timed[1].result
    assert result.case.allocator == AS_SHIPPED
    assert (estimate(result.kept_pages), estimate(result.speedup)) == pytest.approx((3.0 / 2.5, 1.5))
    assert (result.page_faults, result.washout_calls) == (3.0, 0)
    assert [reading.launch for reading in result.processes] == [0, 1, 2]


def test_an_arm_that_is_lost_as_shipped_is_named_and_leaves_the_figures_of_pages_kept_alone() -> None:
    workers = StandIn(faulting())
    job = replace(JOB, allocators=BOTH, effort=effort(processes=3, budget=0.03))
    running = measure(job, workers)
    kept = next(running)
    workers.lost = [Failure("crashed", "worn out", KEPT_PAGES)]
    shipped = next(running)
    assert len(kept.timed) == 3
    assert {one.case.mode: one.reason for one in shipped.unmeasured} == {"tracked": "worn out"}
    assert [timed.result.speedup for timed in shipped.timed] == [None, None]
