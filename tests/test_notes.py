"""Proves that each limit of a run's figures is said once, in words, the most important first, and none that is not there."""

from __future__ import annotations

from typing import Any

import pytest
from builders import group, result, run, unmeasured

from analysis.notes import MOST, notes
from analysis.read import Run
from benchmarks.record import Contract, Interval, Kernels, Memory, Result

CONTROL = "control: the same code timed twice differed by 0.1 %; differences below 0.6 % cannot be told"
OTHER = Kernels(same_as_tracked=False)
UNCLEAR = Interval(1.0, 0.9, 1.1)


def noted(*results: Result) -> list[str]:
    return notes(run(*results))


def withholding(mode: str, **reasons: str) -> Result:
    return result(mode, memory=Memory(unavailable=reasons))


SHIPPED: dict[str, Any] = {"allocator": "as_shipped"}
OTHER_KERNELS = [
    result(mode, model=model, kernels=OTHER, **allocator)
    for model in ("mlp", "gru")
    for mode in ("no_grad", "detach")
    for allocator in ({}, SHIPPED)
]
SAID = {
    "?: not to be believed, because the same code timed twice differed: mlp tiny (5.0 %)": group(
        trusted=False, placebo=Interval(1.05, 1.03, 1.07), resolution=0.07
    ),
    "no speedups, because tracked gave no time to compare with: mlp tiny": [
        result("no_grad", None, trusted=False, placebo=None, resolution=None)
    ],
    "~: unclear, partly inside 1 ±1 % or no larger than the control's resolution (2 of 3 speedups)": group(
        {"no_grad": 1.25, "detach": UNCLEAR, "frozen": Interval(1.02, 0.9, 1.1)}
    ),
    "*: other kernels ran than in tracked, so not tracking alone: mlp tiny, gru tiny (no_grad, detach)": OTHER_KERNELS,
    "the driver was asked for memory while timing, which is the allocator's time and not tracking's: mlp tiny (tracked, no_grad)": group(
        driver_allocations=0.01
    ),
    "compiled again while modes took turns, so times may hold compilation: mlp tiny (tracked, no_grad)": group(
        recompilations=3
    ),
    "lstm on a GPU: in eval mode cuDNN keeps nothing for a backward pass, so tracked saves less here than in training": group(
        model="lstm", device="cuda"
    ),
    "an allocator that keeps its pages (MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647, or jemalloc) makes tracked itself"
    " faster than as_shipped: mlp tiny 1.5 ±0.1": [
        result("tracked", kept_pages=Interval(1.5, 1.4, 1.6), **SHIPPED),
        result("tracked", model="lstm", kept_pages=Interval(1.2, 0.9, 1.5), **SHIPPED),
    ],
    "withheld: peak_rss_bytes of 2 cases: noise; peak_rss_bytes of 1 case, saved_bytes of 1 case: off": [
        *(withholding(mode, peak_rss_bytes="noise") for mode in ("tracked", "no_grad")),
        withholding("detach", peak_rss_bytes="off", saved_bytes="off"),
    ],
    "a call changes other buffers than tracked's does: mlp tiny (forgot_eval)": [
        *group(),
        result("forgot_eval", contract=Contract(holds=True, changed_buffers=["norm.mean"])),
    ],
    "a call changes inputs and threads, so that the calls of a loop are not alike: mlp tiny (tracked, no_grad)": group(
        contract=Contract(holds=True, changes=["inputs", "threads"])
    ),
}


@pytest.mark.parametrize("note", SAID)
def test_what_limits_the_figures_is_said_once_with_the_groups_that_it_is_about(note: str) -> None:
    calm = group({}, model="convnet", driver_allocations=0.0, recompilations=0)
    assert [said for said in noted(*SAID[note], *calm) if not said.startswith("control: ")] == [note]


