"""Rounds are paired, warmed up, washed out, long enough and stopped in time: shown on a simulated machine."""

from __future__ import annotations

import gc
import math
import random
import statistics
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from benchmarks.failure import Failure
from benchmarks.intervals import median_ratio
from benchmarks.measure.timing import WASHOUTS, Limits, Timings, garbage_collector_off, washout_of
from benchmarks.selfcheck.simulated import Machine

TICK = 2.0**-10
"""About a millisecond. Sums of it are exact, and a block of it holds one call."""

BARE = Limits(rounds=10, seconds=0.0, longest_seconds=math.inf, warm_seconds=0.0, survey_seconds=0.0, washout=0)
"""Ten rounds after four to warm up, and nothing is surveyed."""

COSTS = st.lists(st.floats(2e-5, 2e-3), min_size=2, max_size=5)
QUICK = settings(max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.generate])


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> Iterator[None]:
    """torch is left out of collections, which would take most of the time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def machine() -> Machine:
    return Machine()


def limits(**changes: Any) -> Limits:
    return replace(BARE, **changes)


def arms(machine: Machine, costs: list[float]) -> dict[str, Callable[[], Any]]:
    return {f"arm {number}": machine.step(f"arm {number}", cost) for number, cost in enumerate(costs)}


def lengths(timings: Timings) -> set[int]:
    return {len(seconds) for seconds in timings.seconds.values()}


def noisy(generator: random.Random, deviation: float, burst_share: float = 0.0) -> Callable[[float], float]:
    """Slowness that scatters by `deviation`, with bursts that slow so large a share of calls threefold."""

    def slowness(_: float) -> float:
        burst = 3.0 if generator.random() < burst_share else 1.0
        return burst * max(0.1, generator.gauss(1.0, deviation))

    return slowness


# Washout.


OLD = Limits(washout=0, calls=1)
"""Arms alternate call by call, each paying for the one before it."""


@pytest.mark.parametrize("burst_share", [0.0, 0.02])
@pytest.mark.parametrize(
    ("cost", "carry_over", "fading"),
    [
        (60e-6, (20e-6, 22e-6), 0.8),
        (300e-6, (100e-6, 100e-6), 0.5),
        (900e-6, (300e-6, 300e-6), 0.15),
    ],
)
def test_after_the_washout_a_ratio_is_that_of_plain_loops_where_alternating_calls_understate_it(
    cost: float, carry_over: tuple[float, float], fading: float, burst_share: float
) -> None:
    truth = 1.25

    def biases(limits: Limits) -> list[float]:
        found = []
        for seed in range(6):
            machine = Machine(noisy(random.Random(seed), 0.02, burst_share), fading)
            steps = {
                "tracked": machine.step("tracked", cost, carry_over[0]),
                "no_grad": machine.step("no_grad", cost / truth, carry_over[1]),
                "placebo": machine.step("placebo", cost, carry_over[0]),
            }
            seconds = machine.time(steps, limits, seed).seconds
            found.append(median_ratio(seconds["tracked"], seconds["no_grad"]) / truth - 1)
        return found

    chosen = biases(Limits(rounds=150, longest_seconds=60))
    assert abs(statistics.fmean(chosen)) < 0.003
    assert max(map(abs, chosen)) < 0.006
    assert statistics.fmean(biases(OLD)) < -0.02


@pytest.mark.parametrize(
    ("cost", "washout"), [(20e-6, 16), (250e-6, 6), (800e-6, 2), (1.6e-3, 1), (4.9e-3, 1), (5.1e-3, 0), (0.3, 0)]
)
def test_a_washout_lasts_a_millisecond_and_a_half_whatever_is_found_and_calls_that_outlast_carry_over_get_none(
    machine: Machine, cost: float, washout: int
) -> None:
    timings = machine.time(arms(machine, [cost, 1.2 * cost]), limits(washout=None))
    assert timings.washout == washout
    unsurveyed = 2 * (1 + 4 + 10 * (washout + timings.calls))
    assert (len(machine.calls) == unsurveyed) == (cost > 1e-3), "once unseen, four times to warm up, then rounds"


@pytest.mark.parametrize("ratios", [2, 0], ids=["in noise", "an arm on its own, as where tracked cannot be measured"])
def test_carry_over_that_cannot_be_seen_asks_for_no_washout_of_its_own(ratios: int) -> None:
    noise = np.random.default_rng(7).normal(scale=0.02, size=(30, len(WASHOUTS), ratios))
    assert washout_of(WASHOUTS, noise) == 1


@QUICK
@given(
    missing=st.floats(0.02, 0.3),
    fading=st.floats(0.0, 0.75),
    sign=st.sampled_from([-1, 1]),
    seed=st.integers(0, 10**6),
)
def test_the_washout_leaves_a_third_of_a_percent_of_the_ratio_that_is_affected_most(
    missing: float, fading: float, sign: int, seed: int
) -> None:
    calls = np.array(WASHOUTS)
    curve = 0.2 + sign * missing * fading**calls
    ratios = np.stack([curve, 0 * curve, curve / 3], axis=-1)
    scatter = np.random.default_rng(seed).normal(scale=1e-3, size=(40, *ratios.shape))
    assert missing * fading ** washout_of(WASHOUTS, ratios + scatter) < 0.0045


def test_every_arm_is_washed_out_alike_before_each_block(machine: Machine) -> None:
    timings = machine.time(arms(machine, [TICK, 3 * TICK]), limits(washout=2, calls=3))
    recorded = machine.calls[-10 * 2 * 5 :]
    blocks = [recorded[start : start + 5] for start in range(0, len(recorded), 5)]
    assert all(len(set(block)) == 1 for block in blocks)
    assert (timings.washout, timings.calls) == (2, 3)
    assert timings.seconds == {"arm 0": [3 * TICK] * 10, "arm 1": [9 * TICK] * 10}


@pytest.mark.parametrize(("washout", "calls", "first"), [(2, 3, 1.5 * TICK), (0, 1, 1.5 * TICK), (0, 2, None)])
def test_seconds_after_a_switch_are_those_of_the_first_call_after_another_arms(
    washout: int, calls: int, first: float | None
) -> None:
    machine = Machine(fading=0.0)
    steps = {name: machine.step(name, TICK, TICK / 2) for name in ("tracked", "no_grad")}
    timings = machine.time(steps, limits(washout=washout, calls=calls, rounds=40))
    assert set(timings.first_seconds.values()) == ({first} if first else set())


# Rounds.


@QUICK
@given(costs=COSTS, seed=st.integers())
def test_every_arm_runs_once_per_round_and_the_order_varies(costs: list[float], seed: int) -> None:
    machine = Machine()
    steps = arms(machine, costs)
    timings = machine.time(steps, limits(rounds=100, calls=1), seed)
    assert lengths(timings) == {100}
    recorded = machine.calls[-100 * len(costs) :]
    rounds = [recorded[start : start + len(costs)] for start in range(0, len(recorded), len(costs))]
    assert all(sorted(one) == sorted(steps) for one in rounds)
    assert {one[0] for one in rounds} == {one[-1] for one in rounds} == set(steps)


def test_the_arm_that_is_noted_is_the_arm_that_runs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    monkeypatch.setattr("benchmarks.measure.timing.note_arm", noted.append)
    machine.time(arms(machine, [TICK, TICK, TICK]), limits(washout=1, calls=2))
    assert machine.calls[-90:] == [name for name in noted[-30:] for _ in range(3)]


@QUICK
@given(costs=COSTS, block_seconds=st.floats(1e-4, 1e-3), washout=st.integers(0, 8))
def test_a_block_lasts_long_enough_for_the_fastest_arm_and_as_many_calls_as_its_washout(
    costs: list[float], block_seconds: float, washout: int
) -> None:
    machine = Machine()
    timings = machine.time(arms(machine, costs), limits(block_seconds=block_seconds, washout=washout))
    assert timings.calls * min(costs) >= block_seconds * (1 - 1e-6)
    assert timings.calls >= washout
    assert timings.calls == max(1, washout) or (timings.calls - 1) * min(costs) < block_seconds * (1 + 1e-6)
    for cost, seconds in zip(costs, timings.seconds.values(), strict=True):
        assert seconds == pytest.approx([timings.calls * cost] * len(seconds))


@QUICK
@given(cost=st.floats(2e-5, 2e-3), truth=st.floats(0.2, 5), seed=st.integers(0, 10**6))
def test_the_ratio_of_two_arms_survives_drift_and_bursts_that_meet_both(cost: float, truth: float, seed: int) -> None:
    """The machine's speed halves and doubles during the run."""
    calls = math.ceil(200e-6 / min(cost, cost / truth))
    whole = 400 * calls * (cost + cost / truth)
    bursts = noisy(random.Random(seed), 0.0, 0.05 / calls)
    machine = Machine(lambda now: bursts(now) * math.pow(1.5, math.sin(4 * math.pi * now / whole)))
    steps = {"a": machine.step("a", cost), "b": machine.step("b", cost / truth)}
    seconds = machine.time(steps, limits(rounds=400), seed).seconds
    assert max(seconds["a"]) > 1.8 * min(seconds["a"])
    assert median_ratio(seconds["a"], seconds["b"]) == pytest.approx(truth, rel=0.01)


