"""Advice is what the run shows, in sentences: the answer first, no gain without its interval, no loss kept back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from builders import PLACEBO, group, result, run, unmeasured
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import claims
from analysis.advise import advise, answer
from analysis.read import Run
from analysis.render import VIEWS
from analysis.summarise import overview, summary
from benchmarks.record import Interval, Memory, Result

LEVEL, WIDE = Interval(1.0, 0.998, 1.002), Interval(1.01, 0.98, 1.04)
USE = "Use no_grad where no gradients are needed"
NOT_SHOWN = "Switching tracking off is not shown to save time here"
LOWERS = "no_grad lowers the peak of tensor memory"


def told(*results: Result) -> list[str]:
    return advise(run(*results))


def answered(*results: Result) -> list[str]:
    return answer(run(*results))


def test_a_run_is_answered_in_two_sentences_with_the_pooled_gain_by_size_and_the_largest_peak() -> None:
    results = [
        one
        for model in ("mlp", "lstm")
        for size, speedup, peak in (("tiny", 1.2, 8192), ("medium", 1.1, 65536))
        for one in (
            result("tracked", model=model, size=size, memory={"peak_tensor_bytes": peak}),
            result("no_grad", speedup, model=model, size=size, memory={"peak_tensor_bytes": 2048}),
        )
    ]
    sizes = "1.200 ±0.008 for tiny models and 1.100 ±0.008 for medium models"
    assert answered(*results) == [
        f"{USE}: no_grad is 1.149 ±0.006 times as fast as tracked (geometric mean of 4 forward passes), {sizes}.",
        f"{LOWERS} on 4 of 4, from 64.0 KiB to 2.00 KiB on mlp medium.",
    ]


FOR_MEMORY = f"{USE}, for its memory: no_grad is"
COARSE = {"placebo": Interval(1.0, 0.95, 1.05), "resolution": 0.05}
FAILED = {"placebo": Interval(1.05, 1.04, 1.06), "trusted": False}


@pytest.mark.parametrize(
    ("speedup", "control", "sentence"),
    [
        (1.25, {}, f"{USE}: no_grad is 1.25 ±0.01 times as fast as tracked on mlp tiny."),
        (0.8, {}, f"{NOT_SHOWN}: no_grad is 0.800 ±0.008 times as fast as tracked on mlp tiny."),
        (LEVEL, {}, f"{FOR_MEMORY} as fast as tracked, no difference above 0.6 % found on mlp tiny."),
        (WIDE, {}, f"{FOR_MEMORY} not told apart from tracked, no difference above 4.0 % found on mlp tiny."),
        (LEVEL, COARSE, f"{FOR_MEMORY} not told apart from tracked, no difference above 5.0 % found on mlp tiny."),
        (Interval(1, 0.1, 9), {}, f"{FOR_MEMORY} not told apart from tracked, the times scatter too much to tell on mlp tiny."),
        (
            1.25,
            FAILED,
            "No speedup here is evidence: the control, the same code timed twice, differed by 5.0 %; measure again on an idle machine.",
        ),
    ],
)
def test_no_gain_is_given_finer_than_its_interval_and_the_control_and_memory_is_the_reason_left(
    speedup: float | Interval, control: dict[str, Any], sentence: str
) -> None:
    memory = f"{LOWERS}, from 10.0 KiB to 4.00 KiB on mlp tiny."
    assert answered(*group({"no_grad": speedup}, **control)) == [sentence, memory]


def test_groups_that_are_exceptions_to_the_mean_are_named() -> None:
    speedups: dict[str, float | Interval] = {"a": 1.4, "b": 1.5, "c": 0.9, "d": LEVEL}
    results = [one for model, speedup in speedups.items() for one in group({"no_grad": speedup}, model=model)]
    assert answered(*results)[0].endswith(
        "(geometric mean of 4 forward passes); no difference shown on d tiny; slower on c tiny."
    )


def test_a_peak_that_no_grad_raises_is_said_with_what_to_use_there() -> None:
    def raising(speedup: float | Interval) -> list[Result]:
        twice = result("no_grad", speedup, model="attention", memory={"peak_tensor_bytes": 20480})
        return [result("tracked", model="attention"), twice]

    assert answered(*group(), *raising(1.25))[-1] == (
        f"{LOWERS} on 1 of 2, from 10.0 KiB to 4.00 KiB on mlp tiny, but raises the peak of tensor memory"
        " on 1 of 2, from 10.0 KiB to 20.0 KiB on attention tiny: where memory is short, leave tracking on there."
    )
    helped = [*raising(1.25), result("inference_mode", 1.25, model="attention")]
    assert answered(*helped)[-1].endswith("on attention tiny: where memory is short, use inference_mode there.")
    assert answered(*raising(LEVEL))[0].startswith(NOT_SHOWN)
    assert answered(*group(memory=Memory(4096)))[-1] == "no_grad leaves the peak of tensor memory as it is."


def test_inference_mode_is_recommended_only_where_paired_rounds_show_a_gain_over_no_grad_in_the_mean() -> None:
    def both(over_no_grad: Interval, model: str = "mlp") -> list[Result]:
        return [*group(model=model), result("inference_mode", 1.3, over_no_grad=over_no_grad, model=model)]

    gain = both(Interval(1.04, 1.03, 1.05))
    assert answered(*gain)[0].startswith(
        "Use inference_mode where no gradients are needed, or no_grad where autograd meets the results later: inf"
    )
    later = "what it makes can take no part in autograd later."
    assert f"inference_mode is 1.04 ±0.01 times as fast as no_grad; {later}" in told(*gain)
    assert answered(*both(LEVEL))[0].startswith(USE)
    assert f"inference_mode is not told apart from no_grad, no difference above 4.0 % found; {later}" in told(*both(WIDE))
    mixed = [*gain, *both(Interval(0.96, 0.95, 0.97), "b")]
    assert answered(*mixed)[0].startswith(USE), "one noisy winner among two does not decide"


def on_device(model: str, speedup: Interval | float, bound_by: str = "device", **changes: Any) -> list[Result]:
    both: dict[str, Any] = {"model": model, "device": "cuda", "bound_by": bound_by, "busy_seconds": 5e-4}
    tracked = {"host_seconds": 131e-6, "memory": {"peak_tensor_bytes": 55000}, **both, **changes}
    mode = {"host_seconds": 99.9e-6, "memory": {"peak_tensor_bytes": 10000}, **both, **changes}
    return [result("tracked", **tracked), result("no_grad", speedup, **mode)]


@pytest.mark.parametrize(
    ("speedup", "time"),
    [
        (LEVEL, "no time"),
        (WIDE, "no time that shows (no difference above 4.0 % found)"),
        (1.2, "time (no_grad is 1.20 ±0.01 times as fast as tracked)"),
    ],
)
def test_where_the_accelerator_decides_tracking_costs_no_time_but_the_processors_and_memory(
    speedup: float | Interval, time: str
) -> None:
    hidden = (
        f"Where the GPU's work decides (mlp tiny), tracking costs {time}, 31 us of CPU a call hidden behind 500 us of the "
        "GPU's work, 5.5 times the memory (mlp tiny)."
    )
    found = answered(*on_device("mlp", speedup))
    assert (found[0], found[1].partition(",")[0]) == (hidden, LOWERS)
    beside = answered(*on_device("small", 1.3, bound_by="host"), *on_device("mlp", speedup))
    assert beside[:2] == [f"{USE}: no_grad is 1.30 ±0.01 times as fast as tracked on small tiny.", hidden]
    assert answered(*on_device("mlp", speedup, placebo=None))[0] == hidden.replace(f"{time}, ", "")
    only_time = on_device("mlp", speedup, host_seconds=1e-4, memory={"peak_tensor_bytes": None})
    assert answered(*only_time) == [f"Where the GPU's work decides (mlp tiny), tracking costs {time} (mlp tiny)."]


def test_devices_and_executions_are_spoken_of_apart_and_their_memory_comes_below() -> None:
    both = told(*group(), *on_device("mlp", 1.3, bound_by="host"))
    assert [text.partition(" where")[0] for text in both[:2]] == ["On the CPU: Use no_grad", "On the GPU: Use no_grad"]
    assert f"On the GPU: {LOWERS}, from 53.7 KiB to 9.77 KiB on mlp tiny." in both
    compiled = group({"no_grad": 1.5, "inference_mode": 1.5}, execution="compiled")
    eager, other = answered(*group({"no_grad": 1.2}), *compiled)
    assert eager.startswith(f"Eager: {USE}: no_grad is 1.20 ±0.01 times as fast")
    assert other.startswith(f"Compiled: {USE}: no_grad is 1.50 ±0.02 times as fast")
    assert all(sentence.startswith("Compiled: ") for sentence in told(*compiled))
    assert told(*group(device="cuda"), *compiled)[0].startswith("On the GPU, eager: Use no_grad")


def test_modes_that_the_answer_does_not_name_have_a_sentence_each() -> None:
    detach = result("detach", 0.9, memory=result("tracked").memory)
    assert told(*group({"no_grad": 1.2, "set_grad_enabled": 1.1}), detach)[2:] == [
        "set_grad_enabled is 1.10 ±0.01 times as fast as tracked.",
        "detach on the result lowers the peak on 0 of 1 and it is 0.900 ±0.009 times as fast as tracked: it is for taking one tensor out of a graph.",
    ]


def test_each_scenario_has_one_sentence_and_answers_where_there_are_no_forward_passes() -> None:
    evaluation = [*group({"no_grad": 1.2, "detach": LEVEL}, scenario="evaluation")]
    logging = [
        result("tracked", scenario="loss_logging", memory={"held_tensor_bytes": 65536}),
        result("item", 1.03, scenario="loss_logging", memory={"held_tensor_bytes": 4}),
    ]
    step = [result("tracked", scenario="training_step")]
    times = "no_grad 1.20 ±0.01, detach no difference above 0.6 % found"
    sentences = [
        f"evaluation, times as fast as tracked: {times}; peak 10.0 KiB with tracked; 4.00 KiB with no_grad, detach.",
        "loss_logging, times as fast as tracked: item 1.03 ±0.01; held 64.0 KiB with tracked; 4 B with item.",
    ]
    assert answered(*evaluation, *logging, *step) == sentences
    assert told(*group(), *evaluation, *logging)[-2:] == sentences
    assert answered(*group(), *evaluation) == answered(*group())


def test_a_part_of_a_step_is_told_as_its_share_and_entering_a_mode_as_its_time() -> None:
    acting = result("acting_alone", 2.5, scenario="rollout", over_no_grad=Interval(2.0, 1.99, 2.01))
    switches = group({"no_grad": Interval(0.1, 0.099, 0.12)}, scenario="switches", model="context", steps=50, tracked_seconds=20e-6,
                     memory={"peak_tensor_bytes": 0})  # fmt: skip
    training = group({"forward_alone": 4.0}, scenario="training_step")
    assert answered(*training, result("tracked", scenario="rollout"), acting, *switches) == [
        "training_step, forward_alone takes 25.0 ±0.3 % of a step.",
        "rollout, acting_alone takes 50.0 ±0.3 % of a step.",
        "switches, entering and leaving takes 3.60 ±0.08 us with no_grad.",
    ]


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        ([], "Nothing was measured here that tells what tracking costs; `pytest --benchmark` measures it."),
        (
            [result("tracked")],
            "No mode that switches tracking off was measured; `pytest --benchmark --modes tracked,no_grad` does.",
        ),
        (
            group({"no_grad": None}, placebo=None, trusted=False, memory=Memory()),
            "There is no time to hold against tracked's, so this run cannot tell whether switching tracking off saves any.",
        ),
    ],
)
def test_a_run_without_an_answer_says_so_in_a_sentence(results: list[Result], sentence: str) -> None:
    assert answer(Run(results, [unmeasured()])) == [sentence]


@st.composite
def any_interval(draw: st.DrawFn) -> Interval:
    ends = st.floats(1e-300, 1e300) | st.floats(0.5, 2)
    low, estimate, high = sorted((draw(ends), draw(ends), draw(ends)))
    return Interval(estimate, low, high)


@st.composite
def any_run(draw: st.DrawFn) -> Run:
    """A run as the reader may give one: values may be missing or contradict each other."""
    amounts = st.none() | st.integers(0, 2**62)
    times = st.none() | st.floats(0, 1e9)
    results = {}
    for _ in range(draw(st.integers(0, 6))):
        made = result(
            draw(st.sampled_from(["tracked", "no_grad", "inference_mode", "detach", "item", "frozen", "forward_alone"])),
            draw(st.none() | any_interval()),
            memory=Memory(draw(amounts), draw(amounts), draw(amounts)),
            scenario=draw(st.sampled_from(["forward", "evaluation", "loss_logging", "operators", "switches"])),
            model=draw(st.sampled_from(["mlp", "<script>", "context"])),
            size=draw(st.sampled_from(["tiny", "medium", "own"])),
            device=draw(st.sampled_from(["cpu", "cuda"])),
            allocator=draw(st.sampled_from(["pages_kept", "as_shipped"])),
            placebo=draw(st.sampled_from([PLACEBO, None]) | any_interval()),
            trusted=draw(st.booleans()),
            over_no_grad=draw(st.none() | any_interval()),
            host_seconds=draw(times),
            busy_seconds=draw(times),
            bound_by=draw(st.sampled_from([None, "host", "device"])),
            verdict=draw(st.sampled_from(["faster", "slower", "same", "unclear"])),
        )
        results[made.case] = made
    return Run(list(results.values()))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(any_run())
def test_whatever_a_run_holds_there_are_tables_in_every_format_and_an_answer_of_at_most_three_sentences(made: Run) -> None:
    sentences = advise(made)
    assert 1 <= len(answer(made)) <= 3
    assert sentences[: len(answer(made))] == answer(made)
    assert len(set(sentences)) == len(sentences)
    text = " ".join(sentences)
    assert not re.search(r"\b(inf|nan|None|<NA>)\b", text)
    for words in re.findall(r"is (\S+ \S+) times as fast", text):
        assert "±" in words or words.startswith("not known")
    for table in (*overview(made), *summary(made), *claims.tables(made)):
        assert all(view(table) for view in VIEWS.values()) == bool(table.rows or table.notes)
