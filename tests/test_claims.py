"""Each statement's verdict follows from columns and broken promises, never from the words of a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import group, result, run, unmeasured

from analysis.claims import BY_GUIDE, claims, tables
from analysis.read import Run
from analysis.render import terminal
from benchmarks.record import Interval, Result, Unmeasured

LEVEL = Interval(1.0, 0.996, 1.004)


def claimed(*results: Result, unmeasured: list[Unmeasured] | None = None) -> dict[str, tuple[str, str]]:
    """Verdict and evidence by claim."""
    cells = claims(run(*results, unmeasured=unmeasured or []))
    return {claim: (verdict, evidence) for claim, _, verdict, evidence in cells.to_numpy().tolist()}


def measured(*speedups: float | Interval, **changes: Any) -> list[Result]:
    """Groups of models a, b, ..., each with no_grad and a detach that lowers nothing."""
    tracked_memory = result("tracked").memory
    return [
        one
        for model, speedup in zip("abcdef", speedups, strict=False)
        for one in (
            *group({"no_grad": speedup}, model=model, **changes),
            result("detach", 0.97, model=model, memory=tracked_memory, **changes),
        )
    ]


def test_every_verdict_comes_from_what_the_run_measured_and_its_evidence_fits_a_terminal() -> None:
    """What was found out once for both allocators counts once."""
    made = [*measured(1.2, 1.3), *measured(1.1, scenario="evaluation"), *measured(1.2, 1.3, allocator="as_shipped")]
    assert claimed(*made) == {
        "G1": ("holds (2)", "peak 10.0 KiB, no_grad 4.00 KiB"),
        "G2": ("holds (2)", "no_grad 1.249 ±0.009"),
        "G3": ("holds (4)", "no grad_fn, so nothing to go along"),
        "G4": ("holds (2)", "gradients on again after each call"),
        "G5": ("holds (2)", "no grad_fn, nothing kept"),
        "G6": BY_GUIDE,
        "G7": BY_GUIDE,
        "G8": ("holds (1)", "saved 8.00 KiB, no_grad 0 B"),
        "G9": ("holds (2)", "no grad_fn"),
        "G10": ("holds (2)", "peaks lowered: no_grad 2, detach 0"),
    }
    (table,) = tables(run(*made))
    assert "…" not in terminal(table)


@pytest.mark.parametrize(
    ("speedups", "expected"),
    [((1.2, LEVEL), "holds in 1 of 2"), ((LEVEL,), "does not hold (1)"), ((0.8, 0.9), "does not hold (2)")],
)
def test_a_statement_on_time_holds_only_where_a_group_is_shown_to_be_faster(speedups: tuple[float, ...], expected: str) -> None:
    assert claimed(*measured(*speedups))["G2"][0] == expected


def test_memory_that_no_grad_raises_is_a_reversal_with_its_figures() -> None:
    raised = result("no_grad", model="attention", memory={"peak_tensor_bytes": 20480})
    found = claimed(*measured(1.2), result("tracked", model="attention"), raised)
    assert found["G1"] == ("holds in 1 of 2", "peak 10.0 KiB, no_grad 20.0 KiB (reversed)")


def test_a_broken_promise_counts_against_the_statements_that_it_is_about_whatever_its_reason_says() -> None:
    broken = [
        replace(unmeasured("no_grad", "broken_contract", "?", model="leaky"), promises=["history"]),
        replace(unmeasured("no_grad", "broken_contract", "a history of trouble", model="left"), promises=["grad_mode"]),
        replace(unmeasured("inference_mode", "broken_contract", "?", model="keeps"), promises=["records"]),
        unmeasured("no_grad", "out_of_memory", "a history of failure", model="big"),
        replace(unmeasured("detach", "broken_contract", "?", scenario="evaluation"), promises=["history"]),
    ]
    found = claimed(*measured(1.2), unmeasured=broken)
    assert {name: found[name] for name in ("G3", "G4", "G5", "G9")} == {
        "G3": ("holds in 2 of 3", "not leaky tiny no_grad"),
        "G4": ("holds in 1 of 2", "not left tiny no_grad"),
        "G5": ("holds in 1 of 3", "not keeps tiny inference_mode, leaky tiny no_grad"),
        "G9": ("holds (1)", "no grad_fn"),
    }


@pytest.mark.parametrize("results", [[], [result("tracked")]])
def test_what_was_not_measured_stands_behind_a_count(results: list[Result]) -> None:
    (table,) = tables(Run(results, [unmeasured(reason="the output has a history")]))
    assert table.cells["#"].tolist() == ["G6", "G7"]
    missing = "8 not measured here (G1, G2, G3, G4, G5, G8, G9, G10)"
    assert table.notes[-1] == f"{missing}: `pytest --benchmark --scenarios all` measures them"
