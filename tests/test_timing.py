"""Rounds are paired, warmed up, washed out, long enough and stopped in time: shown on a simulated machine."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from benchmarks.failure import Failure
from benchmarks.intervals import median_ratio
from benchmarks.measure.timing import WASHOUTS, Limits, garbage_collector_off, washout_of
from benchmarks.selfcheck.simulated import Machine

TICK = 2.0**-10
"""About a millisecond. Sums of it are exact, and a block of it holds one call."""

BARE = Limits(rounds=10, seconds=0.0, longest_seconds=math.inf, warm_seconds=0.0, survey_seconds=0.0, washout=0)
"""Ten rounds after four to warm up, and nothing is surveyed."""


def limits(**changes: Any) -> Limits:
    return replace(BARE, **changes)


def arms(machine: Machine, costs: list[float]) -> dict[str, Callable[[], Any]]:
    return {f"arm {number}": machine.step(f"arm {number}", cost) for number, cost in enumerate(costs)}


# Washout. That it makes ratios those of plain loops is what the tests of `selfcheck coverage` show.


@pytest.mark.parametrize(
    ("cost", "washout", "surveyed"),
    [
        (20e-6, 16, True),
        (250e-6, 6, True),
        (800e-6, 2, True),
        (1.6e-3, 1, False),
        (4.9e-3, 1, False),
        (5.1e-3, 0, False),
    ],
)
def test_calls_get_a_millisecond_and_a_half_or_one_call_unsurveyed_and_none_where_they_outlast_carry_over(
    cost: float, washout: int, surveyed: bool
) -> None:
    machine = Machine()
    timings = machine.time(arms(machine, [cost, 1.2 * cost]), limits(washout=None))
    assert timings.washout == washout
    once_unseen, to_warm_up = 1, 4
    assert (len(machine.calls) > 2 * (once_unseen + to_warm_up + 10 * (washout + timings.calls))) == surveyed


@pytest.mark.parametrize(
    "log_ratios",
    [np.random.default_rng(7).normal(scale=0.02, size=(30, len(WASHOUTS), 2)), np.zeros((5, len(WASHOUTS), 0))],
    ids=["noise hides it", "an arm on its own"],
)
def test_without_carry_over_that_shows_one_untimed_call_is_enough(log_ratios: Any) -> None:
    """An arm is on its own where tracked itself cannot be measured and one other mode was asked for."""
    assert washout_of(WASHOUTS, log_ratios) == 1


@settings(max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
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


@pytest.mark.parametrize(("washout", "calls", "first"), [(2, 3, 1.5 * TICK), (0, 1, 1.5 * TICK), (0, 2, None)])
def test_seconds_after_a_switch_are_those_of_the_first_call_after_another_arms(
    washout: int, calls: int, first: float | None
) -> None:
    machine = Machine(fading=0.0)
    steps = {name: machine.step(name, TICK, TICK / 2) for name in ("tracked", "no_grad")}
    timings = machine.time(steps, limits(washout=washout, calls=calls, rounds=40))
    assert set(timings.first_seconds.values()) == ({first} if first else set())


# Rounds.


def test_every_arm_runs_a_block_a_round_washed_out_alike_and_noted_in_an_order_that_varies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, noted = Machine(), list[str]()
    monkeypatch.setattr("benchmarks.measure.timing.note_arm", noted.append)
    steps = arms(machine, [TICK, 3 * TICK, 4 * TICK])
    timings = machine.time(steps, limits(rounds=100, washout=2, calls=3))
    assert (timings.washout, timings.calls) == (2, 3)
    assert timings.seconds == {"arm 0": [3 * TICK] * 100, "arm 1": [9 * TICK] * 100, "arm 2": [12 * TICK] * 100}
    ran = noted[-300:]
    assert machine.calls[-5 * 300 :] == [name for name in ran for _ in range(5)]
    rounds = [ran[start : start + 3] for start in range(0, 300, 3)]
    assert all(sorted(one) == sorted(steps) for one in rounds)
    assert {one[0] for one in rounds} == {one[-1] for one in rounds} == set(steps)


@pytest.mark.parametrize(("block_ticks", "washout", "calls"), [(0.25, 0, 1), (2, 0, 2), (2.5, 0, 3), (2.5, 8, 8)])
def test_a_block_lasts_long_enough_for_the_fastest_arm_and_as_many_calls_as_its_washout(
    block_ticks: float, washout: int, calls: int
) -> None:
    machine = Machine()
    timings = machine.time(arms(machine, [3 * TICK, TICK]), limits(block_seconds=block_ticks * TICK, washout=washout))
    assert (timings.calls, timings.seconds["arm 1"]) == (calls, [calls * TICK] * 10)


@pytest.mark.parametrize("truth", [0.3, 1.25, 4.0])
def test_the_ratio_of_two_arms_survives_drift_and_bursts_that_meet_both(truth: float) -> None:
    """The machine's speed halves and doubles during the run, and one call in a hundred takes three times as long."""
    draw, cost = random.Random(7), 5e-4
    whole = 400 * cost * (1 + 1 / truth)

    def slowness(now: float) -> float:
        return (3.0 if draw.random() < 0.01 else 1.0) * math.pow(1.5, math.sin(4 * math.pi * now / whole))

    machine = Machine(slowness)
    steps = {"a": machine.step("a", cost), "b": machine.step("b", cost / truth)}
    seconds = machine.time(steps, limits(rounds=400, calls=1)).seconds
    assert max(seconds["a"]) > 1.8 * min(seconds["a"])
    assert median_ratio(seconds["a"], seconds["b"]) == pytest.approx(truth, rel=0.01)


