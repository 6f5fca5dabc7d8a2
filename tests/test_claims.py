"""Proves that a claim's verdict counts what the rows show, that nothing holds without evidence, and that no figure lacks its interval."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import make_result, make_timings, saved_run
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.claims import NOT_MEASURED, Claim, claims, claims_table, terminal
from analysis.load import load, rows_of
from analysis.render import FORMATS
from benchmarks.record import Case, Interval, Kernels, Memory, Result, Row, Unmeasured, tidy_rows
from benchmarks.statistics import verdict

QUICK = settings(max_examples=100, deadline=None, derandomize=True, database=None)

REFERENCE = Path(__file__).parent.parent / "results" / "reference" / "cpu.json"

TRACKED = Memory(10240, 8192, 8192, 4096)
LESS = Memory(4096, 4096, 0, 0)


def ratio(estimate: float, half: float = 0.01) -> Interval:
    return Interval(estimate, estimate - half, estimate + half)


def group(speedup: Interval, *, memory: Memory = LESS, same: bool = True, **case: str) -> list[Result]:
    """tracked, no_grad with `speedup` and `memory`, and detach, which costs 3 %."""
    return [
        make_result("tracked", case=case, memory=TRACKED),
        make_result(case=case, speedup=speedup, verdict=verdict(speedup), memory=memory, kernels=Kernels(same)),
        make_result("detach", case=case, speedup=ratio(0.97), verdict="slower", memory=TRACKED),
    ]


def claimed(results: list[Result], *unmeasured: Unmeasured) -> dict[str, Claim]:
    return {one.name: one for one in claims(tidy_rows(results), unmeasured)}


def test_a_run_reads_as_a_page_of_claims_with_verdicts_and_evidence() -> None:
    results = [
        *group(ratio(1.25), model="mlp"),
        *group(ratio(1.10), model="mlp", size="small"),
        *group(ratio(0.90), model="net", memory=Memory(12288, 4096, 0, 0), same=False),
        *(replace(one, trusted=False) for one in group(ratio(1.50), model="odd")),
    ]
    assert (
        terminal(claims(tidy_rows(results), []))
        == """\
G1   Tracking costs memory: what backward will need is kept until then
     holds for 3 of 4 groups, reversed for 1
     - peak of no_grad below tracked's on 3 of 4 groups: 40 % (mlp small) to 40 % (odd tiny) of it
     - reversed: peak of no_grad 12.0 KiB, tracked 10.0 KiB (net tiny)
     - kept for backward: 8.00 KiB tracked, nothing by no_grad on 4 of 4 groups
     - other kernels than tracked, so not tracking alone: net tiny

G2   Tracking costs time: recording the graph is work
     holds for 2 of 3 groups, reversed for 1
     - no_grad faster on 2 of 3 groups, slower on 1: 0.90 ±0.01 (net tiny) to 1.25 ±0.01 (mlp tiny)
     - fades as kernels grow (geometric means): tiny 1.25 ±0.01, small 1.10 ±0.01
     - other kernels than tracked, so not tracking alone: net tiny
     - untrusted, so not counted: odd tiny

G3   Without tracking, nothing can be sent backward by accident
     holds
     - outputs without history in 8 of 8 cases of no_grad and detach
     - outputs of tracked with history in 4 of 4 cases

G4   no_grad ends with its block: behind it, gradients are on again
     holds
     - gradients on again after the call in 4 of 4 cases of no_grad
     - after an exception, nested, as decorator: python -m benchmarks.walkthrough

G5   What is made inside is not in the graph, though parameters require grad
     holds
     - no grad_fn and nothing saved in 4 of 4 cases of no_grad
     - judged by grad_fn; what requires_grad says, of views too: python -m benchmarks.walkthrough
       --modes

G6   y = 2x made outside no_grad is tracked, z = 3x made inside is not
     a fact that running it shows
     - shown by python -m benchmarks.walkthrough

G7   y.backward() gives x.grad = 2, z.backward() raises
     a fact that running it shows
     - shown by python -m benchmarks.walkthrough

G8   Evaluation needs no_grad beside model.eval(), which goes on tracking
     not measured in this run
     - pytest --benchmark --scenarios evaluation would measure it

