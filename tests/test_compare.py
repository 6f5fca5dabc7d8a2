"""Proves that two runs are joined on the case, that a change is called one only beyond chance, and that what differs is told first."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_group, make_result, saved_run
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from analysis.__main__ import app
from analysis.compare import Comparison, compare, comparison_table, lead, shown
from analysis.load import Run, load
from analysis.pairing import Against, Allowance, CompareError, ratio_of_ratios
from analysis.render import FORMATS
from benchmarks.record import Interval, Memory, ProcessReading, Result, Unmeasured
from benchmarks.statistics import paired_ratio, verdict

QUICK = settings(max_examples=50, deadline=None, derandomize=True, database=None)

HERE = {
    "python_version": "3.11.7", "system": "Linux", "release": "6.1", "cpu": {"brand_raw": "AMD EPYC"},
    "gradtax": {"torch": "2.13.0+cpu", "threads": 1, "allocator_environment": {}, "devices": {"cpu": {"cores": 2}}},
}  # fmt: skip
NEXT = HERE | {"gradtax": HERE["gradtax"] | {"torch": "2.14.0+cpu"}}  # type: ignore[operator]
EXACT = Interval(1.0, 0.9999, 1.0001)


def run(
    folder: Path, name: str, *results: Result, unmeasured: tuple[Unmeasured, ...] = (), machine: Any = HERE, **conditions: Any
) -> Run:
    found = load(saved_run(folder / f"{name}.json", results, unmeasured))
    return replace(found, machine_info=machine, conditions=conditions)


def one(folder: Path, base: list[Result], head: list[Result], **changes: Any) -> Against:
    (part,) = compare(run(folder, "base", *base), [run(folder, "head", *head, **changes)]).parts
    return part


def reading(estimate: float, half: float = 0.001, *, placebo: float = 1.0, **changes: Any) -> list[Result]:
    """tracked and no_grad, which reads `estimate` with an interval of ± `half` as a fraction."""
    speedup = Interval(estimate, estimate / (1 + half), estimate * (1 + half))
    error = Interval(placebo, placebo - 0.001, placebo + 0.001)
    results = [make_result("tracked", placebo=error), make_result(speedup=speedup, verdict=verdict(speedup), placebo=error)]
    return [replace(result, **changes) for result in results]


def no_grad(part: Against) -> dict[str, Any]:
    (row,) = [row for row in part.rows if row["mode"] == "no_grad"]
    return row


@pytest.mark.parametrize(
    ("base", "head", "expected"),
    [
        (reading(1.25), reading(1.20), "slower"),
        (reading(1.20), reading(1.25), "faster"),
        (reading(1.25), reading(1.251), "same"),
        (reading(1.25, 0.05), reading(1.20, 0.05), "unclear"),
        (reading(1.25), reading(1.20, placebo=1.05), "unclear"),
        (reading(1.25, placebo=0.95), reading(1.20), "unclear"),
        (reading(1.25), reading(1.0, trusted=False), "unclear"),
        (reading(1.25, trusted=False), reading(1.0), "unclear"),
    ],
)
def test_a_change_is_called_one_where_intervals_and_placebos_of_both_runs_show_it(
    tmp_path: Path, base: list[Result], head: list[Result], expected: str
) -> None:
    row = no_grad(one(tmp_path, base, head))
    assert row["verdict"] == expected
    assert row["change"] == pytest.approx(row["speedup_head"] / row["speedup_base"])


def test_an_untrusted_change_is_marked_and_the_mark_explained(tmp_path: Path) -> None:
    part = one(tmp_path, reading(1.25), reading(1.0, trusted=False))
    table = comparison_table(Comparison(part.base, [part]))
    assert [row[4] for section in table.sections for row in section.rows] == ["baseline", "unclear?"]
    assert any(note.startswith("?: one of the two groups is untrusted") for note in table.notes)


def test_speedups_from_one_process_say_what_their_intervals_do_not_know(tmp_path: Path) -> None:
    several = [ProcessReading(100, 1e-4, 1.25, 1.0, 0.0)] * 5
    for processes, told in ([], True), (several, False):
        part = one(tmp_path, reading(1.25, processes=processes), reading(1.25, processes=several))
        notes = comparison_table(Comparison(part.base, [part])).notes
        assert any(note.startswith("speedups from one process") for note in notes) == told


def test_half_widths_add_in_quadrature_and_skewed_intervals_stay_skewed() -> None:
    base, head = Interval(1.0, math.exp(-0.01), math.exp(0.03)), Interval(1.2, 1.2 * math.exp(-0.04), 1.2 * math.exp(0.02))
    found = ratio_of_ratios(base, head)
    assert math.log(found.estimate / found.low) == pytest.approx(0.05)
    assert math.log(found.high / found.estimate) == pytest.approx(math.hypot(0.02, 0.01))
    widened = ratio_of_ratios(base, head, error=0.1)
    assert math.log(widened.estimate / widened.low) == pytest.approx(0.15)


def simulated(draws: np.random.Generator, truth: float, spread: tuple[float, float]) -> Interval:
    """An estimate whose log-error is normal with one spread below and another above, and the 99 % interval that knows it."""
    below, above = spread
    centre = draws.normal()
    estimate = truth * math.exp(centre * (above if centre > 0 else below))
    return Interval(estimate, estimate * math.exp(-2.576 * above), estimate * math.exp(2.576 * below))


@pytest.mark.parametrize("spread", [(0.02, 0.02), (0.01, 0.03)])
def test_the_interval_of_the_change_holds_the_truth_in_99_of_100(spread: tuple[float, float]) -> None:
    draws = np.random.default_rng(0)
    held = 0
    for _ in range(4000):
        found = ratio_of_ratios(simulated(draws, 1.3, spread), simulated(draws, 1.1, (0.015, 0.015)))
        held += found.low <= 1.1 / 1.3 <= found.high
    assert 0.985 <= held / 4000 <= 0.995


def test_the_intervals_of_many_cases_hold_together() -> None:
    draws = np.random.default_rng(1)
    runs = [
        [
            ratio_of_ratios(simulated(draws, 1.2, (0.05, 0.05)), simulated(draws, 1.2, (0.05, 0.05)), comparisons=72)
            for _ in range(72)
        ]
        for _ in range(300)
    ]
    missed = sum(any(not found.low <= 1 <= found.high for found in cases) for cases in runs)
    assert missed <= 9  # 1 % of 300 is 3


@pytest.mark.parametrize(("rounds", "repeats", "found"), [(30, 200, 0.05), (300, 200, 0.2), (4000, 30, 0.99)])
def test_a_change_of_1_percent_in_noise_of_5_is_never_read_the_other_way(rounds: int, repeats: int, found: float) -> None:
    """Each lane's rounds carry 5 % of noise; in head the mode takes 1 % longer. With few rounds it cannot be told, with many it is."""
    draws = np.random.default_rng(rounds)
    changes = []
    for _ in range(repeats):
        base_tracked, base, head_tracked, head = (
            draws.lognormal(math.log(seconds), 0.05, rounds).tolist() for seconds in (1.2, 1.0, 1.2, 1.01)
        )
        changes.append(ratio_of_ratios(paired_ratio(base_tracked, base), paired_ratio(head_tracked, head)))
    verdicts = [verdict(change) for change in changes]
    assert verdicts.count("faster") <= 0.01 * repeats
    shown_lower = sum(change.high < 1 for change in changes) / repeats
    assert shown_lower >= found if found > 0.5 else shown_lower <= found


