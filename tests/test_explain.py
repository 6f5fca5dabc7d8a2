"""`explain` tells where the bytes and the time of a case go."""

from __future__ import annotations

from typing import Any

import pytest
from builders import group, result, run

from analysis.explain import explain
from analysis.read import AnalysisError, Run
from benchmarks.record import Kernels, Memory, ProcessReading, Result, SavedBy

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


def explained(*results: Result) -> str:
    """The text on the only case of these results, without its ends of lines."""
    (text,) = explain(run(*results), {"mode": results[0].case.mode})
    return " ".join(text.split())


def test_a_case_is_explained_as_a_tree_of_modules_with_bars_and_its_facts() -> None:
    modules = {"blocks.1.mlp": 2048, "norm": 1024, "blocks.0": 512, "(smaller ones, anywhere)": 512}
    by_module = [SavedBy(name, size) for name, size in modules.items()]
    memory = Memory(
        peak_tensor_bytes=8192, held_tensor_bytes=1024, saved_bytes=4096, graph_nodes=1234, saved_by_module=by_module
    )
    assert explain(run(result("tracked", memory=memory)), {}) == [GOLDEN]


TOLD: dict[str, dict[str, Any]] = {
    "saved 32.0 KiB (1.00 KiB of it in workspaces of libraries, beside it 2.00 KiB in copies of parameters that autocast made)": {
        "memory": {"saved_bytes": 32768, "opaque_saved_bytes": 1024, "cast_saved_bytes": 2048}
    },
    "saved 8.00 KiB (+ input 4.00 KiB) memory:": {"memory": {"opaque_saved_bytes": 0, "input_saved_bytes": 4096}},
    "mlp tiny tracked (forward, cpu, float32, eager): saved 0 B memory:": {"memory": {"saved_bytes": 0}},
    "saved 8.00 KiB in all 4 steps memory: peak 10.0 KiB, held by the output 8.00 KiB graph:": {"steps": 4},
    "; more with each step: 8.00 KiB in tensors, 6.99 KiB in the heap beyond tensors": {
        "memory": {"held_bytes_per_step": 8192, "heap_bytes_per_step": 7159}
    },
    "not known: peak_rss_bytes, below noise": {"memory": {"unavailable": {"peak_rss_bytes": "below noise"}}},
    "resident memory: rises by 16.0 MiB during a call; 8.00 MiB stays afterwards (as_shipped)": {
        "memory": {"peak_rss_bytes": 2**24, "kept_rss_bytes": 2**23}
    },
    "; nothing that shows stays afterwards": {"memory": {"peak_rss_bytes": 2**24}},
    "kernels: not tracked's: added aten::fused; removed aten::gelu": {
        "kernels": Kernels(False, ["aten::fused"], ["aten::gelu"])
    },
    "kernels: not tracked's: the same operators, other bits in the result": {"kernels": Kernels(False)},
    "compiled by the first call: 4.20 s with empty caches pages_kept:": {"compile_seconds": 4.2},
    "4.20 s with empty caches; 0 compilations more while modes took turns": {"compile_seconds": 4.2, "recompilations": 0},
    "the control read 1.00 to 1.00.": {"after_switch_seconds": None},
    "the first call after other work: tracked 150 us; a loop is steady from the first call on.": {"washout_calls": 0},
    "1.00 a call that is waited for takes: tracked 150 us.": {"host_seconds": 1e-4},
}


@pytest.mark.parametrize("words", TOLD)
def test_what_else_is_known_of_a_case_is_told(words: str) -> None:
    assert words in f"{explained(result('tracked', **TOLD[words]))}."


def test_an_evaluation_step_between_training_steps_pays_its_own_ratio_in_each_mode() -> None:
    first_calls = {"tracked": 300e-6, "no_grad": 200e-6, "detach": None}
    results = [result(mode, after_switch_seconds=seconds) for mode, seconds in first_calls.items()]
    text = explained(*results, result("no_grad", after_switch_seconds=1.0, model="other"))
    assert "the first call after other work: tracked 300 us, no_grad 200 us (1.50 times as fast); a loop is" in text


def test_both_allocators_stand_below_one_description_of_memory() -> None:
    readings = [ProcessReading(3, 60, 0.018, 1.0, 0.75, 0.0), ProcessReading(3, 60, 0.026, 1.1, 1.28, 2690.0)]
    text = explained(result("tracked"), result("tracked", allocator="as_shipped", seconds=0.02, processes=readings))
    assert text.count("saved 8.00 KiB") == 1
    assert "2 processes of 1 launch read 18.0 ms to 26.0 ms, 0 to 2,690 page faults; the control" in text
    assert "pages_kept: 125 us" in text


def test_a_choice_is_by_model_size_and_mode_and_a_wrong_one_names_what_is_there() -> None:
    measured = run(*group(), *group(model="lstm", size="small"))
    assert explain(measured, {"model": "lstm", "mode": "no_grad"})[0].startswith("lstm small no_grad (")
    assert len(explain(measured, {})) == 4
    with pytest.raises(AnalysisError, match=r"0001: no case with --model gru \(measured there: lstm small, mlp tiny\)"):
        explain(measured, {"model": "gru"})
    with pytest.raises(AnalysisError, match="measured there: nothing"):
        explain(Run([]), {})


def test_names_of_any_length_stay_within_100_columns() -> None:
    deep = {"saved_bytes": 4096, "saved_by_module": [SavedBy(".".join(["a_rather_long_module_name"] * 8), 4096)]}
    (text,) = explain(run(result("tracked", memory=deep, kernels=Kernels(False, ["aten::x"] * 60))), {})
    assert max(len(line) for line in text.splitlines()) <= 100
