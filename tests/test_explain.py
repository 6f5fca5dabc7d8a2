"""`explain` tells where the saved bytes of a case go, and says where measurement and theory part."""

from __future__ import annotations

from dataclasses import replace

from builders import make_result

from analysis.explain import explain
from benchmarks.record import Kernels, Memory, ProcessReading, Result, SavedBy

MEMORY = Memory(
    saved_bytes=4096,
    expected_saved_bytes=3072,
    opaque_saved_bytes=1024,
    graph_nodes=1234,
    graph_heap_bytes=2048,
    saved_by_module=[SavedBy("blocks.1.mlp", 2048), SavedBy("norm", 1024), SavedBy("blocks.0", 512), SavedBy("(smaller ones, anywhere)", 512)],
    saved_by_operator=[SavedBy("linear", 3072), SavedBy("gelu", 1024)],
)  # fmt: skip

GOLDEN = """\
mlp tiny tracked (forward, cpu, float32): 4.00 KiB saved for backward

by module
  blocks                                                  2.50 KiB 62.5% ###############
    1                                                     2.00 KiB 50.0% ############
      mlp                                                 2.00 KiB 50.0% ############
    0                                                        512 B 12.5% ###
  norm                                                    1.00 KiB 25.0% ######
  (smaller ones, anywhere)                                   512 B 12.5% ###

by operator
  linear                                                  3.00 KiB 75.0% ##################
  gelu                                                    1.00 KiB 25.0% ######

theory: 3,072 B beside 1.00 KiB of library workspace, exactly what was measured
graph: 1,234 nodes hang on the output, and 2.00 KiB on the heap beyond tensors"""


def explain_one(result: Result) -> str:
    return explain([result])


def test_a_case_is_explained_as_a_tree_with_bars() -> None:
    assert explain_one(make_result("tracked", memory=MEMORY)) == GOLDEN


def test_a_difference_from_theory_is_told_in_bytes() -> None:
    more = explain_one(make_result("tracked", memory=replace(MEMORY, expected_saved_bytes=3000)))
    less = explain_one(make_result("tracked", memory=replace(MEMORY, expected_saved_bytes=4000)))
    assert "theory: 3,000 B beside 1.00 KiB of library workspace, 72 B less than measured" in more
    assert "theory: 4,000 B beside 1.00 KiB of library workspace, 928 B more than measured" in less


def test_nothing_saved_needs_no_tree_and_other_kernels_are_named() -> None:
    kernels = Kernels(same_as_tracked=False, added=["aten::fused"], removed=["aten::gelu"])
    text = explain_one(make_result("no_grad", memory=Memory(saved_bytes=0), kernels=kernels))
    assert text.splitlines() == [
        "mlp tiny no_grad (forward, cpu, float32): 0 B saved for backward",
        "",
        "kernels: not tracked's: added aten::fused; removed aten::gelu",
    ]


def test_names_of_any_length_stay_within_100_columns() -> None:
    deep = SavedBy(".".join(["a_rather_long_module_name"] * 8), 4096)
    text = explain_one(make_result("tracked", memory=replace(MEMORY, saved_by_module=[deep])))
    assert max(len(line) for line in text.splitlines()) <= 100


def test_copies_of_weights_that_autocast_made_stand_beside_what_was_saved() -> None:
    text = explain_one(make_result("tracked", memory=Memory(saved_bytes=1024, cast_saved_bytes=2048)))
    assert "beside them: 2.00 KiB in copies of parameters that autocast made in another dtype" in text
    assert "beside them" not in explain_one(make_result("tracked", memory=Memory(saved_bytes=1024, cast_saved_bytes=0)))


def test_processes_say_how_far_they_lie_apart_by_each_allocator() -> None:
    heaps = [ProcessReading(3, 0.018, 1.0, 0.75, 0.0), ProcessReading(3, 0.026, 1.1, 1.28, 2690.0)]
    shipped = make_result("tracked", case={"allocator": "default"}, processes=heaps)
    assert explain([make_result("tracked"), shipped]).endswith(
        "default, 2 processes: 18.0 ms to 26.0 ms a call, 0 to 2,690 page faults; identical code read 0.75 to\n  1.28"
    )


def test_the_first_call_in_a_fresh_process_stands_beside_the_later_ones() -> None:
    text = explain_one(make_result("tracked", cold_seconds=0.0123))
    assert text.endswith("first call in a fresh process: 12.3 ms; then 125 us")
    assert "first call" not in explain_one(make_result("tracked"))
