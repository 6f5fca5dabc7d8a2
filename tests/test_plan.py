"""Which groups the options ask for: every scenario by default, forward passes alone where models or sizes were chosen."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import allocator
from benchmarks.options import DEFAULT_SIZES, OptionError, parse
from benchmarks.plan import Planned, plan
from benchmarks.room import ThisProcess
from benchmarks.scenarios import SCENARIOS


def planned(**chosen: Any) -> list[Planned]:
    return plan(parse(**{"device": "cpu", **chosen}), ThisProcess())


def cases(**chosen: Any) -> set[tuple[str, str, str]]:
    return {(one.group.scenario, one.group.model, one.group.size) for one in planned(**chosen)}


def modes(scenario: str, **chosen: Any) -> tuple[str, ...]:
    return next(one.modes for one in planned(scenarios=scenario, **chosen))


def test_by_default_every_scenario_runs_what_it_brings_and_forward_all_models_in_three_sizes() -> None:
    found = cases()
    assert {scenario for scenario, *_ in found} == set(SCENARIOS)
    assert {size for scenario, _, size in found if scenario == "forward"} == set(DEFAULT_SIZES)
    assert {one for one in found if one[0] == "evaluation"} == {("evaluation", "convnet", "tiny")}


@pytest.mark.parametrize("chosen", [{"models": "mlp"}, {"sizes": "tiny"}])
def test_a_choice_of_models_or_sizes_is_meant_for_forward_passes(chosen: dict[str, str]) -> None:
    assert {scenario for scenario, *_ in cases(**chosen)} == {"forward"}


def test_a_scenario_that_is_named_runs_the_models_and_sizes_that_were_chosen() -> None:
    assert cases(scenarios="training_step", models="mlp", sizes="tiny") == {("training_step", "mlp", "tiny")}
    assert cases(scenarios="evaluation", sizes="small,medium") == {
        ("evaluation", "convnet", "small"), ("evaluation", "convnet", "medium"),
    }  # fmt: skip


def test_a_scenario_with_models_of_its_own_takes_no_others() -> None:
    with pytest.raises(OptionError, match="--scenarios generation: generation runs models of its own; leave out --models"):
        planned(scenarios="generation", models="mlp")


def test_options_that_leave_nothing_are_named() -> None:
    with pytest.raises(OptionError, match="--scenarios generation has none of --sizes large"):
        planned(scenarios="generation", sizes="large")


def test_a_scenarios_own_modes_run_all_or_those_that_were_asked_for() -> None:
    assert modes("loss_logging") == ("tracked", "item", "detach", "float")
    assert modes("loss_logging", modes="item,no_grad") == ("item",)
    assert modes("forward") == ("tracked", "no_grad", "inference_mode", "detach")


def test_a_mode_that_only_a_scenario_has_leaves_forward_out() -> None:
    assert {scenario for scenario, *_ in cases(modes="forgot_eval")} == {"evaluation"}


def test_parameters_are_frozen_by_pattern_where_the_registered_modes_run() -> None:
    assert modes("forward", freeze=["encoder.*"])[-1] == "frozen:encoder.*"
    assert "frozen:encoder.*" not in modes("evaluation", freeze=["encoder.*"])


def test_only_forward_passes_are_measured_as_shipped_too_unless_it_is_asked_for() -> None:
    allocators = {(one.group.scenario, one.group.allocator) for one in planned(scenarios="forward,generation")}
    assert allocators == {("forward", "resident"), ("forward", "default"), ("generation", "resident")}
    (asked,) = planned(scenarios="generation", allocator="default")
    assert asked.group.allocator == "default"


def test_where_pages_cannot_be_kept_scenarios_are_measured_as_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "unavailable", lambda: "no glibc")
    (only,) = planned(scenarios="generation")
    assert only.group.allocator == "default"


def test_cuda_is_planned_once_and_the_cpu_for_both_allocators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.options._devices", lambda _text: ("cpu", "cuda"))
    groups = [one.group for one in planned(models="mlp", sizes="tiny")]
    assert [(group.device, group.allocator) for group in groups] == [
        ("cpu", "resident"), ("cpu", "default"), ("cuda", "resident"),
    ]  # fmt: skip
