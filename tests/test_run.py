"""A run looks cases up, and has measured what is needed for them and no more."""

from __future__ import annotations

from collections.abc import Iterator

import builders
import pytest

from benchmarks.record import GroupResult, Timed, from_json
from benchmarks.record import Unmeasured as UnmeasuredRecord
from benchmarks.run import Run

FIRST, SECOND = (
    GroupResult(
        builders.case(model=model).group,
        [Timed(result, [2e-4, 3e-4], 2) for result in builders.group(model=model)],
        [builders.unmeasured("detach", model=model)],
    )
    for model in ("mlp", "lstm")
)


def run_of(*groups: GroupResult, taken: list[GroupResult] | None = None) -> Run:
    def coming() -> Iterator[GroupResult]:
        for group in groups:
            if taken is not None:
                taken.append(group)
            yield group

    return Run(coming())


def test_a_case_is_looked_up_and_only_the_groups_up_to_its_own_are_measured() -> None:
    taken: list[GroupResult] = []
    run = run_of(FIRST, SECOND, taken=taken)
    assert run.result_of(FIRST.timed[1].result.case) is FIRST.timed[1]
    assert taken == [FIRST]
    assert run.result_of(FIRST.unmeasured[0].case) is FIRST.unmeasured[0]
    assert taken == [FIRST]
    assert run.result_of(SECOND.timed[0].result.case) is SECOND.timed[0]


def test_groups_may_come_in_any_order() -> None:
    run = run_of(SECOND, FIRST)
    assert run.result_of(FIRST.timed[0].result.case) is FIRST.timed[0]
    assert run.result_of(SECOND.timed[0].result.case) is SECOND.timed[0]


def test_a_case_that_was_only_checked_has_no_result_and_one_of_no_group_is_an_error() -> None:
    run = run_of(GroupResult(FIRST.group))
    assert run.result_of(FIRST.timed[0].result.case) is None
    with pytest.raises(KeyError, match="lstm"):
        run.result_of(SECOND.timed[0].result.case)


def test_the_saved_file_says_what_was_not_measured() -> None:
    run = run_of(FIRST, SECOND)
    run.take_all()
    assert [result.case.model for result in run.results] == ["mlp", "mlp", "lstm", "lstm"]
    saved = run.top_level({"command": ["pytest"]})
    assert (saved["schema"], saved["conditions"]) == (2, {"command": ["pytest"]})
    assert [from_json(one, UnmeasuredRecord) for one in saved["unmeasured"]] == run.unmeasured
    assert len(run.unmeasured) == 2
