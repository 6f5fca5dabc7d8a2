"""Proves that the table of means keeps apart what must not be averaged, and says what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import make_group, make_result, make_timings, saved_run

from analysis.load import load_all
from analysis.means import BY, METRICS, means_table
from analysis.render import FORMATS, Table, json_list, latex, markdown, terminal
from benchmarks.record import Interval, Kernels, Memory, Result, Unmeasured

SPEEDUPS = {"no_grad": Interval(1.2, 1.19, 1.21), "detach": Interval(0.99, 0.98, 1.0)}
SHIPPED = {"no_grad": Interval(1.4, 1.3, 1.5), "detach": Interval(1.0, 0.9, 1.1)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def table(
    folder: Path, *runs: list[Result], by: str = "model", metric: str = "speedup", unmeasured: tuple[Unmeasured, ...] = ()
) -> Table:
    paths = [saved_run(folder / f"{number}.json", results, torch=f"2.{number}") for number, results in enumerate(runs)]
    return means_table(load_all(paths).frame, by.split(","), metric, unmeasured)


def group(model: str, memory: Memory | None = None) -> list[Result]:
    changes = {"memory": memory} if memory else {}
    return [
        *make_timings("resident", 1e-4, SPEEDUPS, {}, model=model, **changes),
        *make_timings("default", 2e-4, SHIPPED, {"tracked": 8.0, "no_grad": 2.0}, model=model, **changes),
    ]


def test_the_two_allocators_are_never_averaged_together(folder: Path) -> None:
    expected = """\
  model     no_grad      detach  cases

forward, cpu, float32, tracking alone (resident)
  mlp    1.20 ±0.01  0.99 ±0.01      1
  lstm   1.20 ±0.01  0.99 ±0.01      1

forward, cpu, float32, as shipped (default)
  mlp      1.4 ±0.1    1.0 ±0.1      1
  lstm     1.4 ±0.1    1.0 ±0.1      1

measured: 1 run; forward; cpu; float32; resident, default
speedup: tracked's time over the mode's, geometric mean over cases, ± the wider half of its 99 %
  interval; above 1: faster
tracking alone: while the allocator keeps its pages (resident)
as shipped: with the allocator left as it is, a process per mode (default)"""
    assert terminal(table(folder, [*group("mlp"), *group("lstm")])) == expected


def test_entering_and_leaving_a_context_is_not_averaged_with_operators(folder: Path) -> None:
    results = [*make_group(scenario="operators", model="view"), *make_group(scenario="operators", model="context")]
    assert [row[:2] for row in table(folder, results).sections[0].rows] == [["view", "1.25 ±0.01"]]


def test_markdown_names_in_columns_what_is_apart(folder: Path) -> None:
    expected = """\