FALLING = [0.8**call for call in range(-20, 0)]


@pytest.mark.parametrize(
    ("cold", "chosen"),
    [
        (FALLING, {"longest_warm_seconds": math.inf}),
        ([20.0] * 9, {"warm_seconds": 0.3}),
        ([1e6, 4.0, 4.0, 4.0, 3.0, 2.0], {"timeout_seconds": 60.0}),
    ],
    ids=[
        "gets faster",
        "slow and flat, as before a just-in-time compiler takes over",
        "built in minutes, in which no clock runs",
    ],
)
def test_a_cold_start_is_sat_out(machine: Machine, cold: list[float], chosen: dict[str, Any]) -> None:
    steps = {name: machine.step(name, TICK, cold=cold) for name in ("tracked", "no_grad")}
    assert machine.time(steps, limits(**chosen)).seconds == {"tracked": [TICK] * 10, "no_grad": [TICK] * 10}


def test_warming_up_does_not_go_on_for_ever(machine: Machine) -> None:
    hasty = machine.time({"arm": machine.step("arm", TICK, cold=FALLING)}, limits(longest_warm_seconds=0.0))
    assert hasty.seconds["arm"][0] == pytest.approx(TICK * FALLING[5])


@pytest.mark.parametrize(
    ("chosen", "rounds"),
    [
        ({"rounds": 30}, 30),
        ({"rounds": 30, "seconds": 200 * TICK}, 50),
        ({"rounds": 30, "longest_seconds": 80 * TICK}, 20),
        ({"rounds": 30, "longest_seconds": 80 * TICK, "fewest_rounds": 25}, 25),
    ],
)
def test_rounds_go_on_for_as_many_and_as_long_as_the_limits_say(machine: Machine, chosen: dict[str, Any], rounds: int) -> None:
    timings = machine.time(arms(machine, [TICK, 3 * TICK]), limits(**chosen))
    assert lengths(timings) == {rounds}
    assert timings.elapsed_seconds == rounds * 4 * TICK


