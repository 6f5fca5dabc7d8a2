"""Whatever a model does to its process, it has a row that says so, and the next job's exact figures are those of a run without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from analysis import report
from benchmarks.selfcheck import faults, misbehaving, mutations, stand_ins
from benchmarks.selfcheck.faults import long_run
from benchmarks.selfcheck.findings import Tried
from benchmarks.selfcheck.misbehaving import MISBEHAVIOURS, broken_promises, control_bytes
from benchmarks.selfcheck.mutations import mutated_files
from benchmarks.workers import Launches


@pytest.fixture(scope="module")
def workers() -> Iterator[Launches]:
    with closing(misbehaving.workers()) as launches:
        before = control_bytes(launches)
        assert all(before["tracked"])
        yield launches
        assert control_bytes(launches) == before


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_model_that(workers: Launches, name: str) -> None:
    assert broken_promises(name, workers) == []


@pytest.mark.slow
def test_mutated_files_give_an_answer_or_a_line() -> None:
    tried = mutated_files(100, seed=1)
    assert (tried.times, tried.broken) == (100, [])


def test_a_mutated_file_that_takes_too_much_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "page", lambda _: "")
    monkeypatch.setattr(mutations, "LONGEST_SECONDS", 0.0)
    monkeypatch.setattr(mutations, "peak_rss_bytes", lambda step: step() or 2**20)
    tried = mutated_files(1, seed=1)
    assert [fault.rpartition(" s of CPU and ")[2] for fault in tried.broken] == ["1 MiB"]
    assert [goal.reached for goal in tried.goals] == [False, True]


def test_a_long_run_leaves_nothing_in_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    (tried,) = long_run(300)
    assert (tried.times, tried.broken) == (300, [])


def test_what_a_long_run_leaves_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(folder: Path, jobs: list[Any]) -> None:
        left.append((folder / "left").open("w"))

    left: list[Any] = []
    monkeypatch.setattr(stand_ins, "run_to_the_end", leaking)
    (tried,) = long_run(1)
    assert tried.broken[0].startswith("1 descriptors, 0 processes and ")


def test_a_broken_promise_is_told_and_is_a_goal_that_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    for name in ("killed_where_something_is_written", "real_runs", "misbehaving_models", "journal_cost"):
        monkeypatch.setattr(faults, name, lambda *_, what=name: [Tried(what, 3)])
    monkeypatch.setattr(faults, "mutated_files", lambda number: Tried("mutated files", number))
    monkeypatch.setattr(faults, "long_run", lambda jobs: [Tried("a long run", jobs)])
    assert all(goal.reached for goal in faults.faults(quick=True).goals)
    monkeypatch.setattr(faults, "long_run", lambda jobs: [Tried("a long run", jobs, ["2 descriptors are left"])])
    found = faults.faults(quick=True)
    assert [str(goal) for goal in found.goals if not goal.reached] == ["MISSED  promises broken: a long run: 1 (at most 0)"]
    assert found.notes == ["2 descriptors are left"]
    monkeypatch.setattr(faults, "long_run", lambda jobs: [][jobs])
    found = faults.faults(quick=True)
    assert found.notes[0].startswith("a long run: the check itself failed: IndexError: list index out of range")
    assert "mutated files" in found.table
