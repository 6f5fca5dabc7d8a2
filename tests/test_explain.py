"""`explain` tells where the bytes and the time of a case go."""

from __future__ import annotations

import pytest
from builders import group, result, run

from analysis.explain import explain
from analysis.read import AnalysisError, Run
from benchmarks.record import Kernels, Memory, ProcessReading, SavedBy

MEMORY = Memory(
    peak_tensor_bytes=8192,
    held_tensor_bytes=1024,
    saved_bytes=4096,
    graph_nodes=1234,
    saved_by_module=[SavedBy("blocks.1.mlp", 2048), SavedBy("norm", 1024), SavedBy("blocks.0", 512), SavedBy("(smaller ones, anywhere)", 512)],
)  # fmt: skip

GOLDEN = """\
mlp tiny tracked (forward, cpu, float32, eager): saved 4.00 KiB

  blocks                                                  2.50 KiB 62.5% ###############
    1                                                     2.00 KiB 50.0% ############
      mlp                                                 2.00 KiB 50.0% ############
    0                                                        512 B 12.5% ###
  norm                                                    1.00 KiB 25.0% ######
  (smaller ones, anywhere)                                   512 B 12.5% ###

memory: peak 8.00 KiB, held by the output 1.00 KiB
graph: 1,234 nodes hang on the output
model: 16,640 parameters, 65.0 KiB; inputs float32[8, 64]
pages_kept: 125 us a call; 4 processes of 2 launches read 125 us to 125 us; the control read 1.00 to
  1.00
  the first call after other work: tracked 150 us; a loop is steady after 2 calls"""


def explained(**changes: object) -> str:
    (text,) = explain(run(result("tracked", **changes)), {})  # type: ignore[arg-type]
    return text


def test_a_case_is_explained_as_a_tree_of_modules_with_bars_and_its_facts() -> None:
    assert explained(memory=MEMORY) == GOLDEN


def test_parts_of_the_saved_bytes_that_are_no_activations_are_named() -> None:
    text = explained(
        memory={"saved_bytes": 32768, "opaque_saved_bytes": 1024, "cast_saved_bytes": 2048, "input_saved_bytes": 4096}
    )
    assert text.startswith(
        "mlp tiny tracked (forward, cpu, float32, eager): saved 32.0 KiB (1.00 KiB of it in workspaces of\n"
        "  libraries, beside it 2.00 KiB in copies of parameters that autocast made, + input 4.00 KiB)"
    )
    assert "workspaces" not in explained(memory={"opaque_saved_bytes": 0, "cast_saved_bytes": 0})


def test_what_several_steps_save_is_said_to_be_of_all() -> None:
    assert "): saved 8.00 KiB in all 4 steps\n" in explained(scenario="evaluation", steps=4)


def test_nothing_saved_needs_no_tree_and_other_kernels_are_named() -> None:
    kernels = Kernels(same_as_tracked=False, added=["aten::fused"], removed=["aten::gelu"])
    lines = explain(run(result("no_grad", kernels=kernels)), {"mode": "no_grad"})[0].splitlines()
    assert lines[0] == "mlp tiny no_grad (forward, cpu, float32, eager): saved 0 B"
    assert not any("#" in line for line in lines)
    assert "kernels: not tracked's: added aten::fused; removed aten::gelu" in lines
    assert "kernels: not tracked's: the same operators, other bits in the result" in explained(kernels=Kernels(False))


def test_what_compiling_took_is_told_apart_with_what_was_compiled_again() -> None:
    pair = [
        result("tracked", allocator=name, execution="compiled", compile_seconds=4.2, recompilations=number)
        for name, number in (("pages_kept", 0), ("as_shipped", None))
    ]
    (text,) = explain(run(*pair), {})
    assert "compiled by the first call: 4.20 s with empty caches; 0 compilations more while modes took turns" in text
    (alone,) = explain(run(pair[1]), {})
    assert "compiled by the first call: 4.20 s with empty caches\n" in alone
    assert "compiled" not in explained()


def test_growth_with_each_step_and_figures_that_were_withheld_are_told() -> None:
    text = explained(
        memory={"held_bytes_per_step": 8192, "heap_bytes_per_step": 7159, "unavailable": {"peak_rss_bytes": "below noise"}}
    )
    assert "; more with each step: 8.00 KiB in tensors, 6.99 KiB in the heap beyond tensors" in " ".join(text.split())
    assert "not known: peak_rss_bytes, below noise" in text
    assert "each step" not in explained()


def test_what_stays_resident_after_a_call_is_told_where_resident_memory_was_measured() -> None:
    kept = explained(memory={"peak_rss_bytes": 2**24, "kept_rss_bytes": 2**23})
    assert "resident memory: rises by 16.0 MiB; after the call 8.00 MiB more than before stays (as_shipped)" in kept
    assert "after the call no more than before stays" in explained(memory={"peak_rss_bytes": 2**24})
    assert "resident" not in explained()


def test_an_evaluation_step_between_training_steps_pays_its_own_ratio_in_each_mode() -> None:
    results = [
        result("tracked", after_switch_seconds=300e-6, washout_calls=0),
        result("no_grad", after_switch_seconds=200e-6, washout_calls=0),
        result("detach", after_switch_seconds=None, washout_calls=0),
        result("no_grad", after_switch_seconds=1.0, model="other"),
    ]
    flat = " ".join(explain(run(*results), {"mode": "tracked"})[0].split())
    assert (
        "the first call after other work: tracked 300 us, no_grad 200 us (1.50 times as fast); a loop is steady from the first call on"
        in flat
    )
    assert "the first call" not in explained(after_switch_seconds=None)
    queued = " ".join(explained(host_seconds=1e-4).split())
    assert "a call that is waited for takes: tracked 150 us" in queued
    assert "a loop is steady" not in queued


def test_both_allocators_stand_below_one_description_of_memory() -> None:
    readings = [ProcessReading(3, 60, 0.018, 1.0, 0.75, 0.0), ProcessReading(3, 60, 0.026, 1.1, 1.28, 2690.0)]
    shipped = result("tracked", allocator="as_shipped", seconds=0.02, processes=readings)
    (text,) = explain(run(result("tracked"), shipped), {})
    assert text.count("saved 8.00 KiB") == 1
    assert "2 processes of 1 launches read 18.0 ms to 26.0 ms, 0 to 2,690 page faults; the control" in " ".join(text.split())
    assert "pages_kept: 125 us" in text


def test_a_choice_is_by_model_size_and_mode_and_a_wrong_one_names_what_is_there() -> None:
    measured = run(*group(), *group(model="lstm", size="small"))
    assert explain(measured, {"model": "lstm", "mode": "no_grad"})[0].startswith("lstm small no_grad (")
    assert len(explain(measured, {})) == 4
    with pytest.raises(
        AnalysisError, match=r"0001: no case with --model gru --mode tracked \(measured there: lstm small, mlp tiny\)"
    ):
        explain(measured, {"model": "gru", "mode": "tracked"})
    with pytest.raises(AnalysisError, match="measured there: nothing"):
        explain(Run([]), {})


def test_names_of_any_length_stay_within_100_columns() -> None:
    deep = SavedBy(".".join(["a_rather_long_module_name"] * 8), 4096)
    text = explained(memory={"saved_bytes": 4096, "saved_by_module": [deep]}, kernels=Kernels(False, ["aten::x"] * 60))
    assert max(len(line) for line in text.splitlines()) <= 100
