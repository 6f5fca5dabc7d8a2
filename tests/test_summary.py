"""Proves that the summary shows what tracking costs by both allocators in one line per mode, or by the one there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_group, make_timings
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.render import FORMATS, Table, json_list, terminal
from analysis.summary import summary_table
from benchmarks.record import Interval, Memory, Result, Unmeasured, tidy_rows

QUICK = settings(max_examples=50, deadline=None, derandomize=True, database=None)

MEMORY = Memory(18 * 2**20, 1, 17 * 2**20, 12 * 2**20)
ALONE = make_timings(
    "resident", 16e-3, {"no_grad": Interval(1.07, 1.06, 1.08), "detach": Interval(0.997, 0.992, 1.002)}, {}, model="convnet", memory=MEMORY
)  # fmt: skip
SHIPPED = make_timings(
    "default", 33e-3, {"no_grad": Interval(0.81, 0.79, 0.84), "detach": Interval(1.00, 0.98, 1.03)},
    {"tracked": 6112.0, "no_grad": 8096.4, "detach": 6112.3}, model="convnet", memory=MEMORY, trusted=False, placebo=Interval(1.04, 1.02, 1.06),
)  # fmt: skip


def table(*results: Result, unmeasured: tuple[Unmeasured, ...] = ()) -> Table:
    return summary_table(tidy_rows(results), unmeasured)


def test_both_speedups_stand_side_by_side_with_the_page_faults() -> None:
    expected = """\
                       tracking
  mode    per call        alone verdict  as shipped verdict  faults     peak ratio    saved      RSS

convnet tiny   forward, cpu, float32   16,640 parameters, float32[8, 64]
  UNTRUSTED as shipped: identical code read 1.04 [1.02, 1.06] instead of 1
  tracked 16.00 ms            1 baseline          1 baseline  6,112 18.0 MiB  1.00 17.0 MiB 12.0 MiB
  no_grad  15.0 ms   1.07 ±0.01 faster   0.81 ±0.03 slower?   8,096 18.0 MiB  1.00 17.0 MiB 12.0 MiB
  detach  16.05 ms 0.997 ±0.005 same     1.00 ±0.03 unclear?  6,112 18.0 MiB  1.00 17.0 MiB 12.0 MiB

measured: forward; cpu; float32; resident, default
speedup: tracked's time over the mode's, ± the wider half of its 99 % interval; above 1: faster
tracking alone: per call and speedup while the allocator keeps its pages (resident)
as shipped: with the allocator left as it is, a process per mode (default)
faults: page faults per call, part of the time as shipped
ratio: peak tensor memory over tracked's; saved: kept for backward; RSS: what the process grew by
placebo (identical code, 1 by construction): tracking alone off by 0.1 %; as shipped off by 4.0 %
verdict?: the group is untrusted, its speedups are no evidence (convnet tiny as shipped)
left out to fit 100 columns: as shipped per call; the other formats show everything"""
    assert terminal(table(*ALONE, *SHIPPED)) == expected


def test_with_one_allocator_the_other_has_no_columns_and_the_heading_names_the_one() -> None:
    def titles(results: list[Result]) -> list[str]:
        return [column.title for column in table(*results).columns]

    memory = ["peak", "ratio", "saved", "RSS"]
    assert titles(ALONE) == ["mode", "per call", "speedup", "verdict", *memory]
    assert titles(SHIPPED) == ["mode", "per call", "speedup", "verdict", "faults", *memory]
    assert "forward, cpu, float32, resident " in terminal(table(*ALONE))
    assert "forward, cpu, float32, default " in terminal(table(*SHIPPED))
    assert "\n  UNTRUSTED: identical code" in terminal(table(*SHIPPED))


@QUICK
@given(st.permutations([*ALONE, *SHIPPED, *make_group(model="lstm")]))
def test_rows_of_both_allocators_meet_in_one_line_wherever_they_stand(results: list[Result]) -> None:
    shuffled = table(*results)
    assert [section.key[1] for section in shuffled.sections] == list(dict.fromkeys(result.case.model for result in results))
    lines = {tuple(row) for section in shuffled.sections for row in section.rows}
    assert lines == {
        tuple(row) for section in table(*ALONE, *SHIPPED, *make_group(model="lstm")).sections for row in section.rows
    }
    assert len(lines) == 5


def test_what_one_allocator_lacks_is_a_dash_and_the_reason_stands_below() -> None:
    lost = Unmeasured(SHIPPED[1].case, "timed_out", "3 rounds in 300 s")
    shown = table(*ALONE, SHIPPED[0], unmeasured=(lost,))
    assert shown.sections[0].rows[1][1:8] == ["15.0 ms", "1.07 ±0.01", "faster", "-", "-", "-", "-"]
    assert "not measured: forward convnet tiny cpu float32 default no_grad: timed_out: 3 rounds in 300 s" in shown.notes
    first = table(*ALONE[:1], *SHIPPED)
    assert first.sections[0].rows[2] == [
        "detach",
        "-",
        "-",
        "-",
        "33.0 ms",
        "1.00 ±0.03",
        "unclear?",
        "6,112",
        *shown.sections[0].rows[2][8:],
    ]


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex"])
def test_only_the_allocator_that_is_untrusted_is_marked(name: str) -> None:
    text = FORMATS[name](table(*ALONE, *SHIPPED))
    (line,) = [line for line in text.splitlines() if re.search(r"\bno\\?_grad\b.*0\.81", line)]
    assert re.findall(r"(?:faster|slower)\??", line) == ["faster", "slower?"]
    assert "its speedups are no evidence (convnet tiny as shipped)" in text


def test_machines_get_a_row_per_case_and_allocator_with_both_ends_of_each_interval() -> None:
    rows = json.loads(json_list(table(*ALONE, *SHIPPED)))
    assert [(row["allocator"], row["mode"]) for row in rows] == [
        (name, mode) for name in ("resident", "default") for mode in ("tracked", "no_grad", "detach")
    ]
    assert (rows[4]["speedup_low"], rows[4]["speedup_high"], rows[4]["page_faults"]) == (0.79, 0.84, 8096.4)


def test_the_table_needs_no_pandas() -> None:
    code = "import sys, analysis.summary; print({'pandas', 'torch'} & set(sys.modules))"
    root = Path(__file__).parent.parent
    found = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout == "set()\n"