def test_a_good_run_says_only_what_its_control_read_and_of_several_groups_the_median_and_the_worst() -> None:
    assert noted(*group({"no_grad": 1.25, "detach": Interval(1.0, 0.995, 1.005)})) == [CONTROL]
    off = group(model="lstm", placebo=Interval(0.97, 0.94, 1.02), resolution=0.06)
    (note,) = noted(*group(), *group(model="convnet"), *off)
    assert note == CONTROL.replace("0.1 %", "0.1 % (median group), 3.0 % at most (lstm tiny)").replace(
        "0.6 %", "0.6 % (median group)"
    )
    assert notes(Run([])) == []


@pytest.mark.parametrize(
    ("kept", "shipped", "tracked_faults", "mode_faults", "reason"),
    [
        (1.05, 1.5, 2536, 0, "because of page faults: mlp tiny no_grad 1.50 ±0.02 (0 faults a call, tracked 2,536)"),
        (1.5, 1.05, 0, 2536, "because of page faults: mlp tiny no_grad 1.05 ±0.01 (2,536 faults a call, tracked 0)"),
        (1.05, 1.4, 2, 0, "and page faults cannot be why: mlp tiny no_grad 1.40 ±0.01 (0 faults a call, tracked 2)"),
        (1.05, 1.5, 0, 2536, "and page faults cannot be why: mlp tiny no_grad 1.50 ±0.02 (2,536 faults a call, tracked 0)"),
        (1.25, 1.255, 5000, 0, ""),
        (1.25, Interval(1e-99, 1e-99, 1e99), 0, 0, ""),
        (1.25, Interval(1e99, 1e-99, 1e99), 0, 0, ""),
    ],
)
def test_where_allocators_differ_page_faults_are_the_reason_if_their_cost_can_make_up_the_difference(
    kept: float, shipped: float | Interval, tracked_faults: float, mode_faults: float, reason: str
) -> None:
    pages_kept = group({"no_grad": kept}, tracked_seconds=0.02)
    tracked = result("tracked", allocator="as_shipped", page_faults=tracked_faults, tracked_seconds=0.02)
    mode = result("no_grad", shipped, allocator="as_shipped", page_faults=mode_faults, tracked_seconds=0.02)
    found = [note for note in noted(*pages_kept, tracked, mode) if note.startswith("as_shipped")]
    assert found == ([f"as_shipped reads another speedup, {reason}"] if reason else [])


def test_what_was_not_measured_is_grouped_by_its_reason_once_for_both_allocators() -> None:
    reason = "RuntimeError:\n  it cannot " + "x" * 200
    lost = [unmeasured(allocator=name, reason=reason) for name in ("pages_kept", "as_shipped")]
    lost += [unmeasured("frozen", reason=reason), unmeasured("detach", "crashed", "exit code -9", model="lstm")]
    _, note = notes(run(unmeasured=lost))
    assert note.startswith("not measured: mlp tiny (inference_mode, frozen): unsupported: RuntimeError: it cannot xxx")
    assert note.endswith("...; lstm tiny (detach): crashed: exit code -9")


def test_at_most_five_notes_are_shown_and_the_rest_is_counted() -> None:
    everything = run(
        *group({"no_grad": 1.2, "detach": UNCLEAR}, memory=Memory(unavailable={"saved_bytes": "lost"}), kernels=OTHER),
        *group(model="lstm", trusted=False, placebo=Interval(1.05, 1.03, 1.07)),
        unmeasured=[unmeasured()], conditions={"warnings": ["it was hot", "it\nwas loud"]},
    )  # fmt: skip
    every, shown = notes(everything, most=None), notes(everything)
    assert (len(every), len(shown)) == (7, MOST)
    assert every[-1] == "the machine was not at its best: it was hot; it was loud"
    assert shown == [*every[:4], f"{every[4]} (and 2 more notes: `summarise` tells all)"]
    assert notes(everything, most=6)[-1].endswith("(and 1 more note: `summarise` tells all)")
