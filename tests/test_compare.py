"""Two runs are joined on the case, a change is called one only beyond chance, and what was lost is never among the unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import group, result, run, unmeasured

from analysis.compare import compare, gate_lines, limits_of, regressions, tables
from analysis.read import AnalysisError, Run
from benchmarks import intervals
from benchmarks.record import Interval, ProcessReading, Result

CASES, PROCESSES = 60, 8


def about(speedup: float, half: float = 0.001) -> Interval:
    return Interval(speedup, speedup / (1 + half), speedup * (1 + half))


def changes_of(base: list[Result], head: list[Result], **changes: Any) -> pd.DataFrame:
    return compare(run(*base), run(*head, name="0002", **changes))


def headline(changes: pd.DataFrame) -> str:
    return tables(run(), run(), changes)[0].notes[0]


def gated(changes: pd.DataFrame, *allow: str) -> list[str]:
    """What the gate says of each regression, then of all."""
    return gate_lines(changes, regressions(changes, limits_of(allow)))


@pytest.mark.parametrize(
    ("base", "head", "changed"),
    [
        (about(1.25), about(1.20), "slower"),
        (about(1.20), about(1.25), "faster"),
        (about(1.25), about(1.251), "same"),
        (about(1.25, 0.05), about(1.20, 0.05), "unclear"),
        (about(1.25), about(1.25, 0.5), "unclear"),
    ],
)
def test_a_speedup_changed_where_the_whole_interval_of_the_quotient_shows_it(
    base: Interval, head: Interval, changed: str
) -> None:
    (row,) = changes_of([result(speedup=base)], [result(speedup=head)]).to_dict("records")
    assert (row["changed"], row["change"]) == (changed, pytest.approx(head.estimate / base.estimate))


def test_a_group_whose_control_failed_in_either_run_is_not_judged_and_that_is_said() -> None:
    good, bad = [result(speedup=1.25)], [result(speedup=0.5, trusted=False)]
    for base, head in ((good, bad), (bad, good)):
        changes = changes_of(base, head)
        assert changes["changed"].tolist() == ["untrusted"]
        assert gated(changes) == [
            "not judged: 1 speedup of groups whose control failed in either run",
            "gate: nothing regressed (1 case compared)",
        ]
        (opening,) = tables(run(), run(), changes)
        assert "1 case: not judged, the control of a group failed in either run" in opening.notes


def test_neither_tracked_nor_a_context_around_nothing_has_a_speedup_that_could_change() -> None:
    base, head = ([*group({"no_grad": ratio}, scenario="operators", model="context"), result("tracked")] for ratio in (2, 0.5))
    assert changes_of(base, head)["change"].isna().all()


def test_each_case_that_came_or_went_says_what_became_of_it() -> None:
    base = [result(model="once"), result(model="once", allocator="as_shipped"), *group(model="gone"), result(model="broke")]
    head = [result(model="once"), *group(model="came")]
    lost = [unmeasured("no_grad", "crashed", "exit code -9", model="broke"), unmeasured("no_grad", model="never")]
    changes = changes_of(base, head, unmeasured=lost)
    assert changes[["model", "allocator", "mode", "status", "reason"]].to_numpy().tolist() == [
        ["broke", "pages_kept", "no_grad", "no longer measured", "crashed: exit code -9"],
        ["came", "pages_kept", "no_grad", "new", ""],
        ["came", "pages_kept", "tracked", "new", ""],
        ["gone", "pages_kept", "no_grad", "vanished", ""],
        ["gone", "pages_kept", "tracked", "vanished", ""],
        ["once", "as_shipped", "no_grad", "covered", ""],
        ["once", "pages_kept", "no_grad", "compared", ""],
    ]
    assert headline(changes).endswith("; 2 cases vanished; 1 case no longer measured; 2 cases new")
    assert gated(changes) == [
        "regressed: broke tiny pages_kept no_grad: case no longer measured crashed: exit code -9 (allowed: only with --allow vanished)",
        "regressed: gone tiny pages_kept no_grad: case vanished (allowed: only with --allow vanished)",
        "regressed: gone tiny pages_kept tracked: case vanished (allowed: only with --allow vanished)",
        "gate: 3 regressions (1 case compared)",
    ]
    assert gated(changes, "vanished") == ["gate: nothing regressed (1 case compared)"]


def test_a_figure_that_is_no_longer_measured_is_a_loss_and_not_unchanged() -> None:
    head = [result(speedup=None, memory={"held_tensor_bytes": None})]
    changes = changes_of([result()], head)
    assert "figures no longer measured in 1 case" in headline(changes)
    assert "speedups" not in headline(changes)
    assert "mlp tiny no_grad: speedup, held_tensor_bytes no longer measured" in gated(changes)[0]
    (_, table) = tables(run(), run(), changes)
    assert (table.title, table.rows) == (
        "No longer there",
        [["mlp tiny", "no_grad", "speedup, held_tensor_bytes", "no longer measured"]],
    )
    for harmless in (gated(changes, "vanished"), gated(changes_of(head, [result()]))):
        assert harmless == ["gate: nothing regressed (1 case compared)"]


def test_bytes_are_compared_to_the_byte_and_once_for_both_allocators() -> None:
    def measured(peak: int) -> list[Result]:
        return [result(memory={"peak_tensor_bytes": peak}, allocator=name) for name in ("pages_kept", "as_shipped")]

    changes = changes_of(measured(2**60), measured(2**60 + 1))
    assert regressions(changes)["change"].tolist() == ["+1 B"]
    assert "peak memory: 1 more, 0 less" in headline(changes)
    assert "memory: not a byte changed" in headline(changes_of(measured(1), measured(1)))


@pytest.mark.parametrize(
    ("head", "allow", "fails"),
    [
        ({}, (), False),
        ({"speedup": about(1.23)}, (), True),
        ({"speedup": about(1.23)}, ("speedup=2%",), False),
        ({"speedup": about(1.22)}, ("speedup=2%",), True),
        ({"speedup": about(1.24)}, (), False),
        ({"speedup": about(1.24)}, ("speedup=0%",), True),
        ({"speedup": about(1.4)}, (), False),
        ({"memory": {"peak_tensor_bytes": 4095}}, (), False),
        ({"memory": {"peak_tensor_bytes": 4097}}, ("saved_bytes=1",), True),
        ({"memory": {"peak_tensor_bytes": 4097}}, ("peak_tensor_bytes=1",), False),
        ({"memory": {"peak_tensor_bytes": 4098}}, ("peak_tensor_bytes=1B",), True),
        ({"memory": {"held_tensor_bytes": 4505}}, ("held_tensor_bytes=10%",), False),
        ({"memory": {"held_tensor_bytes": 4506}}, ("held_tensor_bytes=10%",), True),
        ({"memory": {"saved_bytes": 2**20}}, ("saved_bytes=1MiB",), False),
        ({"memory": {"saved_bytes": 2**20 + 1}}, ("saved_bytes=1 MiB",), True),
    ],
)
def test_what_is_allowed_passes_and_what_is_more_does_not(head: dict[str, Any], allow: tuple[str, ...], fails: bool) -> None:
    changes = changes_of([result(speedup=about(1.25))], [result(**{"speedup": about(1.25), **head})])
    assert len(regressions(changes, limits_of(allow))) == fails


def test_a_regression_is_told_with_its_figures_and_what_was_allowed() -> None:
    changes = changes_of([result(speedup=about(1.25))], [result(speedup=about(1.2), memory={"peak_tensor_bytes": 4104})])
    assert gated(changes, "speedup=2%") == [
        "regressed: mlp tiny no_grad: speedup 1.250 ±0.001 -> 1.200 ±0.001 0.960 ±0.001 (allowed: 2.0 %)",
        "regressed: mlp tiny no_grad: peak_tensor_bytes 4.00 KiB -> 4.01 KiB +8 B (allowed: 0 B)",
        "gate: 2 regressions (1 case compared)",
    ]
    assert gated(changes, "speedup=0%")[0].endswith("(allowed: 0.0 %)")


@pytest.mark.parametrize(
    "text",
    ["speed=2%", "", "speedup", "speedup=fast", "speedup=2", "speedup=1MiB", "saved_bytes=-1", "saved_bytes", "vanished=1"],
)
def test_a_mistyped_allowance_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(AnalysisError, match=r"choose from speedup=AMOUNT, peak_tensor_bytes=|a percentage such as 5%") as error:
        limits_of([text])
    assert str(error.value).startswith(f"--allow {text}: ")


@pytest.mark.parametrize("head", [[], [result(device="cuda")], [result(model="lstm")]])
def test_runs_with_nothing_in_common_cannot_be_judged(head: list[Result]) -> None:
    with pytest.raises(AnalysisError, match="no case is in both runs"):
        regressions(compare(run(), Run(head)))


def simulated(draws: np.random.Generator, spreads: Sequence[float] | np.ndarray[Any, Any], loss: float = 1.0) -> Run:
    """A run of CASES cases, each read by PROCESSES processes with normal noise of its spread; the first gives `loss` of what it should."""
    results = []
    for number, spread in enumerate(spreads):
        truth = 1.2 * (loss if number == 0 else 1.0)
        readings = truth * np.exp(draws.normal(0, spread, PROCESSES))
        processes = [ProcessReading(index % 4, 60, 1e-4, float(reading), 1.0) for index, reading in enumerate(readings)]
        results.append(result(speedup=intervals.across(readings.tolist()), model=f"m{number:02}", processes=processes))
    return run(*results)


def test_two_runs_of_one_commit_do_not_fail_the_gate_and_a_true_loss_of_10_percent_does_alone() -> None:
    """Noise of 1 to 3 % between processes; the second of three runs of one commit is ten times quieter than the others."""
    draws = np.random.default_rng(7)
    for _ in range(4):
        spreads = draws.uniform(0.01, 0.03, CASES)
        before, quiet, after = simulated(draws, spreads), simulated(draws, spreads / 10), simulated(draws, spreads)
        assert regressions(compare(before, quiet)).empty
        assert regressions(compare(quiet, after)).empty
        assert regressions(compare(before, simulated(draws, spreads, loss=0.9)))["case"].tolist() == ["m00 tiny"]


def test_the_headline_stands_first_then_time_and_bytes_apart_each_with_the_worst_first() -> None:
    def measured(slow: float, slower: float, faster: float, peak: int) -> list[Result]:
        ratios = {"slow": about(slow), "slower": about(slower), "faster": about(faster), "wide": about(slower, 0.01)}
        same = result(speedup=about(1.25), model="same", memory={"peak_tensor_bytes": peak})
        return [*(result(speedup=ratio, model=model) for model, ratio in ratios.items()), same]

    base, head = run(*measured(1.25, 1.25, 1.25, 8), name="0007"), run(*measured(1.2, 1.0, 1.3, 16), name="0008", commit="f00")
    base = replace(base, machine={**base.machine, "gradtax": {"torch": "2.14.0"}})
    opening, speedups, memory = tables(base, head, compare(base, head))
    assert opening.notes[:4] == [
        "0007 -> 0008: 5 cases compared; speedups: 3 lower, 1 higher, no change shown in 1; peak memory: 1 more, 0 less",
        "commit: abcdef12 -> f00",
        "torch: 2.14.0 -> 2.13.0",
        "threads: - -> 1",
    ]
    assert opening.notes[-1].startswith("a loss shows from 1.1 % on in the median case, from 2.4 % on in the worst")
    assert (speedups.title, memory.title) == (
        "Speedups that changed, the worst first",
        "Memory that changed, the worst first",
    )
    assert [row[0].split()[0] for row in speedups.rows] == ["slower", "wide", "slow", "faster"]
    assert memory.rows == [["same tiny", "no_grad", "peak_tensor_bytes", "8 B", "16 B", "+8 B"]]


def test_what_limits_a_comparison_is_said() -> None:
    single = [ProcessReading(0, 60, 1e-4, 1.25, 1.0)]
    other = replace(result().model, parameters=1)
    (opening,) = tables(run(), run(), changes_of([result(processes=single)], [result(model=other)]))
    assert "speedups of a single process: another launch may shift them by more than their intervals say" in opening.notes
    assert "1 case: not the same work, parameters or inputs differ" in opening.notes