G9   detach() gives a tensor without history and leaves the graph as it is
     holds
     - outputs without history in 4 of 4 cases of detach
     - the call keeps for backward what tracked keeps on 4 of 4 groups, to the byte
     - the same storage, and the original in the graph: python -m benchmarks.walkthrough

G10  no_grad is for blocks, detach for a single tensor
     holds for 3 of 4 groups
     - blocks: detach saves nothing at the peak on 4 of 4 groups, where no_grad does on 3
     - detach slower on 3 of 3 groups: 0.97 ±0.01 (mlp tiny) to 0.97 ±0.01 (net tiny)
     - single tensors: loss_logging not measured in this run (pytest --benchmark --scenarios
       loss_logging)
     - single tensors: target_network not measured in this run (pytest --benchmark --scenarios
       target_network)"""
    )


def test_each_allocator_has_its_own_count_and_a_verdict_of_its_own_where_they_differ() -> None:
    alone = make_timings("resident", 1e-3, {"no_grad": ratio(1.10)}, {})
    shipped = make_timings("default", 1e-3, {"no_grad": ratio(0.80)}, {})
    time = claimed([*alone, *shipped])["G2"]
    assert time.verdict == "holds; as shipped: does not hold, reversed for 1"
    assert claimed([*alone, *make_timings("default", 1e-3, {"no_grad": ratio(1.30)}, {})])["G2"].verdict == "holds"
    assert time.evidence == [
        "tracking alone: no_grad faster: 1.10 ±0.01 (mlp tiny)",
        "as shipped: no_grad slower: 0.80 ±0.01 (mlp tiny)",
    ]


@pytest.mark.parametrize(
    ("speedup", "expected"), [(ratio(1.0, 0.004), "no difference"), (ratio(1.0, 0.03), "unclear"), (ratio(1.2), "holds")]
)
def test_without_a_faster_group_the_claim_about_time_does_not_hold(speedup: Interval, expected: str) -> None:
    assert claimed(group(speedup))["G2"].verdict == expected


def test_the_gain_is_said_to_fade_only_where_the_same_models_show_it_by_their_intervals() -> None:
    def line(small: float, half: float, model: str = "mlp") -> list[str]:
        slow = [replace(one, seconds=1.0) for one in group(ratio(small, half), model=model, size="medium")]
        return [text for text in claimed([*slow, *group(ratio(1.25))])["G2"].evidence if "geometric" in text]

    assert line(1.05, 0.01) == ["fades as kernels grow (geometric means): tiny 1.25 ±0.01, medium 1.05 ±0.01"]
    assert line(1.05, 0.30) == ["by size (geometric means): tiny 1.25 ±0.01, medium 1.1 ±0.3"]
    assert line(1.05, 0.01, "lstm") == []


def test_the_interval_of_a_geometric_mean_shrinks_with_the_number_of_independent_groups() -> None:
    results = [one for model in "abcd" for size in ("tiny", "small") for one in group(ratio(1.2, 0.1), model=model, size=size)]
    (line,) = [text for text in claimed(results)["G2"].evidence if "geometric" in text]
    assert line == "by size (geometric means): tiny 1.20 ±0.05, small 1.20 ±0.05"


def test_a_broken_contract_counts_against_the_claims_that_its_reason_is_about() -> None:
    broken = [
        Unmeasured(
            make_result("no_grad", case={"model": "leaky"}).case, "broken_contract", "the output has a history (MulBackward0)"
        ),
        Unmeasured(
            make_result("no_grad", case={"model": "left"}).case, "broken_contract", "gradients were left off after the call"
        ),
        Unmeasured(make_result("no_grad", case={"model": "big"}).case, "out_of_memory", "a history of failure"),
    ]
    found = claimed(group(ratio(1.2)), *broken)
    assert [found[name].verdict for name in ("G3", "G4", "G5", "G9")] == [
        "holds for 2 of 3 cases", "holds for 1 of 2 cases", "holds for 1 of 2 cases", "holds",
    ]  # fmt: skip
    assert "broken: leaky tiny no_grad: the output has a history (MulBackward0)" in found["G3"].evidence
    assert "broken: left tiny no_grad: gradients were left off after the call" in found["G4"].evidence


def test_evaluation_is_judged_by_what_eval_alone_goes_on_saving() -> None:
    found = claimed(group(ratio(1.10), scenario="evaluation"))
    assert found["G8"].verdict == "holds"
    assert found["G8"].evidence == [
        "eval() alone goes on saving for backward; saved with no_grad 0 B, tracked 8.00 KiB (mlp tiny)",
        "peak over the loop with no_grad 4.00 KiB, tracked 10.0 KiB (mlp tiny)",
        "no_grad faster: 1.10 ±0.01 (mlp tiny)",
    ]
    assert found["G2"].verdict == NOT_MEASURED, "an evaluation loop is no forward pass"


def test_evaluation_tells_what_forgetting_eval_changes() -> None:
    rows = [{**row, "changed_buffers": "counter"} for row in tidy_rows(group(ratio(1.10), scenario="evaluation"))]
    forgot = {**rows[1], "mode": "forgot_eval", "changed_buffers": "bn.running_mean bn.running_var", "same_kernels": False}
    found = {one.name: one for one in claims([forgot, *rows], [])}["G8"].evidence
    assert found[-1] == "no_grad without eval() changes 2 buffers (mlp tiny: bn.running_mean and bn.running_var)"
    assert not any("counter" in line for line in found), "what every mode changes is not the train mode's"
    assert not any("kernels" in line for line in found), "train mode runs other kernels by design"


def test_where_detach_is_the_right_tool_is_told_from_the_scenarios_that_take_one_tensor_out() -> None:
    logging = [make_result("tracked", case={"scenario": "loss_logging"}, memory=Memory(9, 65536, 1, 1)),
               make_result("detach", case={"scenario": "loss_logging"}, memory=Memory(9, 4, 1, 1))]  # fmt: skip
    assert "single tensors: loss_logging, held with detach 4 B, tracked 64.0 KiB (mlp tiny)" in claimed(logging)["G10"].evidence


def test_a_run_without_evidence_claims_nothing_and_says_what_would_measure_it() -> None:
    gone = Unmeasured(make_result().case, "crashed", "exit code -9")
    for results in ([], [make_result("tracked")]):
        found = claims(tidy_rows(results), [gone])
        assert {one.verdict for one in found if one.name not in ("G6", "G7")} == {NOT_MEASURED}
        assert all("pytest --benchmark" in one.evidence[0] or "walkthrough" in one.evidence[0] for one in found)


def test_the_counts_of_the_reference_run_are_those_of_its_frame() -> None:
    run = load(REFERENCE)
    forward = run.frame[run.frame["scenario"] == "forward"]
    found = {one.name: one for one in claims(rows_of(run.frame), run.unmeasured)}
    rows = forward[(forward["mode"] == "no_grad") & forward["trusted"]]
    wins = {name: (some["speedup_low"] > 1.01).sum() for name, some in rows.groupby("allocator")}
    totals = rows.groupby("allocator").size()
    assert found["G2"].verdict == (
        f"holds for {wins['resident']} of {totals['resident']} groups; as shipped: holds for {wins['default']} of {totals['default']} groups"
    )
    peaks = forward[forward["allocator"] == "resident"].pivot(
        index=["model", "size"], columns="mode", values="peak_tensor_bytes"
    )
    lower, wasted = (peaks["no_grad"] < peaks["tracked"]).sum(), (peaks["detach"] >= peaks["tracked"]).sum()
    assert found["G1"].evidence[0].startswith(f"peak of no_grad below tracked's on {lower} of {len(peaks)} groups: ")
    assert found["G10"].evidence[0].startswith(f"blocks: detach saves nothing at the peak on {wasted} of {len(peaks)} groups, ")


_ratios = st.none() | st.sampled_from([0.0, float("inf")]) | st.floats(0.5, 2)
_intervals = st.just((None,) * 3) | st.tuples(_ratios, _ratios, _ratios) | st.builds(
    lambda estimate, below, above: (estimate, estimate - below, estimate + above), st.floats(0.5, 2), st.floats(0.001, 0.4), st.floats(0.001, 0.4)
)  # fmt: skip
_bytes = st.none() | st.integers(0, 2**36)
_FIELDS: dict[str, list[Any]] = {
    "scenario": ["forward", "forward", "evaluation", "loss_logging", "target_network", "operators", None],
    "model": ["mlp", "<script>", "a | b\n", None],
    "size": ["tiny", "medium", "own", None],
    "device": ["cpu", "cuda", None],
    "dtype": ["float32", "bfloat16", None],
    "allocator": ["resident", "default", "other", None],
    "mode": ["tracked", "no_grad", "inference_mode", "detach", "frozen:a.*", "item", "set_grad_enabled", None],
    "verdict": ["baseline", "faster", "slower", "same", "unclear", None],
    "trusted": [True, True, False, None],
    "page_faults": [0, 12, 4000, None],
    "seconds": [1e-3, None],
    "same_kernels": [True, False, None],
    "contract_holds": [True, False, None],
}


@st.composite
def any_rows(draw: st.DrawFn) -> list[Row]:
    """Tidy rows whose values may be missing or contradict each other. No name holds a digit."""
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        row: Row = dict.fromkeys(tidy_rows([make_result()])[0])
        row |= {name: draw(st.sampled_from(values)) for name, values in _FIELDS.items()}
        for name in ("speedup", "placebo", "kept_pages"):
            row[name], row[f"{name}_low"], row[f"{name}_high"] = draw(_intervals)
        row |= {f"{name}_bytes": draw(_bytes) for name in ("peak_tensor", "held_tensor", "saved")}
        rows.append(row)
    return rows


any_unmeasured = st.lists(
    st.builds(
        Unmeasured,
        st.builds(Case, st.sampled_from(["forward", "operators"]), *[st.sampled_from(["mlp", "no_grad", "a\nb"])] * 6),
        st.sampled_from(["broken_contract", "out_of_memory"]),
        st.sampled_from(["the output has a history", "gradients were left off", ""]),
    ),
    max_size=5,
)


def assert_ratios_have_intervals(text: str) -> None:
    """Every decimal number is one end of `ratio ±half`, an amount of bytes, or a percentage."""
    for found in re.finditer(r"\d+\.\d+", text):
        before, after = text[: found.start()], text[found.end() :]
        assert before.endswith("±") or re.match(r" (±[\d?]|[KMG]iB|%)", after), f"{found[0]} in: {text}"
    for words in ("times as fast", "by a factor", "reads"):
        assert words not in text or "±" in text, text


@QUICK
@given(any_rows(), any_unmeasured)
def test_claims_answer_whatever_the_rows_hold_and_no_ratio_lacks_its_interval(rows: list[Row], gone: list[Unmeasured]) -> None:
    found = claims(rows, gone)
    assert [one.name for one in found] == [f"G{number}" for number in range(1, 11)]
    for one in found:
        assert one.evidence
        for line in one.evidence:
            assert_ratios_have_intervals(line)
    assert max(len(line) for line in terminal(found).splitlines()) <= 100
    assert all(render(claims_table(found)) for render in FORMATS.values())


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_prints_the_claims_of_a_run_in_every_format(name: str, tmp_path: Path) -> None:
    results = group(ratio(1.2))
    run = saved_run(tmp_path / "run.json", results)
    printed = CliRunner().invoke(app, ["claims", str(run), "--format", name])
    found = claims(tidy_rows(results), [])
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert printed.stdout == (terminal(found) if name == "terminal" else FORMATS[name](claims_table(found))) + "\n"


def test_machines_get_a_record_per_claim() -> None:
    record = json.loads(FORMATS["json"](claims_table(claims(tidy_rows(group(ratio(1.2))), []))))[1]
    assert record == {
        "claim": "G2",
        "what it says": "Tracking costs time: recording the graph is work",
        "verdict": "holds",
        "evidence": "no_grad faster: 1.20 ±0.01 (mlp tiny)",
    }


def test_an_unknown_format_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["claims", str(saved_run(tmp_path / "run.json", group(ratio(1.2)))), "--format", "pdf"])
    assert printed.exit_code == 2
    assert printed.stderr == f"error: --format pdf: unknown; choose from {', '.join(FORMATS)}\n"
