"""Warnings stand before what is measured and under the table, and only where something is measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from builders import make_group

import conftest
from benchmarks.sensors import Finding


def config(*, measured: bool = True, **option: bool) -> Any:
    """pytest's, with a session that found something before and something after, with or without --benchmark."""
    conditions = SimpleNamespace(before=[Finding("turbo is on", "turn it off")], after=[Finding("it was hot", "let it cool")])
    stash = pytest.Stash()
    if measured:
        session: Any = SimpleNamespace(conditions=conditions, results=make_group(), unmeasured=[], broken_invariants=[])
        stash[conftest.SESSION] = session
    stash[conftest.SAVED_BEFORE] = set()
    options = {"collectonly": False, "benchmark_disable": False, "benchmark_enable": False, "benchmark_storage": "elsewhere://"}
    return SimpleNamespace(stash=stash, option=SimpleNamespace(**options | option))


def test_findings_are_told_before_the_run() -> None:
    assert conftest.pytest_report_collectionfinish(config()) == ["warning: turbo is on: turn it off"]


@pytest.mark.parametrize("given", [{"measured": False}, {"collectonly": True}, {"benchmark_disable": True}], ids=str)
def test_nothing_is_told_where_nothing_is_timed(given: dict[str, bool]) -> None:
    assert conftest.pytest_report_collectionfinish(config(**given)) == []


def test_what_went_on_meanwhile_is_told_under_the_table() -> None:
    written: list[str] = []
    conftest.pytest_terminal_summary(SimpleNamespace(write_line=written.append, section=written.append), config())
    assert written[-1] == "warning: it was hot: let it cool"
    assert written[0] == "what gradient tracking costs"
    assert any("no_grad" in line for line in written[1:-1])