def test_memory_changes_are_exact_bytes_and_resident_memory_has_its_meters_tolerance(tmp_path: Path) -> None:
    def with_memory(peak: int, rss: int | None) -> list[Result]:
        return [make_result(memory=Memory(peak, 4096, 0, rss, None, "kernel"))]

    row = no_grad(one(tmp_path, with_memory(4096, 10 * 2**20), with_memory(4104, 10 * 2**20 + 700_000)))
    assert (row["peak_tensor_bytes_change"], row["peak_rss_bytes_change"], row["saved_bytes_change"]) == (8, 700_000, 0)
    part = one(tmp_path, with_memory(4096, 10 * 2**20), with_memory(4104, 10 * 2**20 + 700_000))
    assert "peak memory: 1 more; held, saved, RSS memory: unchanged in all" in lead(part)[0]
    assert "RSS memory: 1 more" in lead(one(tmp_path, with_memory(0, 10 * 2**20), with_memory(0, 12 * 2**20)))[0]
    assert "RSS memory: 1 less" in lead(one(tmp_path, with_memory(0, 12 * 2**20), with_memory(0, 10 * 2**20)))[0]
    assert "RSS memory: 1 no longer measured" in lead(one(tmp_path, with_memory(0, 12 * 2**20), with_memory(0, None)))[0]


@QUICK
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.floats(0, 1), st.integers(0, 2**30))
def test_what_an_allowance_allows_it_allows_of_less(base: int, head: int, fraction: float, size: int) -> None:
    allowance = Allowance(fraction, size)
    assert allowance.allows(base, min(base, head))
    assert allowance.allows(base, head) or head > base


