"""Each promise of a mode, broken by a small module, is found and named; nothing is named where all are kept; state is put back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.failure import Failure
from benchmarks.measure.contract import Observation, check_contract, equal_bits, observe, preserved, reference_after
from benchmarks.modes import DETACH, DETACHED_PARAMETERS, INFERENCE_MODE, MODES, NO_GRAD, TRACKED, Mode, Step

X = torch.ones(2, 3)


def plain(net: Net, x: torch.Tensor) -> Any:
    return net.linear(x)


class Net(nn.Module):
    """A linear layer, and what the test does with it."""

    def __init__(self, forward: Callable[[Net, torch.Tensor], Any] = plain) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(3, 3)
        self._forward = forward
        self.cache: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


def bound(mode: Mode, module: nn.Module) -> Step:
    return mode.bind(module, lambda model: model(X))


def broken(mode: Mode, module: nn.Module) -> list[str]:
    """What the suite finds: the mode's call, then a tracked one, compared."""
    seen = observe(bound(mode, module), module)
    contract = check_contract(mode, seen, reference_after(mode, bound(TRACKED, module), module))
    assert contract.holds == (not contract.broken)
    return contract.broken


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_mode_that_keeps_its_promises_is_not_accused(mode: Mode) -> None:
    assert broken(mode, Net()) == []


def tracking(net: Net, x: torch.Tensor) -> Any:
    with torch.enable_grad():
        return net.linear(x)


@pytest.mark.parametrize("mode", [NO_GRAD, MODES["set_grad_enabled"]], ids=lambda mode: mode.name)
def test_a_model_that_switches_tracking_on_again_is_found_by_its_history_and_by_what_it_saves(mode: Mode) -> None:
    history, saved = broken(mode, Net(tracking))
    assert history == "the output has a history (AddmmBackward0)"
    assert "saved for backward" in saved


def test_history_in_a_part_of_the_output_is_found() -> None:
    assert "history" in broken(NO_GRAD, Net(lambda net, x: {"a": [net.linear(x), (None, tracking(net, x))]}))[0]


def test_a_model_without_anything_to_track_is_found_under_tracked() -> None:
    module = Net().requires_grad_(False)
    assert broken(TRACKED, module) == ["the output has no history: nothing was tracked (does any parameter require grad?)"]
    assert broken(NO_GRAD, module) == []


def test_a_model_that_saves_without_history_in_its_output_is_found_except_where_the_mode_records() -> None:
    def saves(net: Net, x: torch.Tensor) -> Any:
        return tracking(net, x).detach()

    assert ["saved for backward" in promise for promise in broken(NO_GRAD, Net(saves))] == [True]
    assert broken(DETACH, Net(saves)) == []


def leaving_off(net: Net, x: torch.Tensor) -> Any:
    y = net.linear(x)
    torch.set_grad_enabled(False)
    return y


@pytest.mark.parametrize("mode", [TRACKED, DETACH], ids=lambda mode: mode.name)
def test_gradients_left_off_are_found_and_put_on_again(mode: Mode) -> None:
    assert broken(mode, Net(leaving_off)) == ["gradients were left off after the call"]
    assert torch.is_grad_enabled()


def test_a_gradient_mode_that_was_off_before_is_off_afterwards_but_on_in_the_call() -> None:
    with torch.no_grad():
        assert broken(TRACKED, Net()) == []
        assert not torch.is_grad_enabled()


def test_an_output_that_differs_is_found_with_the_size_of_the_difference() -> None:
    module = Net(lambda net, x: net.linear(x).detach() * 0 + (1.0 if torch.is_grad_enabled() else 1.5))
    assert broken(NO_GRAD, module) == ["the output differs from tracked's: by up to 0.5 where values reach 1"]


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ((X, X), X, "2 tensors instead of 1"),
        (X.half(), X, "torch.float16[2, 3] instead of torch.float32[2, 3]"),
        (X.T, X, "torch.float32[3, 2] instead of torch.float32[2, 3]"),
        (X, X * float("nan"), "inf"),
        (torch.tensor([1, 2]), torch.tensor([1, 4]), "by up to 2 where values reach 4"),
        (torch.tensor([True]), torch.tensor([False]), "by up to 1"),
    ],
    ids=["count", "dtype", "shape", "nan", "integers", "booleans"],
)
def test_outputs_of_another_kind_differ_in_words(ours: Any, theirs: Any, said: str) -> None:
    contract = check_contract(NO_GRAD, observation(ours), observation(theirs))
    assert len(contract.broken) == 1
    assert said in contract.broken[0]
    assert not equal_bits(ours, theirs)


def observation(output: Any) -> Observation:
    return Observation(output, histories=[], saved=0, left_grad_enabled=True, changed_buffers=[])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_a_rounding_difference_is_allowed_and_told_from_equal_bits(dtype: torch.dtype) -> None:
    exact = torch.full((3,), 3.0, dtype=dtype)
    step = torch.finfo(dtype).eps * 2
    assert check_contract(NO_GRAD, observation(exact + step), observation(exact)).holds
    assert not equal_bits(exact + step, exact)
    assert equal_bits([exact, (exact,)], [exact.clone(), (exact.clone(),)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_more_than_rounding_is_not_allowed(dtype: torch.dtype) -> None:
    exact = torch.full((3,), 3.0, dtype=dtype)
    close = {torch.float16: 2e-2, torch.bfloat16: 0.2, torch.float32: 1e-4, torch.float64: 1e-6}[dtype]
    assert not check_contract(NO_GRAD, observation(exact + close), observation(exact)).holds


def test_integers_have_no_rounding_to_allow() -> None:
    assert not check_contract(NO_GRAD, observation(torch.tensor([10**7 + 1])), observation(torch.tensor([10**7]))).holds


def test_nan_equals_nan_and_infinity_itself() -> None:
    strange = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0])
    assert check_contract(NO_GRAD, observation(strange), observation(strange.clone())).holds
    assert equal_bits(strange, strange.clone())
    assert not check_contract(NO_GRAD, observation(strange), observation(strange.flip(0))).holds
    assert not equal_bits(strange, -strange)
    assert broken(NO_GRAD, Net(lambda net, x: net.linear(x) * float("nan"))) == []