| allocator | model |    no_grad |     detach | cases |
| --------- | ----- | ---------: | ---------: | ----: |
| resident  | mlp   | 1.20 ±0.01 | 0.99 ±0.01 |     1 |
| default   | mlp   |   1.4 ±0.1 |   1.0 ±0.1 |     1 |
"""
    assert markdown(table(folder, group("mlp"))).startswith(expected)


def test_scenarios_devices_and_dtypes_are_apart_unless_they_are_asked_for(folder: Path) -> None:
    results = [*make_group(), *make_group(scenario="evaluation"), *make_group(device="cuda"), *make_group(dtype="float16")]
    assert len(table(folder, results).sections) == 4
    (section, *others) = table(folder, results, by="scenario").sections
    assert [row[0] for row in section.rows] == ["forward", "evaluation"]
    assert len(others) == 2


def test_by_mode_there_is_one_column_with_the_outermost_ratios(folder: Path) -> None:
    slow = make_result("no_grad", case={"model": "lstm"}, speedup=Interval(0.9, 0.89, 0.91))
    shown = table(folder, [*make_group(), slow], by="mode")
    assert [column.title for column in shown.columns] == ["mode", "speedup", "lowest", "highest", "cases"]
    assert shown.sections[0].rows == [["no_grad", "1.061 ±0.007", "0.90", "1.25", "2"]]


def test_by_run_the_runs_stand_beside_each_other(folder: Path) -> None:
    shown = table(folder, [*make_group(), *make_group(model="lstm")], make_group(), by="model,run")
    assert [row[:2] + row[-1:] for row in shown.sections[0].rows] == [["mlp", "0", "1"], ["mlp", "1", "1"], ["lstm", "0", "1"]]
    assert [row[0] for row in table(folder, make_group(), make_group(), by="torch").sections[0].rows] == ["2.0", "2.1"]


def test_untrusted_groups_are_no_part_of_a_mean_of_times_and_counted(folder: Path) -> None:
    bad = [
        make_result(case={"model": "lstm"}, trusted=False, speedup=Interval(9.0, 8.0, 10.0)),
        make_result("tracked", case={"model": "lstm"}),
    ]
    shown = table(folder, [*make_group(), *bad], by="size")
    assert shown.sections[0].rows == [["tiny", "1.25 ±0.01", "1"]]
    assert "left out, for their group is untrusted: 1 of 2 cases" in shown.notes
    assert table(folder, [*make_group(), *bad], by="size", metric="peak_tensor_bytes").sections[0].rows == [
        ["tiny", "0.40", "2"]
    ]


def test_what_has_no_ratio_and_what_is_zero_is_counted(folder: Path) -> None:
    results = [*make_group(), *make_group(model="lstm"), make_result(case={"model": "alone"})]
    shown = table(folder, results, metric="saved_bytes")
    assert [row[:2] for row in shown.sections[0].rows] == [["mlp", "0"], ["lstm", "0"]]
    assert "left out, for there is no ratio (not measured, or 0 of tracked): 1 of 3 cases" in shown.notes
    assert "0 in 2 of 3 cases: a mean is 0 where all are, else that of the others" in shown.notes


def test_memory_is_the_same_by_both_allocators_and_shown_once(folder: Path) -> None:
    results = group("mlp", Memory(64, 32, 16, 8))
    assert [section.heading for section in table(folder, results, metric="saved_bytes").sections] == ["forward, cpu, float32"]
    assert len(table(folder, results, by="allocator", metric="saved_bytes").sections[0].rows) == 2
    without = [one for one in results if one.case.mode != "tracked" or one.case.allocator == "default"]
    assert table(folder, without, metric="saved_bytes").sections[0].rows == [["mlp", "1.00", "1.00", "1"]]
    faults = table(folder, results, metric="page_faults")
    assert [(section.key[-1], section.rows[0][1]) for section in faults.sections] == [("default", "0.25")]


def test_a_mode_that_ran_other_kernels_is_marked_in_its_cell(folder: Path) -> None:
    results = [make_result("tracked"), make_result(kernels=Kernels(same_as_tracked=False)), make_result("detach")]
    shown = table(folder, results)
    assert shown.sections[0].rows[0][1:3] == ["1.25 ±0.01*", "1.25 ±0.01"]
    assert "*: other kernels than tracked in some of the cases, so not tracking alone (mlp)" in shown.notes


def test_cells_of_different_numbers_of_cases_say_so(folder: Path) -> None:
    results = [*make_group(), *make_group(model="lstm"), make_result("detach")]
    assert table(folder, results, by="size").sections[0].rows[0][-1] == "1 to 2"
    assert table(folder, results).sections[0].rows[1][2] == "-"


def test_the_spread_between_runs_is_told_with_the_worst_case(folder: Path) -> None:
    other = make_result(speedup=Interval(1.5, 1.4, 1.6))
    notes = table(folder, [*make_group(), *make_group(model="lstm")], [other, *make_group(model="lstm")]).notes
    assert (
        "between runs of the same case: standard deviation 6.4 % in the median case, 12.9 % in the worst (mlp tiny no_grad resident)"
        in notes
    )
    assert "measured: 2 runs; forward; cpu; float32; resident" in notes
    assert not [note for note in table(folder, make_group()).notes if "between runs" in note]


def test_cases_that_were_not_measured_are_counted(folder: Path) -> None:
    lost = (Unmeasured(make_result("a").case, "crashed", ""), Unmeasured(make_result("b").case, "timed_out", ""), Unmeasured(make_result("c").case, "crashed", ""))  # fmt: skip
    assert "not measured: 2 crashed, 1 timed_out; `summarise RUN` of a single run tells the cases and reasons" in table(folder, make_group(), unmeasured=lost).notes  # fmt: skip


def test_machines_get_a_row_per_mean_with_both_ends_of_its_interval(folder: Path) -> None:
    (row,) = json.loads(json_list(table(folder, make_group(), by="model,run")))
    figures = {name: row.pop(name) for name in ("ratio", "low", "high")}
    assert figures == pytest.approx({"ratio": 1.25, "low": 1.24, "high": 1.26})
    assert row == {
        "scenario": "forward", "device": "cpu", "dtype": "float32", "allocator": "resident", "model": "mlp", "run": "0", "mode": "no_grad",
        "metric": "speedup", "lowest": 1.25, "highest": 1.25, "cases": 1, "other_kernels": False,
    }  # fmt: skip
    (row,) = json.loads(json_list(table(folder, make_group(), metric="seconds")))
    assert (row["ratio"], row["low"], row["high"]) == (pytest.approx(0.8), None, None)


@pytest.mark.parametrize(("by", "metric"), [*((by, "speedup") for by in BY), *(("size", metric) for metric in METRICS)])
def test_every_metric_and_every_way_to_take_it_apart_makes_a_table_in_every_format(by: str, metric: str, folder: Path) -> None:
    sparse = make_result("detach", memory=Memory(), speedup=None, placebo=None, page_faults=None)
    alone = make_result("tracked", case={"size": "own"})
    shown = table(folder, [*make_group(), sparse], [*make_group(device="cuda"), alone], by=by, metric=metric)
    texts = {name: render(shown) for name, render in FORMATS.items()}
    assert "NaN" not in texts["json"]
    assert "nan" not in texts["terminal"]


def test_names_of_models_and_modes_break_no_format(folder: Path) -> None:
    evil = {"model": "<script>|\n&%_"}
    shown = table(folder, [make_result("tracked", case=evil), make_result("freeze|*", case=evil)])
    assert all(line.startswith(("| ", "- ")) for line in markdown(shown).splitlines() if line)
    assert markdown(shown).splitlines()[0].count(r"freeze\|\*") == 1
    assert r"\textless{}script\textgreater{}\textbar{} \&\%\_ & " in latex(shown)


def test_of_many_modes_the_terminal_leaves_out_the_last(folder: Path) -> None:
    modes = [f"a_long_name_{number}" for number in range(12)]
    text = terminal(table(folder, [make_result("tracked"), *(make_result(mode) for mode in modes)]))
    assert max(map(len, text.splitlines())) <= 100
    assert "a_long_name_11" in text.partition("left out to fit 100 columns: ")[2]
    assert "a_long_name_0 " in text.splitlines()[0]


def test_where_nothing_has_a_ratio_the_notes_stand_alone(folder: Path) -> None:
    shown = table(folder, [make_result("tracked")])
    assert shown.sections == []
    assert terminal(shown).startswith("measured: 1 run")


@pytest.mark.parametrize("name", FORMATS)
def test_where_nothing_was_measured_there_is_only_that(name: str, folder: Path) -> None:
    shown = table(folder, [], [], unmeasured=(Unmeasured(make_result().case, "timed_out", ""),))
    assert name in {"csv", "json"} or "not measured: 1 timed" in FORMATS[name](shown)
    assert shown.sections == []