def test_cases_that_came_and_went_are_told_with_what_became_of_them(tmp_path: Path) -> None:
    def lost(model: str, reason: str) -> Unmeasured:
        return Unmeasured(make_result(case={"model": model}).case, "crashed", reason)

    base = run(tmp_path, "base", *make_group(), *make_group(model="gone"), make_result(case={"model": "broke"}),
        unmeasured=(lost("healed", "once"), lost("never", "x")))  # fmt: skip
    head = run(tmp_path, "head", *make_group(), *make_group(model="came"), make_result(case={"model": "healed"}),
        unmeasured=(lost("broke", "exit\ncode -9"), lost("never", "x")))  # fmt: skip
    (part,) = compare(base, [head]).parts
    assert [(one.case.model, one.status, one.reason) for one in part.absent] == [
        ("gone", "vanished", ""),
        ("gone", "vanished", ""),
        ("broke", "newly unmeasured", "crashed: exit code -9"),
        ("came", "new", ""),
        ("came", "new", ""),
        ("healed", "newly measured", ""),
    ]
    assert lead(part)[0].endswith("; cases: 2 vanished, 1 newly unmeasured, 1 newly measured, 2 new")
    notes = comparison_table(Comparison(base, [part])).notes
    assert "base -> head: vanished: forward gone tiny cpu float32 resident tracked,no_grad" in notes
    assert "base -> head: newly unmeasured: forward broke tiny cpu float32 resident no_grad (crashed: exit code -9)" in notes


def test_what_differs_between_the_machines_and_settings_is_told_in_a_line_each(tmp_path: Path) -> None:
    base = run(tmp_path, "base", *make_group(), budget_seconds=4.0, load_average_at_start=0.5, wall_seconds=1.0)
    head = run(tmp_path, "head", *make_group(), machine=NEXT, budget_seconds=0.5, load_average_at_start=2.25, wall_seconds=2.0)
    assert compare(base, [head]).parts[0].differences == [
        "torch  2.13.0+cpu -> 2.14.0+cpu",
        "budget_seconds  4 -> 0.5",
        "load at the start  0.5 -> 2.25",
    ]
    assert compare(base, [base]).parts[0].differences == []


def test_seconds_stand_side_by_side_only_where_machine_and_threads_agree(tmp_path: Path) -> None:
    base = run(tmp_path, "base", *make_group())
    faster = [replace(result, seconds=result.seconds / 2) for result in make_group()]
    others = {
        "threads": HERE | {"gradtax": HERE["gradtax"] | {"threads": 2}},  # type: ignore[operator]
        "device cuda name": HERE | {"gradtax": HERE["gradtax"] | {"devices": {"cuda": {"name": "H200"}}}},  # type: ignore[operator]
        "CPU": HERE | {"cpu": {"brand_raw": "Xeon"}},
    }
    for reason, machine in others.items():
        (part,) = compare(base, [run(tmp_path, "head", *faster, machine=machine)]).parts
        assert part.other_machine is not None
        assert reason in part.other_machine
        assert [row["seconds_ratio"] for row in part.rows] == [None, None]
        assert lead(part)[-1].startswith("seconds  not compared")
    (part,) = compare(base, [run(tmp_path, "head", *faster, machine=NEXT)]).parts
    assert [row["seconds_ratio"] for row in part.rows] == [0.5, 0.5]
    assert lead(part)[-1].startswith("seconds  an indication only")
    assert compare(run(tmp_path, "unknown", *make_group(), machine={}), [base]).parts[0].other_machine is not None


def test_a_case_whose_model_is_another_by_now_is_told(tmp_path: Path) -> None:
    grown = [replace(result, model=replace(result.model, parameters=1)) for result in make_group()]
    assert "not the same work, for parameters or inputs differ  mlp tiny" in lead(one(tmp_path, make_group(), grown))


def test_cpu_and_gpu_are_joined_on_the_rest_of_the_case_where_that_is_asked_for(tmp_path: Path) -> None:
    cpu = run(tmp_path, "cpu", *make_group(), *make_group(allocator="default"))
    gpu = run(tmp_path, "gpu", *make_group(device="cuda"))
    assert compare(cpu, [gpu]).parts[0].rows == []
    (part,) = compare(cpu, [gpu], across="device").parts
    assert [(row["mode"], row["device"]) for row in part.rows] == [("tracked", "cpu -> cuda"), ("no_grad", "cpu -> cuda")]
    assert {one.status for one in part.absent} == {"vanished"}
    assert lead(part)[0].startswith("cpu -> gpu, device cpu -> cuda: speedup: 0 of 1")
    both = run(tmp_path, "both", *make_group(), *make_group(device="cuda"))
    assert len(compare(both, [both], across="device=cpu:cuda").parts[0].rows) == 2
    for across, words in {
        "device": "has the devices cpu, cuda; choose with --across device=BASE:HEAD",
        "device=cpu:tpu": "has the devices cpu, cuda",
        "device=cpu": "expected device or device=BASE:HEAD",
        "speed": "choose from scenario, model, size, device, dtype, allocator, mode",
    }.items():
        with pytest.raises(CompareError, match=words):
            compare(both, [both], across=across)


