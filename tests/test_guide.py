"""The guide says what torch really does, and says so where it does not."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks import scenarios
from benchmarks.guide import properties
from benchmarks.guide.__main__ import main, read_out
from benchmarks.guide.properties import has
from benchmarks.modes import DETACH, MODES, NO_GRAD, TRACKED
from benchmarks.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "modes.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _gradients_on_afterwards() -> Iterator[None]:
    with torch.enable_grad():
        yield


def test_all_that_the_walkthrough_states_holds_and_is_shown_with_its_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "1. What is computed from x is recorded; inside no_grad it is not\n" in printed
    assert "    with torch.no_grad():\n        z = 3 * x\n    z.requires_grad, z.grad_fn  # not in the graph" in printed
    assert "    x.grad  # the derivative of 2x\n    -> tensor([2.])\n" in printed
    assert "-> RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn\n" in printed
    assert "doctest" not in printed
    assert ">>>" not in printed
    assert "Traceback" not in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert printed.endswith(f"All of this holds with torch {torch.__version__}.\n")


def test_what_breaks_in_torch_is_told_by_its_fact_and_by_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    assert main([]) == 1
    broken = capsys.readouterr().out.partition("this does not hold, marked ! above:")[2]
    assert re.search(r"^  walkthrough.txt, line \d+: x \* features", broken, re.MULTILINE)


@pytest.mark.parametrize(
    ("code", "expected", "came"),
    [
        (">>> 1 + 1\n3", "3", "2"),
        (">>> None\n3", "3", "nothing"),
        (">>> 1 / 0\n3", "3", "ZeroDivisionError: division by zero"),
        (">>> int('x')\nTraceback (most recent call last):\nKeyError: x", "KeyError: x", "ValueError: invalid literal"),
    ],
)
def test_a_fact_that_does_not_hold_is_told_with_what_was_expected_and_what_came(code: str, expected: str, came: str) -> None:
    file = io.StringIO()
    assert not read_out(f"A title\n\n>>> True\nTrue\n{code}\n", "text.txt", Console(file=file, highlight=False))
    printed = file.getvalue()
    assert printed.startswith("A title\n\n    True\n    -> True\n")
    assert f"  ! expected: {expected}\n  ! came: {came}" in printed
    assert "\n  text.txt, line 5: " in printed


def test_the_page_has_the_table_of_modes_that_the_command_finds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--modes"]) == 0
    table = re.search(r"<!-- modes -->\n\n(.*)\n<!-- end -->", PAGE, re.DOTALL)
    assert table is not None
    assert table[1] == capsys.readouterr().out
    assert max(map(len, table[1].splitlines())) <= 100


def test_the_page_describes_every_mode_in_the_words_of_its_registry() -> None:
    for mode in MODES.values():
        row = re.search(rf"^\| `{mode.name}` \| (.*?) \| (yes|no)\b", PAGE, re.MULTILINE)
        assert row is not None
        assert row[1].replace("`", "") == mode.summary
        assert (row[2] == "yes") == (mode.records is False)


def test_the_page_lists_every_scenario_with_its_question_and_modes() -> None:
    for name, scenario in SCENARIOS.items():
        modes = ", ".join(f"`{mode.name}`" for mode in scenario.modes) or "`--modes`"
        question = (getattr(scenarios, name).__doc__ or "").strip()
        assert f"| [`{name}`](../benchmarks/scenarios/{name}.py) | {question} | {modes} |\n" in PAGE


def test_a_mode_that_no_longer_is_like_another_has_a_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODES, "set_grad_enabled", replace(MODES["set_grad_enabled"], bind=DETACH.bind))
    main(["--modes"])
    assert "| detach | set_grad_enabled | frozen |" in capsys.readouterr().out


def test_a_model_that_a_mode_switches_to_evaluation_moves_no_statistics() -> None:
    evaluating = replace(TRACKED, bind=lambda module, run: lambda: run(module.eval()))
    assert has(evaluating, "call: moves BatchNorm statistics") is False


@contextmanager
def nothing() -> Iterator[None]:
    """A context, and a decorator, that changes nothing."""
    yield


class Leaking(torch.no_grad):
    """Does not put the state back."""

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("context", "answer"), [(torch.no_grad, True), (nothing, False), (Leaking, False)])
def test_a_context_that_does_nothing_or_leaks_does_not_hold_in_a_function(
    monkeypatch: pytest.MonkeyPatch, context: Any, answer: bool
) -> None:
    monkeypatch.setitem(properties.DECORATORS, NO_GRAD.name, context)
    assert has(NO_GRAD, "decorator: holds in a function") is answer
    assert torch.is_grad_enabled()
