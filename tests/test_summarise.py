"""Proves that the tables of a run show what was measured, mark what is no evidence, and that the first of them fit one screen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import group, result, run, saved, unmeasured

from analysis import ending
from analysis.read import Run
from analysis.render import Table, terminal
from analysis.summarise import figures, overview, summary
from benchmarks.record import CONTEXT, Interval, Kernels, Memory

Tables = Callable[[Run], list[Table]]
SHIPPED: Any = {"allocator": "as_shipped"}
LOOP = Memory(peak_tensor_bytes=4096, held_tensor_bytes=8, saved_bytes=0, held_bytes_per_step=0, heap_bytes_per_step=7159)


def column(table: Table, *titles: str) -> list[Any]:
    """A text for each row, or a tuple of several."""
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row[titles[0]] if len(titles) == 1 else tuple(row[title] for title in titles) for row in rows]


def test_the_overview_has_a_row_per_model_and_size() -> None:
    clear = {"no_grad": Interval(1.25, 1.24, 1.26), "detach": Interval(1.0, 0.98, 1.02)}
    (table,) = overview(run(*group(clear), *group(clear, size="small", tracked_seconds=2e-3)))
    assert terminal(table).startswith("""\
forward passes, speedup over tracked (cpu, float32, pages_kept)
                                                 peak      peak
model      tracked     no_grad       detach   tracked   no_grad
mlp tiny    125 us  1.25 ±0.01  ~1.00 ±0.02  10.0 KiB  4.00 KiB
mlp small  2.00 ms  1.25 ±0.01  ~1.00 ±0.02  10.0 KiB  4.00 KiB
""")


def test_what_is_not_eager_is_said_of_all_rows_or_of_each() -> None:
    compiled = group(execution="compiled")
    (alone,), (both,) = overview(run(*compiled)), overview(run(*group(), *compiled))
    assert alone.title == "forward passes, speedup over tracked (cpu, float32, compiled, pages_kept)"
    assert both.title == "forward passes, speedup over tracked (cpu, float32, pages_kept)"
    assert column(both, "model") == ["mlp tiny", "mlp tiny compiled"]


def test_the_overview_shows_pages_kept_and_as_shipped_only_where_there_is_nothing_else() -> None:
    shipped = [*group({"no_grad": 1.5}, **SHIPPED), *group({"no_grad": 1.6}, model="b", **SHIPPED)]
    (table,) = overview(run(*group({"no_grad": 1.1}), *shipped))
    assert column(table, "no_grad") == ["1.10 ±0.01", "1.60 ±0.02"]


def test_the_overview_has_a_row_per_scenario_with_the_mode_it_is_about() -> None:
    forward, scenarios = overview(
        run(
            *group(),
            *group({"detach": 1.4, "no_grad": 1.3}, scenario="evaluation", steps=4, memory=LOOP),
            *group({"item": 1.1, "float": 1.2}, scenario="loss_logging", steps=8, memory=LOOP),
            *group({"forward_alone": 4.0}, scenario="training_step"),
            *group({"forward_alone": 4.0}, scenario="training_step", model="lstm"),
            *group({"no_grad": 1.2}, scenario="operators", model="view", steps=50),
            *group({"no_grad": 1.8}, scenario="operators", model="index", steps=50),
            *group({"no_grad": 0.1}, scenario="operators", model=CONTEXT, steps=50),
        )
    )
    assert len(forward.rows) == 1
    assert column(scenarios, "scenario", "mode", "speedup", "per step tracked") == [
        ("evaluation mlp tiny", "no_grad", "1.30 ±0.01", "6.99 KiB"), ("loss_logging mlp tiny", "item", "1.10 ±0.01", "6.99 KiB"),
        ("training_step mlp tiny (1 of 2)", "forward", "25.0 ±0.3 %", "-"), ("operators (mean of 2)", "no_grad", "1.47 ±0.01", "-"),
    ]  # fmt: skip


def test_the_summary_has_a_row_per_mode_with_both_allocators_side_by_side() -> None:
    faulting = result("no_grad", 1.5, page_faults=120.0, **SHIPPED)
    (table,) = summary(run(*group({"no_grad": 1.2}), result("tracked", page_faults=2536.0, **SHIPPED), faulting))
    assert terminal(table).startswith("""\
