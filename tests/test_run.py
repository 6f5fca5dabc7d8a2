"""A run looks cases up, and has measured what is needed for them and no more."""

from __future__ import annotations

import builders
import pytest

from benchmarks.record import GroupResult, Timed
from benchmarks.run import Run

FIRST, SECOND = (
    GroupResult(
        builders.case(model=model).group,
        [Timed(result, [2e-4, 3e-4], 2) for result in builders.group(model=model)],
        [builders.unmeasured("detach", model=model)],
    )
    for model in ("mlp", "lstm")
)


@pytest.mark.parametrize(("order", "left"), [((FIRST, SECOND), [SECOND]), ((SECOND, FIRST), [])])
def test_a_case_is_looked_up_and_only_the_groups_up_to_its_own_are_measured(
    order: tuple[GroupResult, ...], left: list[GroupResult]
) -> None:
    coming = iter(order)
    run = Run(coming)
    assert run.result_of(FIRST.timed[1].result.case) is FIRST.timed[1]
    assert run.result_of(FIRST.unmeasured[0].case) is FIRST.unmeasured[0]
    assert list(coming) == left


def test_a_case_that_was_only_checked_has_no_result_and_one_of_no_group_is_an_error() -> None:
    run = Run(iter([GroupResult(FIRST.group)]))
    assert run.result_of(FIRST.timed[0].result.case) is None
    with pytest.raises(KeyError, match="lstm"):
        run.result_of(SECOND.timed[0].result.case)


def test_everything_is_measured_where_that_is_asked_for() -> None:
    run = Run(iter([FIRST, SECOND]))
    run.take()
    assert [result.case.model for result in run.results] == ["mlp", "mlp", "lstm", "lstm"]
    assert [one.case.model for one in run.unmeasured] == ["mlp", "lstm"]
