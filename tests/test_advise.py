"""Proves that advice is what the rows show, reads naturally for one model as for many, and never gives a speedup without its interval."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from builders import make_result, make_timings, saved_run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_claims import REFERENCE, any_rows, any_unmeasured, assert_ratios_have_intervals, ratio
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.advise import FORMATS, advise, terminal
from analysis.evidence import between
from analysis.load import load, rows_of
from benchmarks.record import Interval, Kernels, Memory, Result, Row, Unmeasured, tidy_rows
from benchmarks.statistics import verdict

QUICK = settings(max_examples=100, deadline=None, derandomize=True, database=None)

LARGE, LESS = Memory(10 * 2**20, 1, 1, 1), Memory(2 * 2**20, 1, 1, 1)


def group(
    allocator: str = "resident",
    *,
    same: bool = True,
    faults: tuple[float, float] = (0, 0),
    untrusted: Interval | None = None,
    **fields: Interval | str,
) -> list[Result]:
    """tracked, and a mode for each interval among `fields`; texts are fields of the case. `faults`: tracked's, the modes'."""
    case = {"allocator": allocator} | {name: text for name, text in fields.items() if isinstance(text, str)}
    speedups = {mode: speedup for mode, speedup in fields.items() if isinstance(speedup, Interval)}
    found = [make_result("tracked", case=case, memory=LARGE, page_faults=faults[0])]
    for mode, speedup in speedups.items():
        figures = {"speedup": speedup, "verdict": verdict(speedup), "memory": LARGE if mode == "detach" else LESS}
        found.append(make_result(mode, case=case, page_faults=faults[1], kernels=Kernels(same), **figures))
    return [replace(one, trusted=False, placebo=untrusted) for one in found] if untrusted else found


def told(*results: Result, unmeasured: tuple[Unmeasured, ...] = ()) -> list[str]:
    return [str(one) for one in advise(tidy_rows(results), unmeasured)]


def about(word: str, found: list[str]) -> str:
    (text,) = [text for text in found if word in text]
    return text


def test_a_run_of_several_models_is_answered_in_a_few_paragraphs() -> None:
    results = [
        *group(model="mlp", no_grad=ratio(1.20), inference_mode=ratio(1.30), detach=ratio(0.95)),
        *group("default", model="mlp", no_grad=ratio(1.22, 0.04), inference_mode=ratio(1.31, 0.04)),
        *group(model="net", same=False, no_grad=ratio(1.10), inference_mode=ratio(1.10, 0.02), detach=ratio(1.0, 0.005)),
        *group("default", model="net", faults=(6000, 100), no_grad=ratio(1.50, 0.04), inference_mode=ratio(1.51, 0.04)),
    ]
    assert (
        terminal(advise(tidy_rows(results), [], {"warnings": ["load is 2.0 on 2 cores"]}))
        == """\
On the CPU, switch tracking off where no gradients are needed: use inference_mode, or no_grad for
what autograd will meet later. With the allocator as shipped, inference_mode is 1.31 ±0.04 (mlp
tiny) to 1.51 ±0.04 (net tiny) times as fast as tracked on 2 of 2 groups.

With the allocator's pages kept (tracking alone), inference_mode is 1.10 ±0.02 (net tiny) to
1.30 ±0.01 (mlp tiny) times as fast as tracked on 2 of 2 groups.

With the allocator's pages kept (tracking alone), inference_mode is faster than no_grad on 1 of 2
groups, by a factor of 1.08 ±0.01 (mlp tiny). On the other group they cannot be told apart closer
than 2.0 % (net tiny).

no_grad lowers the peak of tensor memory on 2 of 2 groups, from 10.0 MiB to 2.00 MiB (20 %) on mlp
tiny and 10.0 MiB to 2.00 MiB (20 %) on net tiny.

Tensors made in inference_mode cannot be used in autograd later, those made in no_grad can.

warning: detach on the result saves nothing at the peak on 2 of 2 groups, for all was tracked
before, and is slower than tracked on 1 of 2 groups, by a factor of 0.95 ±0.01 (mlp tiny). It is for
taking a single tensor out of a graph.

warning: no_grad, inference_mode and detach ran other kernels than tracked on net tiny: the figures
there are not of tracking alone.

