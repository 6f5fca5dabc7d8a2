"""The self-checks find what is there: on a simulated machine whose truth is known, and in small runs of the real thing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.measure.timing import Limits
from benchmarks.options import RunOptions
from benchmarks.plan import plan
from benchmarks.record import Interval
from benchmarks.selfcheck import accuracy, coverage, findings, trueness
from benchmarks.selfcheck.__main__ import main
from benchmarks.selfcheck.coverage import MACHINES, TOO_MUCH, chosen, replaced, study
from benchmarks.selfcheck.findings import Findings, Goal
from benchmarks.selfcheck.planted import lengthened, twice
from benchmarks.selfcheck.simulated import TRUTHS, Machine


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(findings, "FOLDER", tmp_path / "selfcheck")
    return tmp_path / "selfcheck"


class SteppingClock:
    """Each look at it takes `look_seconds`."""

    def __init__(self, look_seconds: float) -> None:
        self.now, self.look_seconds = 0.0, look_seconds

    def __call__(self) -> float:
        self.now += self.look_seconds
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def step() -> None:
            self.now += seconds

        return step


@pytest.mark.parametrize("name", [name for name in MACHINES if name != TOO_MUCH])
def test_the_procedure_is_unbiased_and_its_intervals_hold_on_every_machine(name: str) -> None:
    row = study(MACHINES[name], chosen, 60)
    assert row.coverage >= 0.96
    assert abs(row.bias) <= 0.008
    assert row.half_width < 0.03


@pytest.mark.parametrize("name", [name for name in MACHINES if name != "without carry-over"])
def test_without_washout_and_from_one_process_speedups_are_understated_and_intervals_miss(name: str) -> None:
    row = study(MACHINES[name], replaced, 10)
    assert row.coverage < 0.5
    assert row.bias < -0.05


def test_one_process_misses_what_processes_differ_by_even_where_nothing_is_carried_over() -> None:
    row = study(Machine(carry=0.0), replaced, 20)
    assert row.coverage < 0.7
    assert abs(row.bias) < 0.01


def test_a_call_on_the_simulated_machine_pays_for_the_switch_until_that_has_faded() -> None:
    calm = Machine(carry=0.5, fading=0.5, noise=0.0, processes=0.0)
    limits = Limits(rounds=3, seconds=0.0, warm_seconds=0.0, calls=1)
    timed = [calm.time(("tracked", "no_grad"), replace(limits, washout=washout)) for washout in (0, 1, 2, 30)]
    assert [one.seconds["tracked"][0] / 300e-6 for one in timed] == pytest.approx([1.5, 1.25, 1.125, 1.0])
    assert timed[1].first_seconds["no_grad"] == pytest.approx(250e-6 + 0.5 * 300e-6)
    assert calm.time(("tracked", "no_grad"), limits).washout == 4


def test_what_rounds_explain_is_no_difference_between_processes() -> None:
    machine = Machine(carry=0.0, noise=0.05, processes=0.01)
    limits = Limits(rounds=30, seconds=0.0, warm_seconds=0.0, washout=0, calls=1)
    seconds = [machine.time(("tracked", "no_grad"), limits, process).seconds for process in range(300)]
    read = [trueness.Process.of(f"{number % 150}", one["tracked"], one["no_grad"]) for number, one in enumerate(seconds)]
    rounds, processes, launches = trueness.deviations(read)
    assert rounds == pytest.approx(0.05 * math.sqrt(math.pi / 30), rel=0.1)
    assert processes < rounds
    assert launches < 0.01


def test_deviations_of_a_single_launch_or_of_launches_of_one_process_cannot_be_told() -> None:
    for launch in "01":
        read = [trueness.Process("0", 1.1, 0.0), trueness.Process(launch, 1.2, 0.0)]
        assert all(map(math.isnan, trueness.deviations(read)[1:]))


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("seconds", [100e-6, 10e-3])
def test_a_planted_arm_lasts_longer_than_its_base_by_the_share(share: float, seconds: float) -> None:
    lasted = []
    for planted in (0.0, share):
        clock = SteppingClock(look_seconds=1e-9)
        lengthened(clock.work(seconds), planted, clock)()
        lasted.append(clock.now)
    assert lasted[1] / lasted[0] == pytest.approx(1 + share, rel=5e-4)


def test_twice_is_two_calls() -> None:
    clock = SteppingClock(0.0)
    twice(clock.work(1.0))()
    assert clock.now == 2.0


@pytest.mark.parametrize(
    ("goal", "reached", "text"),
    [
        (Goal("bias", 0.006, 0.007), True, "ok      bias: 0.60% (at most 0.70%)"),
        (Goal("bias", math.nan, 0.007), False, "MISSED  bias: nan% (at most 0.70%)"),
        (Goal("same", 0.5, 0.6, at_least=True, form=".0%"), False, "MISSED  same: 50% (at least 60%)"),
    ],
)
def test_a_goal_says_what_was_found_beside_what_was_to_be_reached(goal: Goal, reached: bool, text: str) -> None:
    assert (goal.reached, str(goal)) == (reached, text)


@pytest.mark.parametrize(("found", "status"), [(0.5, 0), (1.5, 1)])
def test_the_exit_status_tells_whether_a_goal_was_missed(
    found: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    shown = Findings([findings.table("t", ["model"], [["[red]x"]])], ["a note"], [Goal("g", found, 1.0)], {"read": [found]})
    monkeypatch.setattr(coverage, "coverage", lambda draws: shown)
    assert main(["coverage"]) == status
    said = capsys.readouterr().out
    assert "[red]x" in said
    assert said.index("- a note") < said.index("ok" if status == 0 else "MISSED")
    saved = json.loads((folder / "coverage.json").read_text())
    assert saved["read"] == [found]
    assert saved["goals"] == [str(shown.goals[0])]
    machine, _, kept = (folder / "coverage.txt").read_text().partition("\n\n")
    assert machine.startswith("selfcheck coverage: ")
    assert said.startswith(kept)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["trueness", "--models", "nosuch"], "unknown nosuch; choose from mlp"), (["trueness", "--model", "nosuch.py:f"], "nosuch.py:f"),
     (["nosuch"], "invalid choice")],
)  # fmt: skip
def test_what_cannot_be_had_is_a_usage_error(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def on_simulated(monkeypatch: pytest.MonkeyPatch, washout: int | None) -> dict[str, Goal]:
    """The goals of trueness by their first words, where reference and suite read the simulated machine; the reference reads its truth."""
    machine = Machine()
    long_loops = [{"tracked": [1.0]} | {mode: [1 / truth] for mode, truth in TRUTHS.items()}] * 4
    monkeypatch.setattr(trueness, "from_launch", lambda *args, **kwargs: long_loops)
    monkeypatch.setattr(trueness, "fresh_launches", lambda *args: nullcontext(machine))
    monkeypatch.setattr(trueness, "_read_planted", lambda effort: {"+2 %": 1.021, "+5 %": 1.056, "x 2": 1.86})
    if washout is not None:
        old = [machine.time(("tracked", *TRUTHS), Limits(washout=washout), process, process % 4) for process in range(8)]
        monkeypatch.setattr(trueness, "time_group", lambda *args: old)
    jobs = plan(RunOptions(models=("lstm",), sizes=("tiny",), device=("cpu",), allocator=("pages_kept",)))
    return {goal.what.split(",")[0]: goal for goal in trueness.trueness(jobs, trueness.Extent(repeats=2)).goals}


def test_trueness_is_reached_by_the_procedure_and_missed_without_washout(monkeypatch: pytest.MonkeyPatch) -> None:
    held = "99 % intervals that hold the reference"
    goals = on_simulated(monkeypatch, washout=None)
    assert goals[held].found >= 5 / 6
    assert goals["distance from the reference"].reached
    assert [goals[f"distance from a planted {truth}"].reached for truth in ("1.02", "1.05", "2")] == [True, False, False]
    goals = on_simulated(monkeypatch, washout=0)
    assert not goals[held].reached
    assert goals["distance from the reference"].found > 0.05


def ratios(identical: float, cost: float = 1.25, one: float = 1.01) -> accuracy.Ratios:
    return dict(zip(accuracy.RATIOS, (identical, cost, one, 1.02, 1.05), strict=True))


def judged(monkeypatch: pytest.MonkeyPatch, repeats: Iterator[dict[str, accuracy.Ratios]], words: list[str]) -> list[Goal]:
    nulls = [accuracy.Null(Interval(1.0, 0.99, 1.01), word) for word in words]
    monkeypatch.setattr(accuracy, "_repeat", lambda *args: next(repeats))
    monkeypatch.setattr(accuracy, "_compare_identical", lambda *args: nulls)
    return list(accuracy.accuracy(replace(accuracy.QUICK, repeats=2)).goals)


def test_accuracy_compares_errors_beside_the_neighbour_and_counts_signs_and_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {method: ratios(1.3) for method in (accuracy.SUITE, accuracy.MEDIAN, accuracy.MIN, accuracy.TIMER)}
    peers_beside = {accuracy.MEDIAN: ratios(1.1), accuracy.MIN: ratios(0.99), accuracy.TIMER: ratios(1.03)}
    beside = {accuracy.SUITE: ratios(1.002, cost=1.2, one=0.99)} | peers_beside
    goals = judged(monkeypatch, iter([alone, beside] * 2), ["same", "same", "unclear", "faster"])
    assert [round(goal.found, 3) for goal in goals] == [50.0, 15.0, 5.0, 0.04, 1.0, 0.5, 1, 0.5]
    assert [goal.reached for goal in goals] == [True, False, True, False, True, False, False, False]


def test_the_neighbour_is_there_inside_and_gone_afterwards_even_after_an_error() -> None:
    def interrupted() -> None:
        with accuracy.neighbour():
            assert len(set(psutil.Process().children()) - before) == 1
            raise KeyboardInterrupt

    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert set(psutil.Process().children()) <= before


def quick(check: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    """What a quick run says and saves. Whether it reaches its goals is up to the machine."""
    assert main([check, "--quick"]) in (0, 1)
    return capsys.readouterr().out, json.loads((folder / f"{check}-quick.json").read_text())


def test_trueness_reads_reference_suite_and_planted_ratios(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, saved = quick("trueness", folder, capsys)
    assert [case["mode"] for case in saved["cases"]] == ["no_grad", "inference_mode", "detach"]
    assert all(len(case["reference"]) == len(case["processes"]) == 2 and len(case["suite"]) == 1 for case in saved["cases"])
    assert list(saved["planted"]) == ["+2 %", "+5 %", "x 2"]
    assert all(read > 0 for several in saved["planted"].values() for read in several)
    assert "mlp tiny no_grad" in said
    assert len(saved["goals"]) == said.count("(at most") + said.count("(at least") == 8


def test_accuracy_reads_every_ratio_by_every_method_in_both_conditions(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, saved = quick("accuracy", folder, capsys)
    methods = [accuracy.SUITE, accuracy.MEDIAN, accuracy.MIN, accuracy.TIMER]
    read = [(one["condition"], one["method"]) for one in saved["ratios"]]
    assert read == [(condition, method) for condition in (accuracy.ALONE, accuracy.BESIDE) for method in methods]
    assert all(list(one["ratios"][0]) == list(accuracy.RATIOS) for one in saved["ratios"])
    assert len(saved["nulls"]) == accuracy.QUICK.twins
    assert f"{accuracy.SUITE}, {accuracy.BESIDE}" in said
