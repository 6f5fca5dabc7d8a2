"""Proves that each limit of a run's figures is said once, in words, the most important first, and none that is not there."""

from __future__ import annotations

import pytest
from builders import group, result, run, unmeasured

from analysis.notes import MOST, notes
from benchmarks.record import Contract, Interval, Kernels, Memory

CONTROL = "control: the same code timed twice differed by 0.1 %; differences below 0.6 % cannot be told"
OTHER = Kernels(same_as_tracked=False)


def test_a_good_run_says_only_what_its_control_read() -> None:
    assert notes(run(*group({"no_grad": 1.25, "detach": Interval(1.0, 0.995, 1.005)}))) == [CONTROL]


def test_nothing_measured_and_nothing_lost_says_nothing() -> None:
    assert notes(run(*group()).__class__([])) == []


def test_of_several_groups_the_control_says_the_median_and_the_worst() -> None:
    off = Interval(0.97, 0.94, 1.02)
    measured = run(*group(), *group(model="convnet"), *group(model="lstm", placebo=off, resolution=0.06))
    (note,) = notes(measured)
    assert note.startswith("control: the same code timed twice differed by 0.1 % (median group), 3.0 % at most (lstm tiny); ")
    assert note.endswith("differences below 0.6 % (median group) cannot be told")


def test_a_group_whose_control_failed_comes_first_and_counts_for_no_other_note() -> None:
    failed = group(model="lstm", trusted=False, placebo=Interval(1.05, 1.03, 1.07), resolution=0.07)
    assert notes(run(*group(), *failed)) == [
        "?: not to be believed, because the same code timed twice differed: lstm tiny (5.0 %)",
        CONTROL,
    ]


def test_without_a_time_of_tracked_there_are_no_speedups_and_that_is_said() -> None:
    alone = result("no_grad", None, trusted=False, placebo=None, resolution=None)
    assert notes(run(alone)) == ["no speedups, because tracked gave no time to compare with: mlp tiny"]


def test_what_is_unclear_is_counted_with_the_meaning_of_its_mark() -> None:
    found = notes(run(*group({"no_grad": 1.25, "detach": Interval(1.0, 0.9, 1.1), "frozen": Interval(1.02, 0.9, 1.1)})))
    assert found[1] == "~: unclear, partly inside 1 ±1 % or no larger than the control's resolution (2 of 3 speedups)"


def test_memory_that_the_driver_was_asked_for_while_timing_is_told_and_none_is_not() -> None:
    calm, asking = group(model="convnet", driver_allocations=0.0), group(driver_allocations=0.01)
    assert notes(run(*calm, *asking))[1:] == [
        "the driver was asked for memory while timing, which is the allocator's time and not tracking's: mlp tiny (tracked, no_grad)"
    ]


def test_models_that_were_compiled_again_while_timing_are_named() -> None:
    steady, again = (group(model=model, execution="compiled", recompilations=n) for model, n in (("lstm", 0), ("mlp", 3)))
    assert "compiled again while modes took turns, so times may hold compilation: mlp tiny (tracked, no_grad)" in notes(
        run(*steady, *again)
    )
    assert notes(run(*steady)) == [CONTROL]


def test_of_a_recurrent_model_on_a_gpu_it_is_said_what_cudnn_keeps() -> None:
    (note,) = notes(run(*group(model="lstm", device="cuda")))[1:]
    assert (
        note
        == "lstm on a GPU: in eval mode cuDNN keeps nothing for a backward pass, so tracked saves less here than in training"
    )


def test_modes_that_ran_other_kernels_are_named_once_for_both_allocators() -> None:
    cases = [
        result(mode, model=model, allocator=allocator, kernels=OTHER)
        for model in ("lstm", "gru") for mode in ("no_grad", "detach") for allocator in ("pages_kept", "as_shipped")
    ]  # fmt: skip
    assert "*: other kernels ran than in tracked, so not tracking alone: lstm tiny, gru tiny (no_grad, detach)" in notes(
        run(*cases)
    )


def allocators(kept: float, shipped: float, tracked_faults: float, faults: float, seconds: float = 0.02) -> list[str]:
    """Notes of a run whose no_grad reads `kept` and `shipped`, and as shipped takes so many page faults a call."""
    pages_kept = group({"no_grad": kept}, tracked_seconds=seconds)
    tracked = result("tracked", allocator="as_shipped", page_faults=tracked_faults, tracked_seconds=seconds)
    mode = result("no_grad", shipped, allocator="as_shipped", page_faults=faults, tracked_seconds=seconds)
    return [note for note in notes(run(*pages_kept, tracked, mode)) if note.startswith("as_shipped")]