warning: inference_mode on net tiny reads 1.51 ±0.04 as shipped but 1.10 ±0.02 tracking alone,
because of page faults (100 a call as shipped, tracked 6,000).

warning: the machine was not at its best: load is 2.0 on 2 cores."""
    )


def test_a_single_model_of_ones_own_is_spoken_of_by_name_and_not_counted() -> None:
    found = told(*group(model="build", size="own", no_grad=ratio(1.20), inference_mode=ratio(1.20), detach=ratio(0.95)))
    assert (
        "\n".join(found)
        == """\
On the CPU, switch tracking off where no gradients are needed: use no_grad or inference_mode. With the allocator's pages kept \
(tracking alone), no_grad is 1.20 ±0.01 times as fast as tracked on build.
With the allocator's pages kept (tracking alone), inference_mode and no_grad cannot be told apart closer than 1.2 % (build).
no_grad lowers the peak of tensor memory, from 10.0 MiB to 2.00 MiB (20 %) on build.
Tensors made in inference_mode cannot be used in autograd later, those made in no_grad can.
warning: detach on the result saves nothing at the peak, for all was tracked before, and is slower than tracked, by a factor of \
0.95 ±0.01 (build). It is for taking a single tensor out of a graph."""
    )


def test_each_device_has_its_own_answer_and_a_gpu_no_choice_of_allocator() -> None:
    cuda = group(device="cuda", no_grad=ratio(1.20))
    found = told(*group(no_grad=ratio(1.0, 0.005)), *cuda)
    assert about("On the CPU", found).startswith(
        "On the CPU, switching tracking off is not shown to save time. With the allocator's pages"
    )
    expected = (
        "On the GPU, switch tracking off where no gradients are needed: use no_grad. "
        "no_grad is 1.20 ±0.01 times as fast as tracked on mlp tiny."
    )
    assert expected in found
    assert told(*cuda)[0] == expected


@pytest.mark.parametrize(
    ("speedup", "words"),
    [
        (ratio(1.0, 0.004), "no_grad is as fast as tracked on mlp tiny (1.000 ±0.004)."),
        (ratio(1.0, 0.04), "no_grad is not told apart from tracked on mlp tiny (1.00 ±0.04)."),
        (ratio(0.9), "no_grad is slower than tracked on mlp tiny, 0.90 ±0.01 times as fast."),
    ],
)
def test_a_mode_that_is_not_faster_is_not_sold(speedup: Interval, words: str) -> None:
    answer = told(*group(device="cuda", no_grad=speedup))[0]
    assert answer == f"On the GPU, switching tracking off is not shown to save time. {words}"


def test_among_many_groups_those_that_are_not_faster_are_counted() -> None:
    readings = [ratio(1.2), ratio(1.3), ratio(1.0, 0.005), ratio(1.0, 0.05), ratio(0.8)]
    results = [
        one
        for model, speedup in zip("abcde", readings, strict=True)
        for one in group(model=model, device="cuda", no_grad=speedup)
    ]
    assert told(*results)[0].endswith(
        "no_grad is 1.20 ±0.01 (a tiny) to 1.30 ±0.01 (b tiny) times as fast as tracked on 2 of 5 groups, "
        "slower on 1, 0.80 ±0.01 (e tiny), as fast (within 1 %) on 1, not told apart from it on 1."
    )


def compared(*pairs: tuple[Interval, Interval]) -> str:
    results = [one for model, (no_grad, inference_mode) in zip("abcdef", pairs, strict=False)
               for one in group(model=model, device="cuda", no_grad=no_grad, inference_mode=inference_mode)]  # fmt: skip
    return told(*results)[1]


def test_inference_mode_and_no_grad_are_the_same_only_where_the_interval_shows_it() -> None:
    close, wide = ratio(1.2, 0.004), ratio(1.2, 0.04)
    assert compared((close, close)) == "inference_mode and no_grad are the same here (within 1 %)."
    assert compared((close, close), (close, close), (wide, close)) == (
        "inference_mode and no_grad are the same here (within 1 %) on every group but c tiny. "
        "On the other group they cannot be told apart closer than 3.5 % (c tiny)."
    )
    assert (
        compared((close, ratio(1.1, 0.004))) == "inference_mode is slower than no_grad, by a factor of 0.917 ±0.005 (a tiny)."
    )


def test_which_of_the_two_to_use_follows_from_how_they_compare() -> None:
    def use(inference_mode: float) -> str:
        return told(*group(no_grad=ratio(1.2, 0.004), inference_mode=ratio(inference_mode, 0.004)))[0]

    assert "use inference_mode, or no_grad for what autograd will meet later." in use(1.3)
    assert "use no_grad or inference_mode." in use(1.2)
    assert "use no_grad." in use(1.1)
    both = [
        *group(no_grad=ratio(1.2), inference_mode=ratio(1.3)),
        *group(model="net", no_grad=ratio(1.2), inference_mode=ratio(1.1)),
    ]
    assert "use no_grad or inference_mode." in told(*both)[0]


def test_the_peak_is_told_for_each_model_where_tracked_needs_most() -> None:
    small = [
        replace(one, memory=Memory(1024)) if one.case.mode == "tracked" else replace(one, memory=Memory(512))
        for one in group(no_grad=ratio(1.2))
    ]
    assert "no_grad lowers the peak of tensor memory on 2 of 2 groups, from 10.0 MiB to 2.00 MiB (20 %) on mlp big." in told(
        *small, *group(size="big", no_grad=ratio(1.2)))  # fmt: skip


@QUICK
@given(st.floats(0.5, 2), st.floats(0.5, 2), st.tuples(*[st.floats(1e-4, 0.3)] * 4))
def test_the_ratio_of_two_modes_is_as_wide_as_independent_readings_make_it(
    a: float, b: float, halves: tuple[float, ...]
) -> None:
    one = Interval(a, a * math.exp(-halves[0]), a * math.exp(halves[1]))
    two = Interval(b, b * math.exp(-halves[2]), b * math.exp(halves[3]))
    row, other = tidy_rows([make_result(speedup=one), make_result(speedup=two)])
    found, back = between(row, other), between(other, row)
    assert found.estimate == pytest.approx(a / b)
    assert math.log(found.estimate / found.low) == pytest.approx(math.sqrt(halves[0] ** 2 + halves[3] ** 2))
    assert [back.low, back.high] == pytest.approx([1 / found.high, 1 / found.low])


def test_what_paired_rounds_read_of_a_mode_against_no_grad_is_taken_as_it_is() -> None:
    paired = Interval(1.02, 1.01, 1.03)
    row, other = tidy_rows([make_result("inference_mode", over_no_grad=paired), make_result("no_grad")])
    assert between(row, other) == paired


def test_untrusted_groups_give_no_figures_but_a_warning_with_what_identical_code_read() -> None:
    found = told(*group(no_grad=ratio(1.5), untrusted=ratio(1.05)))
    assert (
        found[0]
        == "On the CPU no speedup of no_grad can be relied on, so this run cannot tell whether switching tracking off saves time."
    )
    assert found[-1] == (
        "warning: identical code read 1.05 ±0.01 on mlp tiny instead of 1, so the speedups there are no evidence, and left out above."
    )


def test_where_tracked_failed_nothing_is_compared_but_it_is_said_why() -> None:
    alone = make_result(speedup=None, verdict="unclear", placebo=None, trusted=False)
    gone = Unmeasured(make_result("tracked").case, "out_of_memory", "tried to\nallocate 4 GiB")
    assert told(alone, unmeasured=(gone,))[1:] == [
        "warning: tracked gave no time to compare with on mlp tiny, so there are no speedups there.",
        "warning: not measured: mlp tiny cpu resident tracked (out_of_memory: tried to allocate 4 GiB).",
    ]


def test_a_run_that_measured_nothing_says_so() -> None:
    gone = tuple(Unmeasured(make_result(mode).case, "crashed", "exit code -9") for mode in "abcde")
    found = told(unmeasured=gone)
    assert found[0] == "This run tells nothing about forward passes; `pytest --benchmark` measures some."
    assert found[1].endswith("mlp tiny cpu resident b, mlp tiny cpu resident c and 2 more (crashed: exit code -9).")
    assert told(make_result("tracked"))[0] == (
        "On the CPU no mode that switches tracking off was measured; `pytest --benchmark --modes all` does."
    )


def test_a_larger_budget_is_asked_for_where_most_verdicts_are_unclear() -> None:
    wide, narrow = ratio(1.0, 0.05), ratio(1.2)
    assert "2 of 3 verdicts on switching tracking off are unclear" in about("--budget", told(
        *group(no_grad=wide, inference_mode=wide), *group(model="net", no_grad=narrow)))  # fmt: skip
    assert not any("--budget" in text for text in told(*group(no_grad=wide, inference_mode=narrow)))


def test_keeping_pages_is_advised_where_it_reads_a_larger_gain_than_any_mode() -> None:
    def advice(gain: float) -> list[str]:
        results = make_timings("default", 1e-3, {"no_grad": ratio(1.1), "detach": ratio(1.5)}, {}, kept_pages=ratio(gain))
        return [text for text in told(*results) if "keeps its pages" in text]

    assert advice(1.3)[0].endswith(
        "would make tracked itself faster by a factor of 1.30 ±0.01 on mlp tiny (best mode: 1.10 ±0.01)."
    )
    assert not advice(1.08)


def test_modes_beyond_the_usual_are_told_after_them() -> None:
    found = told(*group(device="cuda", no_grad=ratio(1.2), set_grad_enabled=ratio(1.1), frozen=ratio(1.0, 0.005)))
    assert (
        "set_grad_enabled is 1.10 ±0.01 times as fast as tracked on mlp tiny. frozen is as fast as tracked on mlp tiny (1.000 ±0.005)."
        in found
    )


def test_dtypes_are_told_apart_by_name() -> None:
    found = told(*group(device="cuda", no_grad=ratio(1.2)), *group(device="cuda", dtype="bfloat16", no_grad=ratio(1.3)))
    assert (
        "1.20 ±0.01 (mlp tiny float32) to 1.30 ±0.01 (mlp tiny bfloat16) times as fast as tracked on 2 of 2 groups" in found[0]
    )


def test_other_scenarios_are_no_forward_passes() -> None:
    forward = group(no_grad=ratio(1.2))
    assert told(*forward, *group(scenario="evaluation", no_grad=ratio(1.9))) == told(*forward)


@QUICK
@given(any_rows(), any_unmeasured)
def test_whatever_the_rows_hold_there_is_advice_and_no_ratio_lacks_its_interval(
    rows: list[Row], gone: list[Unmeasured]
) -> None:
    found = advise(rows, gone)
    assert found
    for one in found:
        assert_ratios_have_intervals(one.text)
    assert max(len(line) for line in terminal(found).splitlines()) <= 100
    assert FORMATS["markdown"](found).count("\n") == len(found) - 1


def test_the_counts_of_the_reference_run_are_those_of_its_frame() -> None:
    run = load(REFERENCE)
    text = " ".join(one.text for one in advise(rows_of(run.frame), run.unmeasured))
    rows = run.frame[run.frame["scenario"].eq("forward") & run.frame["mode"].eq("inference_mode") & run.frame["trusted"]]
    for allocator, words in (
        ("default", "With the allocator as shipped, "),
        ("resident", "With the allocator's pages kept (tracking alone), "),
    ):
        mine = rows[rows["allocator"].eq(allocator)]
        faster = mine[mine["speedup_low"] > 1.01].sort_values("speedup")
        names = [f"({row['model']} {row['size']})" for _, row in faster.iloc[[0, -1]].iterrows()]
        sentence = text.partition(f"{words}inference_mode is ")[2].partition(" groups")[0]
        assert sentence.endswith(f"times as fast as tracked on {len(faster)} of {len(mine)}")
        assert [name for name in names if name in sentence] == names
    slower = run.frame.query("scenario == 'forward' and mode == 'detach' and allocator == 'resident' and speedup_high < 0.99")
    assert f"is slower than tracked on {len(slower)} of 12 groups" in text


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_prints_the_advice_of_a_run(name: str, tmp_path: Path) -> None:
    results = group(model="a|b", no_grad=ratio(1.2), detach=ratio(0.9))
    printed = CliRunner().invoke(app, ["advise", str(saved_run(tmp_path / "run.json", results)), "--format", name])
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert printed.stdout == FORMATS[name](advise(tidy_rows(results), [])) + "\n"
    assert ("a\\|b" in printed.stdout) == (name == "markdown")


def test_an_unknown_format_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["advise", str(saved_run(tmp_path / "run.json", [make_result()])), "--format", "csv"])
    assert (printed.exit_code, printed.stderr) == (2, "error: --format csv: unknown; choose from terminal, markdown\n")
