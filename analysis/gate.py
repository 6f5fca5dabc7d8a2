"""A gate for continuous integration: which changes are regressions, given how much of each is allowed.

A lower speedup is a regression: the mode gives less than it gave, be it that the mode got slower or that tracked got faster. So is more
memory; a case that vanished; and a case or a figure of memory that base has and head could not measure, since nothing shows that it
did not get worse. An untrusted group proves nothing either way: it is told, and is no regression.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from types import MappingProxyType

from analysis.compare import Comparison, bytes_change_text, case_text, fields_of, speedup_side
from analysis.figures import bytes_text, percent_text, seconds_text, speedup_text
from analysis.footer import merged
from analysis.pairing import (
    MEMORY,
    NEWLY_UNMEASURED,
    VANISHED,
    Against,
    Allowance,
    CompareError,
    NotComparableError,
    check_common,
)
from benchmarks.record import Case, Row
from benchmarks.statistics import MARGIN

_FLAGS = {VANISHED: "vanished", NEWLY_UNMEASURED: "unmeasured"}
_ONLY = "only with --allow {}"
_UNITS: Mapping[str, int] = MappingProxyType({"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30})
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*(%|B|KiB|MiB|GiB|)")
_METRICS = ("speedup", "seconds", *MEMORY)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed. `speedup` is a fraction beyond which the whole interval has to lie to count; `seconds` None: not judged."""

    speedup: float = MARGIN
    seconds: float | None = None
    memory: Mapping[str, Allowance] = field(default_factory=lambda: MEMORY)
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Regression:
    """`worse_by` is the logarithm of a ratio, to sort by; the others are texts."""

    case: str
    metric: str
    base: str
    head: str
    change: str
    allowed: str
    worse_by: float
    cases: int = 1

    def __str__(self) -> str:
        figures = f" {self.base} -> {self.head}," if self.base else ""
        return f"{self.case}: {self.metric}{figures}{self.change and f' {self.change}'} (allowed: {self.allowed})"


def parse_limits(texts: Iterable[str]) -> Limits:
    """`speedup=2%`, `peak_tensor_bytes=0`, `peak_rss_bytes=1MiB`, `seconds=10%`, `vanished`, `unmeasured`. Raises CompareError."""
    ratios: dict[str, float] = {}
    memory, flags = dict(MEMORY), set()
    for text in texts:
        name, given, amount = text.partition("=")
        if name in _FLAGS.values() and not given:
            flags.add(name)
            continue
        if name not in _METRICS:
            raise CompareError(
                f"--allow {text}: unknown; choose from METRIC=AMOUNT with {', '.join(_METRICS)}, or {', '.join(_FLAGS.values())}"
            )
        found = _AMOUNT.fullmatch(amount)
        if found is None or (name not in MEMORY and found[2] != "%"):
            kinds = "a percentage such as 2%, or bytes such as 0, 4096 or 1MiB" if name in MEMORY else "a percentage such as 2%"
            raise CompareError(f"--allow {text}: expected {name}= and {kinds}")
        number = float(found[1])
        if name not in MEMORY:
            ratios[name] = number / 100
        else:
            memory[name] = Allowance(number / 100) if found[2] == "%" else Allowance(0, round(number * _UNITS[found[2]]))
    return Limits(ratios.get("speedup", MARGIN), ratios.get("seconds"), memory, frozenset(flags))


def regressions(comparison: Comparison, limits: Limits) -> list[Regression]:
    """The worst first; what was lost before what got worse.

    Raises NotComparableError where no case is in both runs, or seconds are asked for and machines differ.
    """
    found: list[Regression] = []
    for part in comparison.parts:
        check_common(part)
        if limits.seconds is not None and part.other_machine is not None:
            raise NotComparableError(
                f"--allow seconds: {part.base.name} and {part.head.name} are not from machines that agree ({part.other_machine})"
            )
        prefix = f"{part.head.name} " if len(comparison.parts) > 1 else ""
        found += _lost(part, limits, prefix)
        fields = fields_of(part.rows)
        for row in part.rows:
            found += [one for one in _worse(row, f"{prefix}{case_text(row, fields)}", limits) if one is not None]
    return sorted(found, key=lambda one: -one.worse_by)


def lines(found: Sequence[Regression], comparison: Comparison) -> list[str]:
    """What the gate says: each regression in a line, then what it could not judge, and the result."""
    doubtful = [row for part in comparison.parts for row in part.rows if row["change"] is not None and not row["trusted"]]
    texts = [f"regressed: {one}" for one in found]
    if doubtful:
        texts.append(f"speedups not judged, for a group is untrusted: {len(doubtful)}")
    return [*texts, f"gate: {result(found, comparison)}"]


def result(found: Sequence[Regression], comparison: Comparison) -> str:
    """`2 regressions (96 cases compared)`."""
    number = sum(one.cases for one in found)
    words = "nothing regressed" if not number else "1 regression" if number == 1 else f"{number} regressions"
    return f"{words} ({sum(len(part.rows) for part in comparison.parts)} cases compared)"


def _lost(part: Against, limits: Limits, prefix: str) -> list[Regression]:
    """One for all cases that were lost in the same way for the same reason."""
    found: dict[tuple[str, str], list[Case]] = {}
    for one in part.absent:
        if one.status in _FLAGS and _FLAGS[one.status] not in limits.flags:
            found.setdefault((one.status, one.reason), []).append(one.case)
    return [
        Regression(
            f"{prefix}{'; '.join(merged(map(astuple, cases)))}",
            status, "", "", reason, _ONLY.format(_FLAGS[status]), math.inf, len(cases),
        )
        for (status, reason), cases in found.items()
    ]  # fmt: skip


def _worse(row: Row, case: str, limits: Limits) -> Iterable[Regression | None]:
    yield _speedup(row, case, limits)
    ratio = row["seconds_ratio"]
    if limits.seconds is not None and ratio is not None and ratio > 1 + limits.seconds:
        base, head = (seconds_text(row[f"seconds_{side}"], None) for side in ("base", "head"))
        yield Regression(case, "seconds", base, head, f"{ratio - 1:+.1%}", percent_text(limits.seconds), math.log(ratio))
    for name, allowance in limits.memory.items():
        yield _memory(row, case, name, allowance, limits)


def _speedup(row: Row, case: str, limits: Limits) -> Regression | None:
    if row["change"] is None:
        if row["speedup_base"] is None or row["speedup_head"] is not None or "unmeasured" in limits.flags:
            return None
        return Regression(
            case, "speedup", speedup_side(row, "base"), "-", "no longer measured", _ONLY.format("unmeasured"), math.inf
        )
    if not row["trusted"] or row["change_high"] >= 1 - limits.speedup:
        return None
    base, head = (speedup_side(row, side) for side in ("base", "head"))
    change = speedup_text(row["change"], row["change_low"], row["change_high"])
    return Regression(case, "speedup", base, head, change, percent_text(limits.speedup), -math.log(row["change"]))


def _memory(row: Row, case: str, name: str, allowance: Allowance, limits: Limits) -> Regression | None:
    base, head = row[f"{name}_base"], row[f"{name}_head"]
    if base is None or (head is None and "unmeasured" in limits.flags):
        return None
    texts = bytes_text(base), bytes_text(head)
    if head is None:
        return Regression(case, name, *texts, "no longer measured", _ONLY.format("unmeasured"), math.inf)
    if allowance.allows(base, head):
        return None
    worse = math.log((head + 1) / (base + 1))
    return Regression(case, name, *texts, bytes_change_text(base, head), str(allowance), worse)
