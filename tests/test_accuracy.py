"""What the self-checks make of readings: ratios, rows, goals and files; the clock and the harnesses are stand-ins but for small runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis.render import WIDTH, Table, terminal
from benchmarks.record import Interval
from benchmarks.room import CleanRooms
from benchmarks.selfcheck import peers
from benchmarks.selfcheck.__main__ import COMMANDS, main
from benchmarks.selfcheck.accuracy import Found, Method, accuracy, save, suite_itself
from benchmarks.selfcheck.lanes import LANES, RATIOS, Reading, busy, of_medians, of_rounds, planted, spread
from benchmarks.selfcheck.verdicts import Intervals, build_group, settled, verdicts

SECONDS = {"tracked": 1.2, "identical tracked": 1.0, "no_grad": 0.8, "base": 2.0, "+1 %": 2.02, "+2 %": 2.04, "+5 %": 2.1}


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


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def read(identical: float = 1.0, cost: float = 1.25, one: float = 1.01, interval: bool = True) -> Reading:
    ratios = dict(zip(RATIOS, (identical, cost, one, 1.02, 1.05), strict=True))
    intervals = {name: Interval(ratio, ratio - 0.005, ratio + 0.005) for name, ratio in ratios.items()}
    return Reading(ratios, intervals if interval else {})


def method(name: str, *readings: Reading) -> Method:
    """Reads the same alone and beside busy processes, as often as there are readings."""

    def measure(repeats: int, seconds: float, advance: Callable[[], None]) -> list[Reading]:
        advance()
        return list(readings)

    return Method(name, measure, len(readings), len(readings))


def rows_of(table: Table) -> list[list[str]]:
    return [row for section in table.sections for row in section.rows]


def goals_of(table: Table) -> dict[str, tuple[str, str]]:
    """Found and reached by goal; of both conditions the first."""
    found: dict[str, tuple[str, str]] = {}
    for what, text, _, reached, _ in rows_of(table):
        found.setdefault(what.strip(), (text, reached))
    return found


@pytest.mark.parametrize("fraction", [0.01, 0.02, 0.05])
def test_a_planted_lane_lasts_longer_than_its_base_by_the_fraction(fraction: float) -> None:
    lasted = []
    for share in (0.0, fraction):
        clock = SteppingClock(look_seconds=1e-9)
        planted(clock.work(100e-6), share, clock)()
        lasted.append(clock.now)
    assert lasted[1] / lasted[0] == pytest.approx(1 + fraction, abs=1e-4)


def test_the_extra_is_a_share_of_this_very_call() -> None:
    clock = SteppingClock(look_seconds=1e-9)
    planted(clock.work(10e-3), 0.05, clock)()
    assert clock.now == pytest.approx(10.5e-3, rel=1e-3)


def test_cold_reads_of_the_clock_are_part_of_the_base_too() -> None:
    lasted = []
    for share in (0.0, 0.01):
        clock = SteppingClock(look_seconds=0.3e-6)
        planted(clock.work(100e-6), share, clock)()
        lasted.append(clock.now)
    assert lasted[1] / lasted[0] == pytest.approx(1.01, abs=0.3e-6 / 100e-6), "off by no more than one look at the clock"


def test_ratios_of_planted_lanes_are_over_their_base_and_the_others_over_the_lane_itself() -> None:
    expected = {"identical code": 1.2, "tracked/no_grad": 1.5, "+1 %": 1.01, "+2 %": 1.02, "+5 %": 1.05}
    assert of_medians(SECONDS).ratios == pytest.approx(expected)
    assert of_medians(SECONDS).intervals == {}


def test_rounds_give_the_same_ratios_with_intervals() -> None:
    read = of_rounds({name: [one * drift for drift in range(1, 21)] for name, one in SECONDS.items()})
    assert read.ratios == pytest.approx(of_medians(SECONDS).ratios)
    interval = read.intervals["+5 %"]
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((1.05, 1.05, 1.05))


def test_spread_is_the_mean_and_the_worst_distance_from_one_on_either_side() -> None:
    assert spread([0.98, 1.01, 1.0]) == pytest.approx((0.01, 0.02))
    assert str(spread([])) == "(nan, nan)"


def test_a_row_holds_mean_worst_spread_and_counts_of_signs() -> None:
    found = Found.of("x", "nothing", [read(0.99, 1.2, 1.001), read(1.03, 1.3, 0.999)])
    assert (found.identical_mean, found.identical_worst) == pytest.approx((0.02, 0.03))
    assert (found.cost_low, found.cost_high) == (1.2, 1.3)
    assert found.signs == {"+1 %": 1, "+2 %": 2, "+5 %": 2}


def measured(folder: Path, *suite: Reading, peer: float = 1.1) -> list[Table]:
    others = [method(name, read(peer, interval=False)) for name in ("pytest-benchmark", "torch Timer")]
    return accuracy([method("this suite", *suite), *others], seconds=0.5, processes=0, folder=folder)


def test_the_table_has_a_row_for_each_method_alone_and_beside_busy_processes(tmp_path: Path) -> None:
    table, _ = measured(tmp_path, read(1.001), read(0.997, 1.27, 0.999))
    assert rows_of(table) == [
        ["this suite", "nothing", "0.20%", "0.30%", "1.250 to 1.270", "1/2", "2/2", "2/2"],
        ["pytest-benchmark", "nothing", "10.00%", "10.00%", "1.250 to 1.250", "1/1", "1/1", "1/1"],
        ["torch Timer", "nothing", "10.00%", "10.00%", "1.250 to 1.250", "1/1", "1/1", "1/1"],
        ["this suite", "busy", "0.20%", "0.30%", "1.250 to 1.270", "1/2", "2/2", "2/2"],
        ["pytest-benchmark", "busy", "10.00%", "10.00%", "1.250 to 1.250", "1/1", "1/1", "1/1"],
        ["torch Timer", "busy", "10.00%", "10.00%", "1.250 to 1.250", "1/1", "1/1", "1/1"],
    ]


def test_the_tables_fit_a_terminal_and_say_what_is_missing(tmp_path: Path) -> None:
    texts = [terminal(table) for table in measured(tmp_path, *[read(1.001)] * 20)]
    assert max(len(line) for text in texts for line in text.splitlines()) <= WIDTH
    assert "pip install pyperf adds its row" in texts[0]
    assert "pyperf is not installed" not in terminal(
        accuracy([method("this suite", read()), method("pyperf", read())], 0.5, 0, tmp_path)[0]
    )


def test_the_notes_tell_how_often_the_intervals_exclude_one(tmp_path: Path) -> None:
    table, _ = measured(tmp_path, read(1.001), read(1.006, one=1.004))
    (note, _) = [note for note in table.notes if "intervals (99 %)" in note]
    assert note == (
        "this suite beside nothing: median readings +1 % 1.0070, +2 % 1.0200, +5 % 1.0500; of 2 intervals (99 %) wholly above 1: "
        "+1 % 1, +2 % 2, +5 % 2; identical code excludes 1: 1"
    )


def test_goals_are_reached_by_small_errors_and_signs_found(tmp_path: Path) -> None:
    _, goals = measured(tmp_path, *[read(1.002)] * 20, peer=1.05)
    assert goals_of(goals) == {
        "identical code, mean, beside nothing": ("0.20%", "reached"),
        "identical code, mean, beside busy": ("0.20%", "reached"),
        "worst of 20": ("0.20%", "reached"),
        "mean below that of pytest-benchmark": ("25 times", "reached"),
        "mean below that of torch Timer": ("25 times", "reached"),
        "sign of +2 % found": ("20 of 20", "reached"),
        "sign of +1 % found": ("20 of 20", "reached"),
    }


def test_goals_that_are_missed_say_so_with_what_was_found(tmp_path: Path) -> None:
    readings = [*[read(1.001, one=0.99)] * 6, *[read(1.001)] * 13, read(1.10)]
    _, goals = measured(tmp_path, *readings, peer=1.05)
    found = goals_of(goals)
    assert found["identical code, mean, beside nothing"] == ("0.59%", "MISSED")
    assert found["worst of 20"] == ("10.00%", "MISSED")
    assert found["mean below that of torch Timer"] == ("8 times", "MISSED")
    assert found["sign of +1 % found"] == ("14 of 20", "MISSED")


def test_a_suite_without_any_error_is_infinitely_better_not_a_crash(tmp_path: Path) -> None:
    _, goals = measured(tmp_path, read(1.0))
    assert goals_of(goals)["mean below that of torch Timer"] == ("inf times", "reached")


def test_the_saved_file_holds_every_reading_and_the_goals(tmp_path: Path) -> None:
    measured(tmp_path / "new", read(1.001))
    saved = json.loads((tmp_path / "new" / "accuracy.json").read_text())
    assert (saved["model"], saved["seconds_per_lane"], saved["busy_processes"]) == ("mlp tiny", 0.5, 0)
    assert saved["found"][0]["readings"][0]["ratios"]["identical code"] == 1.001
    assert saved["found"][0]["readings"][0]["intervals"]["+5 %"] == asdict(read().intervals["+5 %"])
    assert {"machine", "wall_seconds", "goals"} <= set(saved)


def test_a_run_that_fails_leaves_the_earlier_file_as_it_is(tmp_path: Path) -> None:
    measured(tmp_path, read(1.001))
    before = (tmp_path / "accuracy.json").read_text()

    def fails(repeats: int, seconds: float, advance: Callable[[], None]) -> list[Reading]:
        raise OSError("no more processes")

    with pytest.raises(OSError, match="no more"):
        accuracy([method("this suite", read()), Method("torch Timer", fails, 1, 1)], 0.5, 0, tmp_path)
    assert (tmp_path / "accuracy.json").read_text() == before


def test_saving_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "x.json", 0.0, [], answer=42)
    assert [path] == list(tmp_path.iterdir())
    assert json.loads(path.read_text())["answer"] == 42


def test_busy_processes_are_there_inside_and_gone_afterwards_even_after_an_error() -> None:
    before = children()

    def interrupted() -> None:
        with busy(2):
            assert len(children() - before) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert children() <= before


def test_progress_moves_when_the_last_lane_of_a_repeat_has_passed() -> None:
    steps = []
    lines: Any = [f"test_lanes.py::test_lane[{lane}] PASSED [ 1%]\n" for lane in LANES * 2] + ["2 passed\n"]
    said = peers._follow(lines, lambda: steps.append(1))
    assert len(steps) == 2
    assert said == "".join(lines)


def test_the_suite_itself_reads_every_ratio_with_its_interval() -> None:
    steps: list[int] = []
    readings = suite_itself(2, 0.02, lambda: steps.append(1))
    assert len(readings) == len(steps) == 2
    assert all(list(one.ratios) == list(one.intervals) == list(RATIOS) for one in readings)


def test_pytest_benchmark_reads_every_ratio_of_every_repeat() -> None:
    steps: list[int] = []
    readings = peers.pytest_benchmark(2, 0.001, lambda: steps.append(1))
    assert len(steps) == 2
    assert [list(one.ratios) for one in readings] == [list(RATIOS)] * 2


def test_pytest_benchmark_that_fails_says_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_TEST_FILE", "import missing_module")
    with pytest.raises(RuntimeError, match=r"exit status 2:\n(.|\n)*missing_module"):
        peers.pytest_benchmark(1, 0.001, lambda: None)


def test_the_timer_of_torch_reads_every_ratio() -> None:
    assert [list(one.ratios) for one in peers.torch_timer(1, 0.001, lambda: None)] == [list(RATIOS)]


def test_pyperf_reads_every_lane_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyperf")
    assert list(CleanRooms(60).run(peers.pyperf_worker, 0.001)) == list(LANES)


def groups(
    identical: list[Interval], longer: list[Interval], folder: Path, **medium: list[float]
) -> tuple[dict[str, tuple[str, str]], Table]:
    (table,) = verdicts(0, 1, folder, lambda: Intervals(identical, longer), lambda: medium or {"mlp": [1.004, 0.998]})
    return goals_of(table), table


SAME, FASTER, UNCLEAR = Interval(1.0, 0.995, 1.005), Interval(1.02, 1.011, 1.03), Interval(1.0, 0.98, 1.02)
HOLDS, NEAR, MISSES = Interval(1.05, 1.045, 1.055), Interval(1.055, 1.0525, 1.06), Interval(1.055, 1.0535, 1.06)


def test_verdicts_on_identical_code_and_planted_effects_reach_their_goals(tmp_path: Path) -> None:
    goals, table = groups(
        [*[SAME] * 120, *[UNCLEAR] * 78, *[FASTER] * 2], [*[HOLDS] * 50, *[NEAR] * 48, *[MISSES] * 2], tmp_path
    )
    assert goals == {
        "identical code called faster or slower, of 200": ("2", "reached"),
        "identical code shown to be the same, of 200": ("120", "reached"),
        "planted 5% held within 0.3%, of 100": ("98", "reached"),
        "identical code, mean of medium models": ("0.30%", "reached"),
    }
    assert [row[4] for row in rows_of(table) if row[0].startswith("planted")] == ["50 by the interval itself"]


def test_verdicts_that_are_wrong_or_unclear_too_often_are_missed_goals(tmp_path: Path) -> None:
    goals, _ = groups(
        [*[SAME] * 99, *[UNCLEAR] * 98, *[FASTER] * 3], [*[HOLDS] * 97, *[MISSES] * 3], tmp_path, lstm=[1.05], mlp=[]
    )
    assert [reached for _, reached in goals.values()] == ["MISSED"] * 4


def test_verdicts_say_that_comparisons_are_not_independent_and_where_they_are_saved(tmp_path: Path) -> None:
    _, table = groups([SAME], [HOLDS], tmp_path, mlp=[1.004, 1.001], lstm=[])
    text = " ".join(terminal(table).split())
    assert "they are not independent of each other" in text
    assert "mlp 1.0040 and 1.0010, lstm not measured" in text
    saved = json.loads((tmp_path / "verdicts-nothing.json").read_text())
    assert saved["groups"] == [{"identical": [{"estimate": 1.0, "low": 0.995, "high": 1.005}],
                                "planted": [{"estimate": 1.05, "low": 1.045, "high": 1.055}]}]  # fmt: skip


def test_a_group_has_eight_identical_lanes_and_four_planted_ones() -> None:
    names = [name.split()[0] for name in build_group()]
    assert names == ["tracked", *["identical"] * 8, "base", *["planted"] * 4]


def test_a_group_goes_on_until_every_interval_against_tracked_is_precise() -> None:
    calm, wild = [1.0] * 60, [1.0, 1.5] * 30
    assert settled({"tracked": calm, "identical 0": calm})
    assert not settled({"tracked": calm, "identical 0": calm, "planted 0": wild})
    assert not settled({"tracked": calm[:40], "identical 0": calm[:40]}), "too few to be sure of"


def test_help_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
