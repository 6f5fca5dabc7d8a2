"""Proves what counts as evidence, what stands beside what, and what a group is called."""

from __future__ import annotations

import pandas as pd
import pytest
from builders import group, result, run

from analysis.cases import JOB, against, labels, memory, timed
from benchmarks.record import Memory


def test_evidence_is_trusted_has_an_interval_and_is_not_tracked_or_around_nothing() -> None:
    frame = run(
        *group({"no_grad": 1.2, "inference_mode": None}),
        *group({"no_grad": 1.3}, model="lstm", trusted=False),
        *group({"no_grad": 0.1}, scenario="operators", model="context"),
        *group({"no_grad": 0.1}, scenario="switches", model="context"),
        *group({"forward_alone": 3.0}, scenario="training_step"),
    ).frame
    assert timed(frame).index.tolist() == [1]


def test_memory_counts_once_for_both_allocators_by_the_first_that_knows_it() -> None:
    known, unknown = Memory(peak_tensor_bytes=7), Memory()
    frame = run(
        result("tracked", memory=unknown), result("tracked", allocator="as_shipped", memory=known),
        result("no_grad", memory=known), result("no_grad", allocator="as_shipped", memory=unknown), result("detach", memory=unknown),
    ).frame  # fmt: skip
    assert memory(frame).index.tolist() == [1, 2, 4]


def test_every_row_gets_the_figures_of_tracked_in_its_own_group_and_run() -> None:
    frame = run(*group(tracked_seconds=2.0), *group(tracked_seconds=3.0, model="lstm"), result("no_grad", model="alone")).frame
    beside = against(frame)
    assert beside["seconds_base"].tolist()[:4] == [2.0, 2.0, 3.0, 3.0]
    assert pd.isna(beside["seconds_base"][4])
    assert (str(beside["peak_tensor_bytes_base"].dtype), beside.index.tolist()) == ("Int64", frame.index.tolist())
    two_runs = pd.concat([frame.assign(run="a"), frame.assign(run="b", seconds=9.0)])
    assert against(two_runs)["seconds_base"].tolist()[5:9] == [9.0] * 4


def test_a_group_that_is_there_twice_is_an_error() -> None:
    frame = run(*group()).frame
    with pytest.raises(pd.errors.MergeError):
        against(pd.concat([frame, frame]))


def test_a_group_is_called_by_as_few_words_as_tell_it_from_the_others() -> None:
    frame = run(
        *group(), *group(model="lstm", allocator="as_shipped"), *group(scenario="evaluation", execution="compiled")
    ).frame
    assert labels(frame).unique().tolist() == [
        "mlp tiny pages_kept",
        "lstm tiny as_shipped",
        "evaluation mlp tiny compiled pages_kept",
    ]
    assert labels(frame, JOB)[2] == "lstm tiny"
    assert labels(run(*group()).frame).tolist() == ["mlp tiny"] * 2
    assert labels(frame.iloc[:0]).empty
