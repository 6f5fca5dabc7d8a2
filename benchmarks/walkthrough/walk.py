"""Takes the steps and tells what happened: the code that ran, what came out, the fact in words, and whether it holds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from analysis.render import WIDTH
from benchmarks.models.workload import seeded
from benchmarks.walkthrough.steps import STEPS, Fact, Step

_MOST_MESSAGE_LINES = 3
_OUTCOME_WIDTH = 14


@dataclass(frozen=True, slots=True)
class Seen:
    """A fact beside what came out: a value's repr, or an exception's type and message."""

    fact: Fact
    outcome: str
    message: str = ""

    @property
    def holds(self) -> bool:
        if self.fact.raises:
            return self.outcome == RuntimeError.__name__ and self.fact.raises in self.message
        return not self.message and self.outcome == self.fact.expected


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was run; where its code raised, that is what came out of each of its facts."""

    step: Step
    seen: list[Seen]


@contextmanager
def known_state() -> Iterator[None]:
    """Gradients on, one thread and generators from seed 0 inside; afterwards all as before, whatever has leaked."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.enable_grad(), seeded(0):
            yield
    finally:
        torch.set_num_threads(threads)


def walk(steps: Sequence[Step] = STEPS) -> list[Taken]:
    """Takes every step, in one namespace of their own."""
    names: dict[str, Any] = {}
    with known_state():
        return [_take(step, names) for step in steps]


def _take(step: Step, names: dict[str, Any]) -> Taken:
    with torch.enable_grad():  # a mode that leaks spoils its own step only
        try:
            exec(step.code, names)  # noqa: S102 - what is shown is what has run
        except Exception as error:  # noqa: BLE001 - told in each fact
            return Taken(step, [Seen(fact, type(error).__name__, str(error) or "no message") for fact in step.facts])
        return Taken(step, [_look(fact, names) for fact in step.facts])


def _look(fact: Fact, names: dict[str, Any]) -> Seen:
    try:
        return Seen(fact, repr(eval(fact.expression, names)))  # noqa: S307 - what is shown is what has run
    except Exception as error:  # noqa: BLE001 - a finding
        return Seen(fact, type(error).__name__, str(error) or "no message")


def told(taken: Sequence[Taken]) -> str:
    """All of it as text in at most 100 columns. A fact that does not hold is marked with `!` and named again at the end."""
    lines = []
    for number, one in enumerate(taken, start=1):
        lines += [f"{number}. {one.step.title}", "", textwrap.indent(one.step.code, "    "), ""]
        lines += [line for seen in one.seen for line in _fact_lines(seen)]
        lines.append("")
    seen = [fact for one in taken for fact in one.seen]
    broken = [(number, fact) for number, one in enumerate(taken, start=1) for fact in one.seen if not fact.holds]
    if not broken:
        return "\n".join([*lines, f"{len(seen)} facts, and every one of them holds."])
    named = [f"  step {number}: {fact.fact.words} ({fact.fact.expression})" for number, fact in broken]
    return "\n".join([*lines, f"{len(broken)} of {len(seen)} facts, marked ! above, do not hold:", *named])


def _fact_lines(seen: Seen) -> list[str]:
    fact, margin = seen.fact, " " * 8
    outcome = seen.outcome if len(seen.outcome) <= _OUTCOME_WIDTH else f"{seen.outcome[: _OUTCOME_WIDTH - 3]}..."
    lines = [f"{'    ' if seen.holds else '  ! '}{fact.expression:<43}-> {outcome:<{_OUTCOME_WIDTH}}  {fact.words}"]
    if not seen.holds:
        expected = f"{RuntimeError.__name__}: ... {fact.raises} ..." if fact.raises else fact.expected
        lines += _wrapped(f"expected {expected}, not {seen.outcome}", margin)
    return lines + _wrapped(seen.message, margin)


def _wrapped(text: str, margin: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=margin, subsequent_indent=margin, max_lines=_MOST_MESSAGE_LINES, placeholder=" ..."
    )