EVER_FASTER = [0.8**call for call in range(-20, 0)]


@pytest.mark.parametrize(
    ("cold", "changes", "timed"),
    [
        ([1e6, 4.0, 4.0, 4.0, 3.0, 2.0], {"timeout_seconds": 60.0}, 1.0),
        ([20.0] * 9, {"warm_seconds": 0.15}, 1.0),
        (EVER_FASTER, {"longest_warm_seconds": math.inf}, 1.0),
        (EVER_FASTER, {"longest_warm_seconds": 0.0}, EVER_FASTER[5]),
    ],
    ids=["a model is built for minutes in the first call", "flat, as before a compiler takes over", "patient", "hasty"],
)
def test_what_is_slow_at_the_start_is_not_timed_nor_held_against_the_timeout_but_not_waited_for_for_ever(
    cold: list[float], changes: dict[str, Any], timed: float
) -> None:
    machine = Machine()
    steps = {"arm": machine.step("arm", TICK, cold=cold)}
    assert machine.time(steps, limits(**changes)).seconds["arm"][0] == pytest.approx(TICK * timed)


@pytest.mark.parametrize(
    ("chosen", "rounds"),
    [
        ({"rounds": 30}, 30),
        ({"rounds": 30, "seconds": 200 * TICK}, 50),
        ({"rounds": 30, "longest_seconds": 80 * TICK}, 20),
        ({"rounds": 30, "longest_seconds": 80 * TICK, "fewest_rounds": 25}, 25),
    ],
)
def test_rounds_go_on_for_as_many_and_as_long_as_the_limits_say(chosen: dict[str, Any], rounds: int) -> None:
    machine = Machine()
    timings = machine.time(arms(machine, [TICK, 3 * TICK]), limits(**chosen))
    assert [len(seconds) for seconds in timings.seconds.values()] == [rounds, rounds]
    assert timings.elapsed_seconds == rounds * 4 * TICK


def test_a_timeout_before_the_fewest_rounds_says_how_to_give_more_and_after_them_keeps_what_there_is() -> None:
    """The warm-up counts: 4 of the 30 seconds are its."""
    machine = Machine()
    with pytest.raises(Failure, match="--worker-timeout") as caught:
        machine.time(arms(machine, [1.0]), limits(fewest_rounds=10, timeout_seconds=10.0))
    assert caught.value.status == "timed_out"
    assert machine.now <= 12
    machine = Machine()
    timings = machine.time(arms(machine, [1.0]), limits(rounds=1000, timeout_seconds=30.0))
    assert timings.seconds == {"arm 0": [1.0] * 27}


def test_page_faults_are_per_timed_call_and_one_round_of_many_does_not_show() -> None:
    machine, number = Machine(), iter(range(10**6))
    calm = machine.step("calm", TICK, faults=3)

    def burst() -> None:
        machine.faults += 10**9 if next(number) == 60 else 0
        calm()

    steps = {"calm": burst, "faulting": machine.step("faulting", TICK, faults=7)}
    assert machine.time(steps, limits(washout=2, calls=5)).page_faults == {"calm": 3, "faulting": 7}


# What arms do.


def raises() -> None:
    raise ValueError("boom")


@pytest.mark.parametrize("call", [0, 3, 30])
@pytest.mark.parametrize(
    ("fails", "status"),
    [(raises, "crashed"), (partial(torch.set_grad_enabled, False), "broken_contract")],
    ids=["raises", "leaks"],
)
def test_an_arm_that_raises_or_leaves_gradients_off_is_named_before_the_next_one_runs(
    fails: Callable[[], None], status: str, call: int
) -> None:
    machine, number = Machine(), iter(range(10**6))

    def bad() -> None:
        machine.now += TICK
        if next(number) == call:
            fails()

    def good() -> None:
        assert torch.is_grad_enabled()
        machine.now += TICK

    with torch.enable_grad(), pytest.raises(Failure) as caught:
        machine.time({"good": good, "bad": bad, "also good": good}, limits(rounds=40))
    assert (caught.value.arm, caught.value.status) == ("bad", status)


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


def test_cycles_that_a_model_leaves_are_collected_between_blocks() -> None:
    """With the collector off they would fill the memory."""
    machine = Machine()
    alive: list[weakref.ref[Output]] = []

    def step() -> None:
        machine.now += TICK
        for _ in range(100):
            loop: list[Any] = [Output(machine)]
            loop.append(loop)
        alive.append(weakref.ref(loop[0]))

    with garbage_collector_off():
        machine.time({"arm": step}, limits())
        assert sum(output() is not None for output in alive) < 8