def test_without_a_tracked_call_outputs_are_not_compared() -> None:
    assert check_contract(NO_GRAD, observation(X), None).holds


@pytest.mark.parametrize("mode", [NO_GRAD, INFERENCE_MODE], ids=lambda mode: mode.name)
@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: x,
        lambda net, x: x.view(-1),
        lambda net, x: net.linear.weight,
        lambda net, x: net.linear.weight.view(-1)[2:],
        lambda net, x: (net.linear(x), net.linear.weight.T),
        lambda net, x: net.linear(x).T[1:],
    ],
    ids=["input", "view of input", "parameter", "view of parameter", "both", "view of output"],
)
def test_views_and_what_is_passed_through_raise_no_false_alarm(mode: Mode, forward: Callable[[Net, torch.Tensor], Any]) -> None:
    assert broken(mode, Net(forward)) == []


def test_buffers_are_put_back_in_value_and_in_place() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3)).train()
    buffers = dict(module.named_buffers())
    values = {name: buffer.clone() for name, buffer in buffers.items()}
    for mode in MODES.values():
        assert broken(mode, module) == []
        assert all(buffer is buffers[name] and torch.equal(buffer, values[name]) for name, buffer in module.named_buffers())


def test_a_buffer_that_the_model_replaces_is_put_back_also_after_an_exception() -> None:
    module: Any = Net()
    module.register_buffer("count", torch.zeros(1))
    before = module.count

    def replace_and_raise() -> None:
        with preserved(module):
            module.count = module.count + 1
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        replace_and_raise()
    assert module.count is before
    assert module.count.item() == 0


@pytest.mark.parametrize("mode", [TRACKED, NO_GRAD, INFERENCE_MODE], ids=lambda mode: mode.name)
def test_inputs_that_the_model_changes_in_place_are_put_back_before_the_next_mode(mode: Mode) -> None:
    x = torch.ones(2, 3)
    module = Net(lambda net, _: net.linear(x.mul_(2)) * 1)
    first = observe(bound(mode, module), module, [x])
    assert x.tolist() == [[1, 1, 1]] * 2
    second = reference_after(mode, bound(TRACKED, module), module, [x])
    assert torch.equal(first.output, second.output)
    assert x.tolist() == [[1, 1, 1]] * 2


def test_random_draws_are_the_same_in_every_mode_and_leave_no_trace() -> None:
    module = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5)).train()

    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state(legacy=False)), random.getstate()

    before = state()
    for mode in MODES.values():
        assert broken(mode, module) == []
    assert state() == before
    noisy = Net(lambda net, x: net.linear(x) + random.random() + np.random.random())
    assert broken(NO_GRAD, noisy) == []
    assert state() == before


def test_a_model_that_caches_an_inference_tensor_breaks_a_later_tracked_call() -> None:
    def caching(net: Net, x: torch.Tensor) -> Any:
        if net.cache is None:
            net.cache = x * 2
        return net.linear(x) * net.cache

    assert broken(NO_GRAD, Net(caching)) == []
    with pytest.raises(Failure) as caught:
        broken(INFERENCE_MODE, Net(caching))
    assert caught.value.status == "broken_contract"
    assert "a tracked call after inference_mode fails" in caught.value.reason
    assert "Inference tensors cannot be saved for backward" in caught.value.reason


def test_running_out_of_memory_in_the_tracked_call_is_not_blamed_on_the_mode() -> None:
    def full() -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        reference_after(NO_GRAD, full, Net())


def test_a_layer_that_goes_by_two_names_stays_tracked_after_detached_parameters() -> None:
    layer, x = nn.Linear(4, 4), torch.ones(1, 4)
    module = nn.Sequential(layer, layer)
    DETACHED_PARAMETERS.bind(module, lambda model: model(x))()
    assert module(x).grad_fn is not None
    assert isinstance(module[0].weight, nn.Parameter)


def test_inputs_changed_in_place_are_put_back_and_expanded_ones_are_let_be() -> None:
    module, x = nn.Linear(2, 2), torch.zeros(1, 2)
    expanded = torch.ones(1, 2).expand(3, 2)
    observe(lambda: module(x.add_(1)) + module(expanded).sum(), module, [x, expanded])
    assert x.tolist() == [[0.0, 0.0]]


def test_an_expanded_buffer_is_let_be_and_one_that_was_replaced_is_put_back() -> None:
    module = nn.Linear(2, 2)
    expanded, counter = torch.ones(1, 2).expand(3, 2), torch.zeros(1)
    module.register_buffer("expanded", expanded)
    module.register_buffer("counter", counter)

    def step() -> torch.Tensor:
        module.counter = torch.ones(1)
        return cast("torch.Tensor", module(expanded))

    observe(step, module)
    assert module.get_buffer("counter") is counter
    assert counter.item() == 0
