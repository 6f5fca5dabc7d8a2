"""The benchmark cases: a test each for every mode of every group. They run with `pytest --benchmark`.

The first case of a job has the whole job measured; each test then replays its own rounds to pytest-benchmark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from benchmarks.record import AS_SHIPPED, SKIPPED_STATUSES, Case, Timed, Unmeasured, to_json

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture


READINGS: deque[float] = deque()


def replay() -> float:
    """A timer that tells recorded durations: 0 and then the duration, in turn, so that their differences are exact."""
    return READINGS.popleft()


@pytest.mark.benchmark(timer=replay)
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_case(case: Case, result_of: Callable[[Case], Timed | Unmeasured | None], benchmark: BenchmarkFixture) -> None:
    found = result_of(case)
    if isinstance(found, Unmeasured):
        reason = f"{found.status}: {found.reason}"
        if found.status in SKIPPED_STATUSES:
            pytest.skip(reason)
        pytest.fail(reason, pytrace=False)
    if found is None and benchmark.disabled:  # the contract holds, and that was all
        benchmark(lambda: None)
        return
    if found is None:
        pytest.skip(f"{AS_SHIPPED}: the job causes no page faults, so it is the figure of pages_kept")
    benchmark.group = str(case.group)
    benchmark.extra_info.update(to_json(found.result))
    READINGS.extend(reading for duration in found.blocks for reading in (0.0, duration))
    benchmark.pedantic(lambda: None, rounds=len(found.blocks), iterations=found.calls)
