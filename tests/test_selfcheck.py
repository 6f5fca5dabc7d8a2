"""The self-checks find what is there: on a simulated machine whose truth is known, and in small runs of the real thing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.intervals import combined_ratio
from benchmarks.measure.timing import Limits, Timings
from benchmarks.plan import Job
from benchmarks.record import Interval
from benchmarks.selfcheck import accuracy, faults, findings, planted, trueness
from benchmarks.selfcheck.__main__ import CHECKS, main
from benchmarks.selfcheck.coverage import MACHINES, TOO_MUCH, study
from benchmarks.selfcheck.findings import Findings, Goal, progress
from benchmarks.selfcheck.planted import BASE, TWICE, lengthened, repeated
from benchmarks.selfcheck.simulated import SECONDS, TRUTHS, Machine, Processes
from benchmarks.workers import InProcess


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(findings, "FOLDER", tmp_path / "selfcheck")
    return tmp_path / "selfcheck"


def without_washout_from_one_process(machine: Processes) -> dict[str, Interval]:
    """The procedure of version 0.1, for as many seconds as eight processes have at least."""
    timings = machine.time(tuple(SECONDS), Limits(seconds=2.4, longest_seconds=2.4, washout=0))
    return {mode: combined_ratio([(timings.seconds["tracked"], timings.seconds[mode])]) for mode in TRUTHS}


@pytest.mark.parametrize("name", [name for name in MACHINES if name != TOO_MUCH])
def test_the_procedure_is_unbiased_and_its_intervals_hold_on_every_machine(name: str) -> None:
    row = study(MACHINES[name], 60)
    assert row.coverage >= 0.96
    assert abs(row.bias) <= 0.008
    assert row.half_width < 0.03


@pytest.mark.parametrize("name", [name for name in MACHINES if name != "without carry-over"])
def test_without_washout_and_from_one_process_speedups_are_understated_and_intervals_miss(name: str) -> None:
    row = study(MACHINES[name], 10, without_washout_from_one_process)
    assert row.coverage < 0.5
    assert row.bias < -0.05


def test_one_process_misses_what_processes_differ_by_even_where_nothing_is_carried_over() -> None:
    row = study(Processes(carry=0.0), 20, without_washout_from_one_process)
    assert row.coverage < 0.7
    assert abs(row.bias) < 0.01


@pytest.mark.parametrize("seconds", [100e-6, 10e-3])
def test_a_planted_arm_lasts_longer_than_its_base_by_the_share_or_as_many_calls(seconds: float) -> None:
    machine = Machine()
    step = machine.step("step", seconds)

    def look() -> float:
        machine.now += 1e-8
        return machine.now

    def lasts(arm: Callable[[], object]) -> float:
        begin = machine.now
        arm()
        return machine.now - begin

    for share in (0.01, 0.02, 0.05):
        ratio = lasts(lengthened(step, share, look)) / lasts(lengthened(step, 0.0, look))
        assert ratio == pytest.approx(1 + share, rel=5e-4)
    assert lasts(repeated(step, 2)) == pytest.approx(2 * seconds)


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
    shown = Findings([Goal("g", found, 1.0)], findings.table("t", ["model"], [["[red]x"]]), ["a note"], {"read": [found]})
    monkeypatch.setitem(CHECKS, "coverage", (lambda: shown, ""))
    assert main(["coverage"]) == status
    said = capsys.readouterr().out
    assert said.index("[red]x") < said.index("- a note") < said.index("ok" if status == 0 else "MISSED")
    saved = json.loads((folder / "coverage.json").read_text())
    assert saved["read"] == [found]
    assert saved["goals"] == list(map(str, shown.goals))
    machine, _, kept = (folder / "coverage.txt").read_text().partition("\n\n")
    assert machine.startswith("selfcheck coverage: ")
    assert said.startswith(kept)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["trueness", "--models", "nosuch"], "unknown nosuch; choose from mlp"), (["trueness", "--model", "nosuch.py:f"], "nosuch.py:f"),
     (["nosuch"], "invalid choice")],
)  # fmt: skip
def test_what_cannot_be_had_is_a_usage_error(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trueness, "Launches", lambda _: InProcess())
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


class OnSimulated(Processes):
    """Launches on a simulated machine, whose reference reads the truth."""

    def run(self, task: Any, *args: Any, **how: Any) -> Any:
        if task is trueness.loops:
            return {"tracked": [1.0]} | {mode: [1 / truth] for mode, truth in TRUTHS.items()}
        return super().run(task, *args, **how)

    def wait(self, launches: int) -> None: ...

    def close(self) -> None: ...


def on_simulated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Goal]:
    """The goals of trueness by their first words, where reference and suite read the simulated machine. What it planted is wrong, but for 1.02."""
    for arm, ratio in {TWICE: 1.86, BASE: 1.0, "+2 %": 1.02, "+5 %": 1.065}.items():
        monkeypatch.setitem(SECONDS, arm, ratio * SECONDS["tracked"])
    monkeypatch.setattr(trueness, "Launches", lambda *args: OnSimulated())
    return {goal.what.split(",")[0]: goal for goal in trueness.trueness(models=("lstm",), sizes=("tiny",), repeats=2).goals}


def test_trueness_is_reached_by_the_procedure_and_missed_without_washout(monkeypatch: pytest.MonkeyPatch) -> None:
    held = "99 % intervals that hold the reference"
    goals = on_simulated(monkeypatch)
    assert goals[held].found >= 5 / 6
    assert goals["distance from the reference"].reached
    assert [goals[f"distance from a planted {truth}"].reached for truth in ("1.02", "1.05", "2")] == [True, False, False]

    def old(job: Job, allocator: str, modes: Sequence[str], workers: Processes) -> list[Timings]:
        return [workers.time(modes, Limits(washout=0), process, process % 4) for process in range(8)]

    monkeypatch.setattr(planted, "time_group", old)
    goals = on_simulated(monkeypatch)
    assert not goals[held].reached
    assert goals["distance from the reference"].found > 0.05


def ratios(identical: float, cost: float = 1.25, one: float = 1.01) -> dict[str, float]:
    return dict(zip(accuracy.RATIOS, (identical, cost, one, 1.02, 1.05), strict=True))


def judged(monkeypatch: pytest.MonkeyPatch, repeats: Iterator[dict[str, dict[str, float]]], words: list[str]) -> list[Goal]:
    """Beside an idle worker, identical code is read 3 % apart, alone 2 %."""
    nulls = iter([[(Interval(apart, 0.9, 1.1), word) for word in words] for apart in (1.02, 1.03)])
    by_method = ([{"method": method, **own} for method, own in repeat.items()] for repeat in repeats)
    monkeypatch.setattr(accuracy, "_repeat", lambda *args: next(by_method))
    monkeypatch.setattr(accuracy, "_compare_identical", lambda *args: next(nulls))
    monkeypatch.setattr(accuracy, "idle_worker", nullcontext)
    monkeypatch.setattr(accuracy, "NULL_GROUPS", 1)
    return list(accuracy.accuracy(repeats=2, null_turns=1).goals)


def test_accuracy_compares_errors_beside_what_disturbs_and_counts_signs_and_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {method: ratios(1.3) for method in (accuracy.SUITE, accuracy.MEDIAN, accuracy.MIN, accuracy.TIMER)}
    peers_beside = {accuracy.MEDIAN: ratios(1.1), accuracy.MIN: ratios(0.99), accuracy.TIMER: ratios(1.03)}
    beside = {accuracy.SUITE: ratios(1.002, cost=1.2, one=0.99)} | peers_beside
    goals = judged(monkeypatch, iter([alone, beside] * 2), ["same", "same", "unclear", "faster"])
    assert [round(goal.found, 3) for goal in goals] == [50.0, 15.0, 5.0, 0.04, 1.0, 0.5, 1, 0.5, 1.5]
    assert [goal.reached for goal in goals] == [True, False, True, False, True, False, False, False, False]


@pytest.mark.parametrize(("beside", "number"), [(accuracy.neighbour, 1), (accuracy.idle_worker, 2)])
def test_what_disturbs_is_there_inside_and_gone_afterwards_even_after_an_error(
    beside: Callable[[], AbstractContextManager[None]], number: int
) -> None:
    def interrupted() -> None:
        with beside():
            assert len(set(psutil.Process().children()) - before) == number
            raise KeyboardInterrupt

    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert set(psutil.Process().children()) <= before


def test_each_step_is_told_when_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    begin = progress(2, 90)
    begin("a")
    begin("b")
    assert capsys.readouterr().err == "2 measurements, about 1.5 minutes\n1 of 2: a\n2 of 2: b\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "row", "read"),
    [
        ("trueness", "mlp tiny no_grad", ["cases", "planted"]),
        ("accuracy", "this suite, beside a neighbour", ["ratios", "nulls"]),
    ],
)
def test_a_quick_check_says_and_saves_what_it_has_read(
    check: str, row: str, read: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([check, "--quick"]) in (0, 1), "whether it reaches its goals is up to the machine"
    said, saved = capsys.readouterr().out, json.loads((folder / f"{check}-quick.json").read_text())
    assert row in said
    assert list(saved) == ["machine", "goals", *read]
    assert all(saved[name] for name in read)
    assert len(saved["goals"]) == said.count("(at most") + said.count("(at least") >= 9


TRIED = """
import pytest

