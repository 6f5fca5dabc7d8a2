"""Rounds are paired, warmed up, long enough and stopped in time: shown on a machine whose clock only simulated work moves."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from benchmarks.device import Cpu
from benchmarks.failure import Failure
from benchmarks.measure.timing import (
    MIN_BLOCK_SECONDS,
    Limits,
    Stopwatch,
    Timings,
    garbage_collector_off,
    time_lanes,
)
from benchmarks.modes import Step
from benchmarks.statistics import MIN_ROUNDS, paired_ratio

TICK = 2.0**-10
"""About a millisecond. Sums of it are exact, and a block of it holds one call."""

COSTS = st.lists(st.floats(2e-6, 2e-3), min_size=2, max_size=5)
QUICK = settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.generate])


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> Iterator[None]:
    """torch is left out of the collections that every run begins with, which would take most of the time."""
    gc.freeze()
    yield
    gc.unfreeze()


@dataclass
class Announced:
    """What an Announce was told."""

    lanes: list[str] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)

    def lane(self, name: str) -> None:
        self.lanes.append(name)

    def rounds(self, done: int, elapsed_seconds: float) -> None:
        self.looks.append(done)


@dataclass
class Machine:
    """Time passes while a lane works, `slowness(now)` times as fast as the lane's cost says."""

    slowness: Callable[[float], float] = lambda _: 1.0
    now: float = 0.0
    faults: int = 0
    calls: list[str] = field(default_factory=list)
    announced: Announced = field(default_factory=Announced)

    def lane(self, name: str, cost: float, cold: Sequence[float] = (), faults: int = 0) -> Step:
        """A call takes `cost` seconds; the first ones take so many times longer as `cold` says."""
        factors = iter(cold)

        def step() -> None:
            self.calls.append(name)
            self.now += cost * next(factors, 1.0) * self.slowness(self.now)
            self.faults += faults

        return step

    def lanes(self, costs: Sequence[float]) -> dict[str, Step]:
        return {f"lane {number}": self.lane(f"lane {number}", cost) for number, cost in enumerate(costs)}

    def time(
        self,
        lanes: Mapping[str, Step],
        budget: float,
        *,
        timeout: float = math.inf,
        settled: Callable[[Mapping[str, list[float]]], bool] = lambda _: False,
        seed: int = 0,
    ) -> Timings:
        stopwatch = Stopwatch(Cpu(), lambda: self.now, lambda: self.faults)
        return time_lanes(lanes, stopwatch, Limits(budget, timeout, settled), random.Random(seed), self.announced)


def rounds_of(machine: Machine, timings: Timings) -> list[list[str]]:
    """The lanes in the order in which each recorded round ran them; checks that a lane's calls of a round are not parted."""
    width = len(timings.seconds)
    recorded = machine.calls[-width * len(timings.seconds["lane 0"]) * timings.calls :]
    blocks = [recorded[i : i + timings.calls] for i in range(0, len(recorded), timings.calls)]
    assert all(block == block[:1] * timings.calls for block in blocks)
    order = [block[0] for block in blocks]
    return [order[i : i + width] for i in range(0, len(order), width)]


@QUICK
@given(costs=COSTS, seed=st.integers())
def test_every_lane_runs_once_per_round_and_the_order_varies(costs: list[float], seed: int) -> None:
    machine = Machine()
    lanes = machine.lanes(costs)
    timings = machine.time(lanes, budget=200 * sum(costs) * math.ceil(MIN_BLOCK_SECONDS / min(costs)), seed=seed)
    rounds = rounds_of(machine, timings)
    assert len(rounds) >= 100
    assert all(sorted(one) == sorted(lanes) for one in rounds)
    assert {one[0] for one in rounds} == {one[-1] for one in rounds} == set(lanes)


@QUICK
@given(costs=COSTS)
def test_the_lane_announced_is_the_lane_that_runs(costs: list[float]) -> None:
    machine = Machine()
    timings = machine.time(machine.lanes(costs), budget=0)
    blocks = len(costs) * len(timings.seconds["lane 0"])
    warmup, recorded = machine.announced.lanes[:-blocks], machine.announced.lanes[-blocks:]
    assert machine.calls == warmup + [name for name in recorded for _ in range(timings.calls)]


