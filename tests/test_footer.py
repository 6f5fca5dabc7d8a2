"""Proves that the notes below the table say how far it can be believed and what is missing, and nothing that says nothing."""

from __future__ import annotations

from itertools import product

from builders import make_group, make_result
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.footer import footer
from benchmarks.record import Case, Interval, Memory, ProcessReading, Result, Unmeasured, tidy_rows

QUICK = settings(max_examples=50, deadline=None, derandomize=True, database=None)

OFF = Interval(1.05, 1.03, 1.07)


def notes(*results: Result, unmeasured: tuple[Unmeasured, ...] = ()) -> list[str]:
    return footer(tidy_rows(results), unmeasured)


def about(start: str, found: list[str]) -> str:
    (note,) = [note for note in found if note.startswith(start)]
    return note


def test_a_plain_run_has_no_notes_but_what_its_columns_mean_and_its_placebo() -> None:
    assert notes(*make_group()) == [
        "measured: forward; cpu; float32; resident",
        "speedup: tracked's time over the mode's, ± the wider half of its 99 % interval; above 1: faster",
        "ratio: peak tensor memory over tracked's; saved: kept for backward; RSS: what the process grew by",
        "placebo (identical code, 1 by construction): off by 0.1 %",
    ]
    assert notes() == []


def test_placebos_are_told_per_allocator_by_median_and_worst() -> None:
    readings = {"mlp": (0.998, 1.01), "lstm": (1.001, 0.96), "convnet": (1.009, 1.02)}
    results = [
        make_result("tracked", case={"model": model, "allocator": allocator}, placebo=Interval(value, 0.9, 1.1))
        for model, values in readings.items()
        for allocator, value in zip(("resident", "default"), values, strict=True)
    ]
    assert about("placebo", notes(*results)).partition("): ")[2] == (
        "tracking alone off by 0.2 % in the median group, 0.9 % in the worst (convnet tiny); "
        "as shipped off by 2.0 % in the median group, 4.0 % in the worst (lstm tiny)"
    )


def test_without_a_placebo_nothing_is_said_of_it() -> None:
    assert not any(note.startswith("placebo") for note in notes(make_result(placebo=None, trusted=False)))


def test_groups_that_were_timed_again_are_named() -> None:
    twice = make_group(model="lstm"), make_group(model="lstm", allocator="default")
    results = [make_result(one.case.mode, case={"model": "lstm", "allocator": one.case.allocator}, discarded_placebos=[OFF] * number)
               for number, group in zip((1, 2), twice, strict=True) for one in group]  # fmt: skip
    expected = "timed again because untrusted: lstm tiny tracking alone once, lstm tiny as shipped 2 times"
    assert expected in notes(*results, *make_group())
    assert "timed again because untrusted: lstm tiny once" in notes(results[0])


def test_several_processes_are_told_where_there_were_several() -> None:
    reading = ProcessReading(9, 1e-4, None, None, None)
    alone = [
        make_result("tracked", processes=[reading] * number, case={"model": model})
        for model, number in (("mlp", 5), ("lstm", 3))
    ]
    assert "speedup: combined from 3 to 5 processes per group" in notes(*alone)
    assert "speedup: combined from 2 processes per group" in notes(make_result("tracked", processes=[reading] * 2))
    both = notes(*alone, make_result("tracked", case={"allocator": "default"}, processes=[reading]))
    assert "tracking alone: combined from 3 to 5 processes per group" in both
    assert not any(note.startswith("as shipped: combined") for note in both)


def test_groups_are_named_by_what_tells_them_apart() -> None:
    results = [make_result("tracked", case={"device": device}, trusted=False) for device in ("cpu", "cuda")]
    assert "verdict?: the group is untrusted, its speedups are no evidence (mlp tiny cpu, mlp tiny cuda)" in notes(*results)


def test_cases_that_were_not_measured_for_one_reason_are_one_note() -> None:
    def lost(model: str, mode: str, reason: str, allocator: str = "default") -> Unmeasured:
        return Unmeasured(make_result(mode, case={"model": model, "allocator": allocator}).case, "unsupported", reason)

    modes = ("tracked", "no_grad")
    unmeasured = [lost(model, mode, "no\nglibc") for model in ("mlp", "lstm") for mode in modes]
    unmeasured += [lost("gru", "no_grad", "no glibc"), lost("gru", "no_grad", "a view", allocator="resident")]
    default, resident = notes(unmeasured=tuple(unmeasured))
    cases = "forward mlp,lstm tiny cpu float32 default tracked,no_grad; forward gru tiny cpu float32 default no_grad"
    assert default == f"not measured: {cases}: unsupported: no glibc"
    assert resident == "not measured: forward gru tiny cpu float32 resident no_grad: unsupported: a view"


@QUICK
@given(st.sets(st.tuples(st.sampled_from("ab"), st.sampled_from("cde"), st.sampled_from("fg")), min_size=1))
def test_merged_cases_name_exactly_those_that_they_stand_for(lost: set[tuple[str, str, str]]) -> None:
    unmeasured = [Unmeasured(Case("s", model, size, "cpu", "d", "r", mode), "crashed", "why") for model, size, mode in lost]
    (note,) = notes(unmeasured=tuple(unmeasured))
    boxes = note.removeprefix("not measured: ").removesuffix(": crashed: why").split("; ")
    named = [case for box in boxes for case in product(*(field.split(",") for field in box.split(" ")))]
    assert sorted((case[1], case[2], case[6]) for case in named) == sorted(lost)


def test_withheld_figures_are_told_with_their_reason_and_so_are_meters_that_disagree() -> None:
    withheld = Memory(unavailable={"peak_rss_bytes": "its meter was off by 3 MiB"})
    results = [make_result(mode, memory=withheld) for mode in ("tracked", "no_grad")]
    found = footer(tidy_rows(results), (), ["mlp tiny: peak of detach is 1 B"])
    assert found[-2:] == [
        "withheld: mlp tiny tracked,no_grad: peak_rss_bytes: its meter was off by 3 MiB",
        "meters disagree: mlp tiny: peak of detach is 1 B",
    ]