def test_a_timeout_before_the_fewest_rounds_is_a_failure_that_says_how_to_give_more(machine: Machine) -> None:
    with pytest.raises(Failure, match="--worker-timeout") as caught:
        machine.time(arms(machine, [1.0]), limits(fewest_rounds=10, timeout_seconds=10.0))
    assert caught.value.status == "timed_out"
    assert machine.now <= 12


def test_a_timeout_after_the_fewest_rounds_keeps_what_there_is(machine: Machine) -> None:
    """The warm-up counts: 4 of the 30 seconds are its."""
    timings = machine.time(arms(machine, [1.0]), limits(rounds=1000, timeout_seconds=30.0))
    assert timings.seconds == {"arm 0": [1.0] * 27}


def test_page_faults_are_per_timed_call_and_one_round_of_many_does_not_show(machine: Machine) -> None:
    number = iter(range(10**6))
    calm = machine.step("calm", TICK, faults=3)

    def burst() -> None:
        machine.faults += 10**9 if next(number) == 60 else 0
        calm()

    steps = {"calm": burst, "faulting": machine.step("faulting", TICK, faults=7)}
    assert machine.time(steps, limits(washout=2, calls=5)).page_faults == {"calm": 3, "faulting": 7}


# What arms do.


@pytest.mark.parametrize("call", [0, 3, 30])
def test_an_arm_that_raises_is_named_whenever_it_does(machine: Machine, call: int) -> None:
    number = iter(range(10**6))

    def fails() -> None:
        machine.now += TICK
        if next(number) == call:
            raise ValueError("boom")

    steps = {"good": machine.step("good", TICK), "bad": fails, "also good": machine.step("also good", TICK)}
    with pytest.raises(Failure, match="boom") as caught:
        machine.time(steps, limits(rounds=40))
    assert (caught.value.arm, caught.value.status) == ("bad", "crashed")


def test_an_arm_that_leaves_gradients_off_is_named_before_the_others_run_untracked(machine: Machine) -> None:
    number = iter(range(10**6))

    def leaks() -> None:
        machine.now += TICK
        if next(number) == 6:
            torch.set_grad_enabled(False)

    with torch.enable_grad(), pytest.raises(Failure) as caught:
        machine.time({"good": machine.step("good", TICK), "leaks": leaks}, limits())
    assert (caught.value.arm, caught.value.status) == ("leaks", "broken_contract")


class Output:
    """Tearing it down takes a call's time again, as a graph's nodes do."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __del__(self) -> None:
        self._machine.now += TICK


def test_an_output_is_dropped_inside_its_call_and_its_end_counts(machine: Machine) -> None:
    previous: list[weakref.ref[Output]] = []

    def step() -> Output:
        assert not previous or previous.pop()() is None
        machine.now += TICK
        output = Output(machine)
        previous.append(weakref.ref(output))
        return output

    assert machine.time({"arm": step}, limits()).seconds == {"arm": [2 * TICK] * 10}


def test_the_garbage_collector_runs_before_and_is_as_it_was_afterwards() -> None:
    loop: list[Any] = [Output(Machine())]
    loop.append(loop)
    alive = weakref.ref(loop[0])
    del loop
    with garbage_collector_off():
        assert alive() is None
        with garbage_collector_off():
            pass
        assert not gc.isenabled(), "as before"
    assert gc.isenabled()


def test_cycles_that_a_model_leaves_are_collected_between_blocks(machine: Machine) -> None:
    """With the collector off they would fill the memory."""
    alive: list[weakref.ref[Output]] = []

    def step() -> None:
        machine.now += TICK
        for _ in range(100):
            loop: list[Any] = [Output(machine)]
            loop.append(loop)
        alive.append(weakref.ref(loop[0]))

    with garbage_collector_off():
        machine.time({"arm": step}, limits(rounds=50))
        assert sum(output() is not None for output in alive) < 20