@QUICK
@given(costs=COSTS)
def test_a_block_holds_just_enough_calls_for_the_fastest_lane(costs: list[float]) -> None:
    machine = Machine()
    timings = machine.time(machine.lanes(costs), budget=0)
    assert timings.calls * min(costs) >= MIN_BLOCK_SECONDS * (1 - 1e-6)
    assert timings.calls == 1 or (timings.calls - 1) * min(costs) < MIN_BLOCK_SECONDS * (1 + 1e-6)
    for cost, seconds in zip(costs, timings.seconds.values(), strict=True):
        assert seconds == pytest.approx([timings.calls * cost] * len(seconds))


@QUICK
@given(a=st.floats(2e-6, 2e-3), ratio=st.floats(0.2, 5), seed=st.integers(0, 10**6))
def test_the_ratio_of_two_lanes_survives_drift_and_spikes_that_meet_both(a: float, ratio: float, seed: int) -> None:
    """The machine's speed halves and doubles during the run, and 5 % of the blocks are hit by a spike of up to 30 calls."""
    b = a / ratio
    calls = math.ceil(MIN_BLOCK_SECONDS / min(a, b))
    budget = 400 * (a + b) * calls
    spikes = random.Random(seed + 1)

    def slowness(now: float) -> float:
        spike = spikes.uniform(2, 30) if now > budget / 50 and spikes.random() < 0.05 / calls else 1.0
        return spike * math.pow(1.5, math.sin(4 * math.pi * now / budget))

    machine = Machine(slowness)
    timings = machine.time({"a": machine.lane("a", a), "b": machine.lane("b", b)}, budget, seed=seed)
    assert max(timings.seconds["a"]) > 1.8 * min(timings.seconds["a"])
    assert paired_ratio(timings.seconds["a"], timings.seconds["b"]).estimate == pytest.approx(ratio, rel=0.01)


@QUICK
@given(costs=COSTS, cold=st.lists(st.lists(st.floats(10, 100), max_size=3), min_size=5, max_size=5))
def test_cold_starts_do_not_reach_the_recorded_rounds(costs: list[float], cold: list[list[float]]) -> None:
    machine = Machine()
    names = [f"lane {number}" for number in range(len(costs))]
    lanes = {name: machine.lane(name, cost, slow) for name, cost, slow in zip(names, costs, cold, strict=False)}
    timings = machine.time(lanes, budget=1e3 * sum(costs), settled=lambda _: True)
    assert timings.calls * min(costs) >= MIN_BLOCK_SECONDS * (1 - 1e-6)
    for name, cost in zip(names, costs, strict=True):
        assert timings.seconds[name] == pytest.approx([timings.calls * cost] * len(timings.seconds[name]))


def test_a_lane_that_keeps_getting_faster_is_warmed_up_for_no_more_than_a_quarter_of_the_budget() -> None:
    cost, cold = TICK / 64, [0.9**call for call in range(-40, 0)]
    machine = Machine()
    patient = machine.time({"lane": machine.lane("lane", cost, cold)}, budget=8 * sum(cold) * cost)
    assert patient.warmup_calls == {"lane": 44}
    assert patient.calls == math.ceil(MIN_BLOCK_SECONDS / cost)
    machine = Machine()
    hasty = machine.time({"lane": machine.lane("lane", cost, cold)}, budget=4 * sum(cold[:20]) * cost)
    assert hasty.warmup_calls == {"lane": 21}


def test_each_lane_says_how_many_calls_it_took_to_become_stationary() -> None:
    machine = Machine()
    lanes = {"ready": machine.lane("ready", TICK), "slow": machine.lane("slow", TICK, cold=[50, 20, 10, 5, 3, 2])}
    assert machine.time(lanes, budget=1000 * TICK).warmup_calls == {"ready": 4, "slow": 10}


