"""Whatever a model does to its process, it has a row that says so, and the next job's exact figures are those of a run without it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.selfcheck import misbehaving
from benchmarks.selfcheck.faults import long_run
from benchmarks.selfcheck.misbehaving import CONTROL, LATE, MISBEHAVIOURS, broken_promise, exact_figures, outcome
from benchmarks.selfcheck.mutations import mutated_files
from benchmarks.workers import Launches


@pytest.fixture(scope="module")
def workers() -> Iterator[Launches]:
    launches = misbehaving.workers(60)
    before = exact_figures(outcome(CONTROL, launches))
    assert all(before["tracked"])
    yield launches
    assert exact_figures(outcome(CONTROL, launches)) == before


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_model_that(workers: Launches, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if LATE in MISBEHAVIOURS[name].statuses:
        monkeypatch.setattr(workers, "_timeout_seconds", 1.5)
    assert broken_promise(name, outcome(name, workers)) == ""


def test_mutated_files_give_an_answer_or_a_line() -> None:
    tried, failures = mutated_files(100, seed=1)
    assert (tried, failures) == (100, [])


def test_2000_jobs_leave_nothing_in_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert long_run(2000) == ""
