"""Proves that scenarios with steps and single operators have tables of their own, below that of the forward passes."""

from __future__ import annotations

import json
from typing import Any

from builders import make_group, make_result

from analysis.render import rendered
from analysis.tables import summary_tables
from benchmarks.record import Case, Contract, Interval, Memory, Result, Unmeasured, tidy_rows


def make(scenario: str, mode: str, speedup: Interval | None = None, *, model: str = "mlp", **changes: Any) -> Result:
    speedup = speedup or Interval(1.0, 1.0, 1.0)
    words: dict[str, Any] = (
        {"speedup": speedup, "verdict": "baseline"} if mode == "tracked" else {"speedup": speedup, "verdict": "faster"}
    )
    return make_result(mode, case={"scenario": scenario, "model": model}, **words | changes)


LOGGING = [
    make("loss_logging", "tracked", seconds=1.2e-3, steps=8, memory=Memory(67608, 65540, 65536, held_bytes_per_step=8192)),
    make("loss_logging", "item", Interval(1.2, 1.19, 1.21), seconds=1e-3, steps=8, memory=Memory(18452, 4, 65536, held_bytes_per_step=0)),
]  # fmt: skip
STEP = [make("training_step", "tracked", seconds=500e-6, memory=Memory(1118216, 4, 262144))]
OPERATORS = [
    make("operators", "tracked", seconds=200e-6, steps=100, model="elementwise"),
    make("operators", "no_grad", Interval(1.25, 1.24, 1.26), seconds=160e-6, steps=100, model="elementwise"),
    make("operators", "tracked", seconds=10e-6, steps=100, model="context"),
    make("operators", "no_grad", Interval(0.05, 0.049, 0.051), seconds=200e-6, steps=100, model="context"),
    make("operators", "tracked", seconds=300e-6, steps=100, model="lonely"),
]


def text(*results: Result, format_: str = "terminal") -> str:
    return rendered(summary_tables(tidy_rows(results)), format_)


def test_steps_and_operators_stand_below_the_forward_passes_and_the_notes_at_the_end() -> None:
    expected = """\
  mode     per call     speedup  verdict       peak  ratio     saved       RSS

mlp tiny   forward, cpu, float32, resident   16,640 parameters, float32[8, 64]
  tracked  125.0 us           1  baseline  10.0 KiB   1.00  8.00 KiB  4.00 KiB
  no_grad  100.0 us  1.25 ±0.01  faster    4.00 KiB   0.40       0 B       0 B

                                                                                          held per
  mode     per call  per step     speedup  verdict       peak  ratio     saved      held      step

mlp tiny   loss_logging, cpu, float32, resident, 8 steps a call   16,640 parameters, float32[8, 64]
  tracked  1.200 ms  150.0 us           1  baseline  66.0 KiB   1.00  64.0 KiB  64.0 KiB  8.00 KiB
  item     1.000 ms    125 us  1.20 ±0.01  faster    18.0 KiB   0.27  64.0 KiB       4 B       0 B

mlp tiny   training_step, cpu, float32, resident   16,640 parameters, float32[8, 64]
  tracked    500 us         -           1  baseline  1.07 MiB   1.00   256 KiB       4 B         -

  operator      tracked  no_grad        tracking

time per operator   operators, cpu, float32, resident
  elementwise  2.000 us  1.60 us      400 ±10 ns
  context      100.0 ns  2.00 us  -1.90 ±0.04 us
  lonely        3.00 us        -               -

measured: forward, loss_logging, operators, training_step; cpu; float32; resident
speedup: tracked's time over the mode's, ± the wider half of its 99 % interval; above 1: faster
ratio: peak tensor memory over tracked's; saved: kept for backward; RSS: what the process grew by
held: tensor memory with the output alive; per step: what it grows by with each further step of a
  call
tracking: tracked's time less no_grad's; context: a mode entered and left around nothing, tracked
  the bare loop
placebo (identical code, 1 by construction): off by 0.1 % in the median group, 0.1 % in the worst
  (operators elementwise tiny)
a tracked forward pass of a training step, roughly (not paired): mlp tiny 25 %"""
    assert text(*OPERATORS, *make_group(), *LOGGING, *STEP) == expected


def test_the_formats_for_machines_hold_every_row_of_every_table_once() -> None:
    missing = Unmeasured(Case("operators", "mlp", "tiny", "cpu", "float32", "resident", "detach"), "crashed", "died")
    results = [*make_group(), *LOGGING, *OPERATORS]
    found = json.loads(rendered(summary_tables(tidy_rows(results), [missing]), "json"))
    assert len(found) == len(results) + 1
    assert [row["seconds_per_step"] for row in found if row["scenario"] == "loss_logging"] == [150e-6, 125e-6]


def test_a_run_without_forward_passes_has_no_table_of_them() -> None:
    assert "RSS" not in text(*LOGGING)
    assert len(summary_tables(tidy_rows(OPERATORS))) == 1


def test_an_empty_run_is_a_table_without_rows() -> None:
    assert text() == ""


def test_buffers_that_a_mode_changes_and_tracked_does_not_are_named() -> None:
    contract = Contract(holds=True, changed_buffers=["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"])
    forgot = make("evaluation", "forgot_eval", contract=contract)
    note = "forgot_eval: 3 buffers changed by a call (norm.running_mean, norm.running_var, ...)"
    assert note in text(make("evaluation", "tracked"), forgot)
    assert "changed by a call" not in text(make("evaluation", "tracked", contract=contract), forgot)


def test_a_forward_pass_is_told_as_a_fraction_of_a_training_step() -> None:
    assert "a tracked forward pass of a training step, roughly (not paired): mlp tiny 25 %" in text(*make_group(), *STEP)
    assert "training step, roughly" not in text(*STEP)