def test_page_faults_are_the_reason_where_their_cost_can_make_up_the_difference() -> None:
    assert allocators(1.05, 1.5, 2536, 0) == [
        "as_shipped reads another speedup, because of page faults: mlp tiny no_grad 1.50 ±0.02 (0 faults a call, tracked 2,536)"
    ]
    assert allocators(1.5, 1.05, 0, 2536)[0].startswith("as_shipped reads another speedup, because of page faults")


def test_page_faults_are_not_the_reason_where_they_are_too_few_or_pull_the_other_way() -> None:
    assert allocators(1.05, 1.4, 2, 0) == [
        "as_shipped reads another speedup, and page faults cannot be why: mlp tiny no_grad 1.40 ±0.01 (0 faults a call, tracked 2)"
    ]
    assert allocators(1.05, 1.5, 0, 2536)[0].startswith("as_shipped reads another speedup, and page faults cannot be why")


def test_allocators_that_agree_are_no_note() -> None:
    assert allocators(1.25, 1.255, 5000, 0) == []


def test_where_keeping_pages_would_help_tracked_itself_it_is_said() -> None:
    worth = result("tracked", model="lstm", allocator="as_shipped", kept_pages=Interval(1.5, 1.4, 1.6))
    not_shown = result("tracked", allocator="as_shipped", kept_pages=Interval(1.2, 0.9, 1.5))
    (note,) = (text for text in notes(run(worth, not_shown)) if "keeps its pages" in text)
    assert note.endswith("makes tracked itself faster than as_shipped: lstm tiny 1.5 ±0.1")


def test_withheld_figures_are_grouped_by_their_reason() -> None:
    small = Memory(unavailable={"peak_rss_bytes": "below the meter's noise"})
    off = Memory(unavailable={"peak_rss_bytes": "the meter is off", "saved_bytes": "the meter is off"})
    measured = run(result("tracked", memory=small), result(memory=small), result("detach", memory=off))
    assert notes(measured)[-1] == (
        "withheld: peak_rss_bytes of 2 cases: below the meter's noise; peak_rss_bytes of 1 case, saved_bytes of 1 case: the meter is off"
    )


def test_what_was_not_measured_is_grouped_by_its_reason_once_for_both_allocators() -> None:
    reason = "RuntimeError:\n  it cannot " + "x" * 200
    lost = [unmeasured(allocator=name, reason=reason) for name in ("pages_kept", "as_shipped")]
    lost += [unmeasured("frozen", reason=reason), unmeasured("detach", "crashed", "exit code -9", model="lstm")]
    (note,) = (text for text in notes(run(unmeasured=lost)) if text.startswith("not measured"))
    assert note.startswith("not measured: mlp tiny (inference_mode, frozen): unsupported: RuntimeError: it cannot xxx")
    assert note.endswith("...; lstm tiny (detach): crashed: exit code -9")
    assert notes(run().__class__([], [unmeasured()])) == ["not measured: mlp tiny (inference_mode): unsupported: it cannot"]


def test_warnings_are_said() -> None:
    found = notes(run(conditions={"warnings": ["it was hot", "it\nwas loud"]}))
    assert found[1:] == ["the machine was not at its best: it was hot; it was loud"]


def test_a_call_that_changes_other_buffers_than_tracked_is_said() -> None:
    changing = result("forgot_eval", contract=Contract(holds=True, changed_buffers=["norm.mean"]))
    assert notes(run(*group(), changing))[-1] == "a call changes other buffers than tracked's does: mlp tiny (forgot_eval)"


def test_at_most_five_notes_are_shown_and_the_rest_is_counted() -> None:
    memory = Memory(unavailable={"saved_bytes": "lost"})
    everything = run(
        *group({"no_grad": 1.2, "detach": Interval(1.0, 0.9, 1.1)}, memory=memory, kernels=OTHER),
        *group(model="lstm", trusted=False, placebo=Interval(1.05, 1.03, 1.07)),
        unmeasured=[unmeasured()], conditions={"warnings": ["hot"]},
    )  # fmt: skip
    every = notes(everything, most=None)
    shown = notes(everything)
    assert (len(every), len(shown)) == (7, MOST)
    assert shown[:4] == every[:4]
    assert shown[4] == f"{every[4]} (and 2 more notes: `summarise` tells all)"
    assert notes(everything, most=6)[-1].endswith("(and 1 more note: `summarise` tells all)")


@pytest.mark.parametrize("wild", [Interval(1e-99, 1e-99, 1e99), Interval(1e99, 1e-99, 1e99)])
def test_intervals_that_know_nothing_are_no_difference(wild: Interval) -> None:
    measured = run(result(), *[result("no_grad", wild, allocator="as_shipped")])
    assert not [note for note in notes(measured) if note.startswith("as_shipped")]
