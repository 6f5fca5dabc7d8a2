"""The meters check each other, and a disagreement is said in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import make_result

from benchmarks.measure.invariants import broken_invariants
from benchmarks.record import Kernels, Memory, Result

MIB = 2**20
SOUND = {
    "tracked": Memory(10 * MIB, 8 * MIB, 7 * MIB, 10 * MIB),
    "no_grad": Memory(4 * MIB, 2 * MIB, 0, 4 * MIB),
    "inference_mode": Memory(4 * MIB, 2 * MIB, 0, 4 * MIB),
    "detach": Memory(10 * MIB, 2 * MIB, 7 * MIB, 10 * MIB),
}
OTHER = Kernels(same_as_tracked=False, added=["aten::baddbmm"])


def group(mode: str = "", kernels: Kernels | None = None, **changes: Any) -> list[Result]:
    """Results whose figures agree, but for `changes` in the memory of `mode`."""
    results = [make_result(name, memory=replace(memory, **(changes if name == mode else {}))) for name, memory in SOUND.items()]
    return [replace(one, kernels=kernels) if kernels and one.case.mode == mode else one for one in results]


def test_nothing_is_said_of_figures_that_agree() -> None:
    assert broken_invariants(group()) == []


@pytest.mark.parametrize(
    ("mode", "changes", "said"),
    [
        (
            "inference_mode",
            {"peak_tensor_bytes": 4 * MIB - 64},
            "peak of inference_mode is 4,194,240 B, of no_grad 4,194,304 B",
        ),
        ("detach", {"peak_tensor_bytes": 9 * MIB}, "peak of detach is 9,437,184 B, of tracked 10,485,760 B"),
        ("detach", {"held_tensor_bytes": 3 * MIB}, "held of detach is 3,145,728 B, of no_grad 2,097,152 B"),
        ("tracked", {"held_tensor_bytes": 6 * MIB}, "tracked holds 6.00 MiB, less than the 7.00 MiB that it saved"),
        ("no_grad", {"peak_rss_bytes": 3 * MIB}, "no_grad peaks at 4.00 MiB in tensors but at 3.00 MiB in resident memory"),
    ],
)
def test_a_disagreement_is_said_with_its_group_and_its_figures(mode: str, changes: dict[str, int], said: str) -> None:
    (found,) = broken_invariants(group(mode, None, **changes))
    assert found.startswith("forward mlp tiny cpu float32: ")
    assert said in found


def test_other_kernels_explain_another_peak() -> None:
    assert broken_invariants(group("inference_mode", OTHER, peak_tensor_bytes=3 * MIB)) == []


@pytest.mark.parametrize("figure", ["peak_tensor_bytes", "held_tensor_bytes", "saved_bytes", "peak_rss_bytes"])
@pytest.mark.parametrize("mode", SOUND)
def test_a_figure_that_is_missing_breaks_nothing(mode: str, figure: str) -> None:
    assert broken_invariants(group(mode, **{figure: None})) == []


def test_modes_that_were_not_measured_are_not_missed() -> None:
    assert broken_invariants(group()[1:2]) == []


def test_resident_memory_may_be_short_by_two_per_cent_and_256_kib() -> None:
    short = int(4 * MIB * 0.02) + 256 * 1024
    assert broken_invariants(group("no_grad", peak_rss_bytes=4 * MIB - short)) == []
    assert len(broken_invariants(group("no_grad", peak_rss_bytes=4 * MIB - short - 1))) == 1


def test_workspaces_that_a_library_need_not_write_are_no_disagreement() -> None:
    short = Memory(peak_tensor_bytes=9 * MIB, held_tensor_bytes=8 * MIB, peak_rss_bytes=3 * MIB)
    found = [make_result("tracked", memory=replace(short, opaque_saved_bytes=opaque)) for opaque in (6 * MIB, 2 * MIB)]
    assert [len(broken_invariants([result])) for result in found] == [0, 1]


def test_both_allocators_have_one_memory_and_what_breaks_is_told_once() -> None:
    short = Memory(peak_tensor_bytes=9 * MIB, peak_rss_bytes=MIB)
    both = [make_result("tracked", memory=short, case={"allocator": name}) for name in ("resident", "default")]
    assert len(broken_invariants(both)) == 1