def test_a_start_that_is_slow_and_flat_is_sat_out_for_a_twentieth_of_the_budget() -> None:
    """A just-in-time compiler that runs a handful of calls before it takes over would pass for stationary after four."""
    machine = Machine()
    timings = machine.time({"lane": machine.lane("lane", TICK, cold=[20.0] * 9)}, budget=4000 * TICK)
    assert timings.seconds["lane"] == [TICK] * 4000
    assert timings.warmup_calls["lane"] > 10


def test_rounds_stop_when_the_budget_is_spent() -> None:
    machine = Machine()
    timings = machine.time(machine.lanes([TICK, 3 * TICK]), budget=400 * TICK)
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == {"lane 0": 100, "lane 1": 100}
    assert timings.elapsed_seconds == 400 * TICK


@pytest.mark.parametrize("settled", [True, False])
def test_rounds_do_not_stop_before_the_fewest_that_an_interval_needs(settled: bool) -> None:
    machine = Machine()
    timings = machine.time(machine.lanes([TICK, TICK]), budget=TICK, settled=lambda _: settled)
    assert len(timings.seconds["lane 0"]) == MIN_ROUNDS


def test_calm_first_rounds_do_not_stop_before_a_quarter_of_the_budget_has_shown_how_the_machine_drifts() -> None:
    machine = Machine()
    timings = machine.time(machine.lanes([TICK, TICK]), budget=2000 * TICK, settled=lambda _: True)
    assert 500 * TICK <= timings.elapsed_seconds <= 1.3 * 500 * TICK


def test_settled_sees_all_rounds_so_far_and_stops_at_the_look_at_which_it_says_so() -> None:
    machine = Machine()
    asked: list[dict[str, int]] = []

    def settled(seconds: Mapping[str, list[float]]) -> bool:
        asked.append({name: len(series) for name, series in seconds.items()})
        return len(asked) == 3

    timings = machine.time(machine.lanes([TICK, TICK]), budget=1000 * TICK, settled=settled)
    rounds = len(timings.seconds["lane 0"])
    assert asked == [{"lane 0": n, "lane 1": n} for n in machine.announced.looks[-3:]]
    assert rounds == machine.announced.looks[-1] < 500


def test_looks_come_at_growing_gaps() -> None:
    machine = Machine()
    machine.time(machine.lanes([TICK]), budget=4000 * TICK)
    looks = machine.announced.looks
    gaps = [after - before for before, after in pairwise(looks)]
    assert looks[0] == MIN_ROUNDS
    assert gaps == sorted(gaps)
    assert gaps[-1] > 100 * gaps[0]
    assert all(after <= 1.4 * before for before, after in pairwise(looks))


@QUICK
@given(faults=st.lists(st.integers(0, 10_000), min_size=2, max_size=4), cost=st.floats(2e-6, 2e-3))
def test_page_faults_are_per_call_and_one_round_of_many_does_not_show(faults: list[int], cost: float) -> None:
    machine = Machine()
    lanes = {f"lane {number}": machine.lane(f"lane {number}", cost, faults=many) for number, many in enumerate(faults)}
    calm, calls = lanes["lane 0"], iter(range(1_000_000))

    def burst() -> None:
        machine.faults += 10**9 if next(calls) == 400 else 0
        calm()

    timings = machine.time({**lanes, "lane 0": burst}, budget=0.5)
    assert timings.page_faults == {f"lane {number}": many for number, many in enumerate(faults)}


def test_a_machine_without_events_gives_no_device_seconds() -> None:
    machine = Machine()
    assert machine.time(machine.lanes([TICK]), budget=0).device_seconds == {}


@pytest.mark.parametrize("call", [0, 3, 4, 30], ids=lambda call: f"call {call}")
def test_a_lane_that_raises_is_named_whenever_it_does(call: int) -> None:
    machine, calls = Machine(), iter(range(1_000_000))

    def fails() -> None:
        machine.now += TICK
        if next(calls) == call:
            raise ValueError("boom")

    with pytest.raises(Failure) as caught:
        machine.time({"good": machine.lane("good", TICK), "bad": fails, "also good": machine.lane("also good", TICK)}, budget=1)
    assert (caught.value.lane, caught.value.status) == ("bad", "crashed")
    assert "boom" in caught.value.reason