def constructed(folder: Path) -> Comparison:
    """A run in which one case got slower, one faster, one grew, and two stayed."""

    def results(slow: float, fast: float, peak: int) -> list[Result]:
        readings = {"slow": slow, "fast": fast, "grown": 1.25, "same": 1.25}
        return [
            make_result(mode, case={"model": model}, placebo=EXACT, memory=Memory(peak if model == "grown" else 4096, 0, 0, 0), **figures)
            for model, speedup in readings.items()
            for mode, figures in (
                ("tracked", {}), ("no_grad", {"speedup": Interval(speedup, speedup - 0.001, speedup + 0.001), "verdict": "faster"}),
            )
        ]  # fmt: skip

    return compare(
        run(folder, "0007", *results(1.25, 1.1, 4096)), [run(folder, "0008", *results(1.15, 1.2, 8192), machine=NEXT)]
    )


def test_the_terminal_shows_the_answer_then_the_differences_then_the_worst_change_first(tmp_path: Path) -> None:
    expected = """\
0007 -> 0008: speedup: 2 of 4 cases changed: 1 slower, 1 faster, 2 same; peak memory: 2 more; held,
  saved, RSS memory: unchanged in all
torch  2.13.0+cpu -> 2.14.0+cpu
seconds  an indication only, for the two runs are not from the same rounds

                     speedup
  case               in base in head       change verdict      peak held saved RSS         per call

0007 -> 0008: changed, the worst first
  grown tiny tracked       1       1            - baseline +4,096 B    0     0   0 125 us -> 125 us
  grown tiny no_grad  1.2500  1.2500 1.000 ±0.001 same     +4,096 B    0     0   0 100 us -> 100 us
  slow tiny no_grad   1.2500  1.1500 0.920 ±0.001 slower          0    0     0   0 100 us -> 100 us
  fast tiny no_grad   1.1000  1.2000 1.091 ±0.002 faster          0    0     0   0 100 us -> 100 us

0007 -> 0008: 4 cases in which no change shows: 1 same
  known to ±0.1 % in the median case, ±0.1 % in the worst

change: head's speedup over base's; its ± holds for all cases together with 99 %, and on top what
  the placebos read
slower: the mode gains less than it did, because it got slower or because tracked got faster
speedups from one process: another one can shift them by a few per cent, which no interval here
  knows of; `pytest --benchmark --processes 5` includes it
memory: bytes of head minus base; a byte counts as a change; RSS beyond 4.0 % + 512 KiB"""
    assert shown(constructed(tmp_path), "terminal") == expected


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_every_case_of_several_heads(tmp_path: Path, name: str) -> None:
    first = constructed(tmp_path)
    text = shown(Comparison(first.base, [*first.parts, *first.parts]), name)
    if name in ("csv", "json"):
        rows = json.loads(text) if name == "json" else text.splitlines()[1:]
        assert len(rows) == 16
    elif name != "terminal":
        assert text.count("same") >= 4
        assert text.count("2.14.0+cpu") == 2


def test_machines_get_both_ends_of_the_change_and_what_became_of_absent_cases(tmp_path: Path) -> None:
    part = one(tmp_path, [*reading(1.25), make_result("frozen")], reading(1.2))
    rows = json.loads(shown(Comparison(part.base, [part]), "json"))
    by_mode = {row["mode"]: row for row in rows}
    assert by_mode["no_grad"]["change_low"] < 0.96 < by_mode["no_grad"]["change_high"]
    assert (by_mode["frozen"]["status"], by_mode["frozen"]["change"], by_mode["no_grad"]["status"]) == (
        "vanished",
        None,
        "compared",
    )
    assert all(list(row) == list(rows[0]) for row in rows)


@QUICK
@given(st.lists(st.text(min_size=1, max_size=80).filter(str.strip), min_size=1, max_size=3, unique=True), st.floats(1e-3, 3))
def test_no_name_and_no_odd_figure_breaks_a_comparison(names: list[str], estimate: float) -> None:
    import tempfile

    speedup = Interval(estimate, estimate, estimate)
    results = [make_result(case={"model": name, "size": "own"}, speedup=speedup, placebo=None) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        saved = load(saved_run(Path(folder) / "x.json", results))
    found = compare(saved, [saved])
    for name in FORMATS:
        shown(found, name)
    assert len(found.parts[0].rows) == len(names)


def analysis(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, ["compare", *arguments])


def test_the_command_prints_what_the_function_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, head = (saved_run(Path(name), reading(value)) for name, value in (("base.json", 1.25), ("head.json", 1.2)))
    for name in FORMATS:
        done = analysis("base.json", "head.json", "--format", name)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == shown(compare(load(base), [load(head)]), name) + "\n"