forward passes, speedup over tracked (cpu, float32)
         pages_kept  pages_kept  as_shipped  as_shipped
mode       per call     speedup    per call     speedup  faults      peak     saved  RSS

mlp tiny   16,640 parameters
tracked      125 us           1      125 us           1   2,536  10.0 KiB  8.00 KiB    -
no_grad      104 us  1.20 ±0.01     83.3 us  1.50 ±0.02     120  4.00 KiB       0 B    -
""")


def test_memory_is_shown_once_for_both_allocators_as_the_first_read_it_that_could() -> None:
    known, unknown = Memory(peak_tensor_bytes=7), Memory()
    tracked = [result("tracked", memory=unknown), result("tracked", memory=known, **SHIPPED)]
    no_grad = [result(memory=known), result(memory=unknown, **SHIPPED)]
    (table,) = summary(run(*tracked, *no_grad, result("detach", memory=unknown)))
    assert column(table, "mode", "peak") == [("tracked", "7 B"), ("no_grad", "7 B"), ("detach", "-")]


def test_where_no_figure_as_shipped_was_needed_the_table_says_so_and_where_it_was_lost_too() -> None:
    calm = [replace(one, also_as_shipped=True) for one in group()]
    (table,) = summary(run(*calm, *group(model="lstm"), *group(model="mlp2", **SHIPPED)))
    assert column(table, "as_shipped speedup") == ["=", "=", "-", "-", "1", "1.25 ±0.01"]
    assert table.notes[0] == "=: page faults, if any, take less than 1 % of a call, so the figure of pages_kept serves for both"


@pytest.mark.parametrize(("scenario", "title"), [("forward", "saved"), ("adapters", "saved, all steps")])
def test_an_input_that_the_graph_keeps_is_told_where_it_is_more_than_all_else_that_is_saved(scenario: str, title: str) -> None:
    """Layers between frozen ones save little of their own, and keep an input alive that would be gone."""
    kept = {
        "tracked": Memory(saved_bytes=32768, input_saved_bytes=2**23),
        "no_grad": Memory(saved_bytes=32768, input_saved_bytes=4096),
    }
    (table,) = summary(run(*(result(mode, memory=memory, scenario=scenario) for mode, memory in kept.items())))
    assert column(table, title) == ["32.0 KiB (+ input 8.00 MiB)", "32.0 KiB"]


def test_speedups_carry_the_marks_of_what_limits_them() -> None:
    marked = [
        result("tracked"), result("no_grad", 1.2), result("detach", Interval(1.0, 0.9, 1.1)), result("frozen", 1.2, trusted=False),
        result("a", 1.2, kernels=Kernels(same_as_tracked=False)), result("b", Interval(2.0, 0.01, 90.0)), result("c", None, trusted=False),
        result("d", Interval(1.0, 0.999, 1.001)), result("e", Interval(2.0, 0.01, 90.0), kernels=Kernels(same_as_tracked=False)),
    ]  # fmt: skip
    (table,) = summary(run(*marked))
    assert table.figures[table.columns.index("speedup")]
    assert column(table, "speedup") == [
        "1", "1.20 ±0.01", "~1.0 ±0.1", "?1.20 ±0.01", "1.20 ±0.01*", "not known", "not known", "1.000 ±0.001", "not known*",
    ]  # fmt: skip


def test_a_part_of_a_step_is_a_share_of_that_under_no_grad_where_there_is_one() -> None:
    parts = [
        result("tracked", scenario="rollout"), result("no_grad", 1.25, scenario="rollout"),
        result("acting_alone", 2.5, scenario="rollout", over_no_grad=Interval(2.0, 1.99, 2.01)),
        result("forward_alone", Interval(2.0, 0.05, 9.0), scenario="rollout"),
        result("step_alone", 2.0, scenario="rollout", trusted=False),
    ]  # fmt: skip
    (table,) = summary(run(*parts))
    assert column(table, "speedup") == ["1", "1.25 ±0.01", "50.0 ±0.3 %", "not known", "?50.0 ±0.5 %"]


def test_what_takes_steps_shows_what_each_leaves_in_memory_of_tensors_and_of_all_else() -> None:
    held = {"held_bytes_per_step": 1024, "heap_bytes_per_step": -300}
    logging = [
        result("tracked", scenario="loss_logging", steps=8, memory=LOOP),
        result("item", scenario="loss_logging", steps=8, memory=held),
        result("float", scenario="loss_logging", steps=8, memory={"held_bytes_per_step": None, "heap_bytes_per_step": -30}),
        result("tracked", scenario="training_step"),
    ]
    (table,) = summary(run(*logging))
    assert column(table, "steps a call", "left by each step") == [("8", "6.99 KiB"), ("8", "724 B"), ("8", "0 B"), ("", "-")]


def test_operators_have_a_column_per_mode_and_what_tracking_costs() -> None:
    operators = [
        *group({"no_grad": Interval(1.25, 1.2, 1.3)}, scenario="operators", model="view", steps=50, tracked_seconds=50e-6),
        *group({"no_grad": 1.25}, scenario="operators", model="index", steps=50, tracked_seconds=100e-6, trusted=False),
        result("tracked", scenario="operators", model="alone", steps=50, tracked_seconds=50e-6),
    ]
    (table,) = summary(run(*operators))
    assert table.rows == [
        ["view", "1.00 us", "800 ns", "200 ±40 ns"], ["index", "2.00 us", "1.60 us", "?400 ±20 ns"], ["alone", "1.00 us", "-", "-"],
    ]  # fmt: skip
    (nothing_beside,) = overview(run(*group({}, scenario="operators", model="view")))
    assert not nothing_beside.columns


@pytest.mark.parametrize("scenario", ["switches", "operators"])
@pytest.mark.parametrize("tables", [overview, summary])
def test_entering_and_leaving_is_a_table_of_its_own_with_the_bare_loop_taken_off(tables: Tables, scenario: str) -> None:
    entering = {"no_grad": Interval(0.1, 0.099, 0.101)}
    (table,) = tables(run(*group(entering, scenario=scenario, model=CONTEXT, steps=50, tracked_seconds=20e-6)))
    assert table.title == "entering and leaving, bare loop taken off (cpu, float32, eager, pages_kept)"
    assert column(table, "mode", "time") == [("no_grad", "3.60 ±0.02 us")]


def test_an_accelerator_shows_its_other_clocks_and_what_it_reserved() -> None:
    clocks = {"host_seconds": 2e-4, "busy_seconds": 1e-4, "bound_by": "host"}
    gpu: Any = {"device": "cuda", "memory": {"peak_reserved_bytes": 2**21}, **clocks}
    (table,), (first,) = summary(run(*group(**gpu))), overview(run(*group(**gpu)))
    assert column(table, "host", "busy", "bound by", "reserved")[0] == ("200 us", "100 us", "host", "2.00 MiB")
    assert column(first, "bound by") == ["host"]
    (steps,) = summary(run(*group(scenario="generation", **gpu)))
    assert column(steps, "bound by") == ["host", "host"]
    (both,) = summary(run(*group(memory={"peak_rss_bytes": 2**20}), *group(**gpu)))
    assert column(both, "RSS", "reserved") == [("1.00 MiB", "-")] * 2 + [("-", "2.00 MiB")] * 2


@pytest.mark.parametrize("tables", [overview, summary])
def test_a_run_that_measured_nothing_says_why(tables: Tables) -> None:
    (table,) = tables(Run([], [unmeasured()]))
    assert terminal(table) == "not measured: mlp tiny (inference_mode): unsupported: it cannot"


def test_a_machine_without_the_extras_ends_its_run_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "analysis.charts", raising=False)
    monkeypatch.delattr("analysis.charts", raising=False)
    monkeypatch.setitem(sys.modules, "altair", None)  # as if it were not there
    measured = run(*group())
    lines = ending.lines(measured, [], [saved(tmp_path, measured)])
    assert [line[:6] for line in lines if line.startswith(("table ", "no "))] == ["table ", "no pag"]


def test_figures_are_the_frame_and_the_cases_that_are_not_in_it() -> None:
    whole = figures(run(unmeasured=[unmeasured("frozen")]))
    assert whole[["mode", "status", "reason", "steps", "peak_tensor_bytes"]].to_numpy().tolist() == [
        ["tracked", "measured", "", 1, 10240], ["no_grad", "measured", "", 1, 4096], ["frozen", "unsupported", "it cannot", pd.NA, pd.NA],
    ]  # fmt: skip