def test_a_lane_that_leaves_gradients_off_is_named_before_the_others_run_untracked() -> None:
    machine, calls = Machine(), iter(range(1_000_000))

    def leaks() -> None:
        machine.now += TICK
        if next(calls) == 6:
            torch.set_grad_enabled(False)

    with torch.enable_grad(), pytest.raises(Failure) as caught:
        machine.time({"good": machine.lane("good", TICK), "leaks": leaks}, budget=1)
    assert (caught.value.lane, caught.value.status) == ("leaks", "broken_contract")


def test_a_timeout_before_the_fewest_rounds_is_a_failure_that_says_how_to_give_more() -> None:
    machine = Machine()
    with pytest.raises(Failure) as caught:
        machine.time(machine.lanes([1.0]), budget=1e6, timeout=MIN_ROUNDS)
    assert caught.value.status == "timed_out"
    assert "--timeout" in caught.value.reason
    assert machine.now <= MIN_ROUNDS + 1


def test_a_timeout_after_the_fewest_rounds_keeps_what_there_is() -> None:
    """The warm-up counts: 4 of the 30 seconds are its."""
    machine = Machine()
    timings = machine.time(machine.lanes([1.0]), budget=1e6, timeout=30)
    assert timings.seconds == {"lane 0": [1.0] * 27}


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_off_during_rounds_and_as_before_afterwards(enabled: bool, raises: bool) -> None:
    machine, seen = Machine(), []

    def step() -> None:
        machine.now += TICK
        seen.append(gc.isenabled())
        if raises and len(seen) == 30:
            raise ValueError

    if not enabled:
        gc.disable()
    try:
        if raises:
            with pytest.raises(Failure):
                machine.time({"lane": step}, budget=1)
        else:
            machine.time({"lane": step}, budget=40 * TICK)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    assert len(seen) >= 30
    assert not any(seen)


def test_garbage_is_collected_before_the_rounds_begin() -> None:
    loop: list[Any] = [Output(Machine())]
    loop.append(loop)
    alive = weakref.ref(loop[0])
    del loop
    with garbage_collector_off():
        assert alive() is None


class Output:
    """Tearing it down takes a call's time again, as a graph's nodes do."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __del__(self) -> None:
        self._machine.now += TICK


def test_an_output_is_dropped_inside_its_call_and_its_end_counts() -> None:
    machine = Machine()
    previous: list[weakref.ref[Output]] = []

    def step() -> Output:
        assert not previous or previous.pop()() is None
        machine.now += TICK
        output = Output(machine)
        previous.append(weakref.ref(output))
        return output

    timings = machine.time({"lane": step}, budget=100 * TICK)
    assert timings.seconds == {"lane": [2 * TICK] * 50}


def test_blocks_and_the_fewest_rounds_follow_the_limits() -> None:
    machine = Machine()
    stopwatch = Stopwatch(Cpu(), lambda: machine.now, lambda: 0)
    limits = Limits(0.0, math.inf, lambda _: False, min_rounds=3, block_seconds=8 * TICK)
    timings = time_lanes(machine.lanes([TICK]), stopwatch, limits, random.Random(0), machine.announced)
    assert timings.seconds == {"lane 0": [8 * TICK] * 3}
    limits = Limits(0.0, math.inf, lambda _: False, calls=2)
    timings = time_lanes(machine.lanes([TICK]), stopwatch, limits, random.Random(0), machine.announced)
    assert timings.seconds == {"lane 0": [2 * TICK] * MIN_ROUNDS}


def test_without_a_criterion_the_budget_is_used_up_however_calm_the_rounds_are() -> None:
    machine = Machine()
    stopwatch = Stopwatch(Cpu(), lambda: machine.now, lambda: 0)
    timings = time_lanes(
        machine.lanes([TICK]), stopwatch, Limits(400 * TICK, math.inf, None), random.Random(0), machine.announced
    )
    assert timings.seconds == {"lane 0": [TICK] * 400}