@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.whole), 3])
def test_kills_of_a_run(number, record_property):
    record_property("jobs lost, at most 2.5", number)
    assert number < 3

def test_files(record_property):
    record_property("times", 500)

@pytest.mark.skip
def test_nothing(): ...

@pytest.fixture
def lacking():
    raise OSError("no room")

def test_disks(lacking): ...
"""


def test_faults_counts_what_tests_have_tried_and_what_broke_also_before_a_test_began(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(TRIED)
    found = faults.faults([str(path)], ["-c", "/dev/null"])
    assert [line.split()[-3:] for line in found.table.splitlines()[2:]] == [
        ["3", "2", "1"],
        ["500", "500", "0"],
        ["1", "0", "1"],
    ]
    assert [str(goal).split()[0] for goal in found.goals] == ["MISSED", "MISSED"]
    assert str(list(found.goals)[1]) == "MISSED  jobs lost: 3 (at most 2.5)"
    assert [note.split("\n")[0] for note in found.notes] == [
        "kills of a run [3]: assert 3 < 3", 'disks: failed on setup with "OSError: no room"',
    ]  # fmt: skip


def test_faults_that_could_not_be_tried_are_no_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHECKS, "faults", (lambda: faults.faults(["tests/nosuch.py"], []), ""))
    assert main(["faults"]) == 1
    assert "pytest ended with 4, so nothing is known" in capsys.readouterr().err
