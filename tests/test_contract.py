"""Each promise of a mode, broken by a small module, is found and named; nothing is named where all are kept; state is put back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stand_ins import Net, linear, tracking
from torch import nn

from benchmarks.failure import Failure
from benchmarks.measure.contract import Observation, check_contract, equal_bits, observe, preserved
from benchmarks.models.workload import tensors
from benchmarks.modes import DETACH, FROZEN, INFERENCE_MODE, MODES, NO_GRAD, TRACKED, Mode, Step
from benchmarks.record import Broken

X = torch.ones(2, 8)


def bound(mode: Mode, module: nn.Module) -> Step:
    return mode.bind(module, lambda model: model(X))


def broken(mode: Mode, module: nn.Module) -> list[Broken]:
    """What the suite finds: the mode's call, then a tracked one, compared."""
    seen = observe(bound(mode, module), module)
    contract = check_contract(mode, seen, observe(bound(TRACKED, module), module))
    assert contract.holds == (not contract.broken)
    return contract.broken


def leaving_off(net: Net, x: torch.Tensor) -> Any:
    y = net.linear(x)
    torch.set_grad_enabled(False)
    return y


def counting(net: Net, x: torch.Tensor) -> Any:
    net.calls += 1
    return net.linear(x) * 0 + net.calls


FORWARDS: dict[str, Callable[[Net, torch.Tensor], Any]] = {
    "linear": linear,
    "views and what is passed through": lambda net, x: (
        x.view(-1),
        net.linear.weight,
        net.linear(x).T[1:],
        net.linear.weight.T,
    ),
    "nan": lambda net, x: net.linear(x) * float("nan"),
    "frozen": lambda net, x: net.requires_grad_(False).linear(x),
    "tracking": tracking,
    "saving": lambda net, x: tracking(net, x).detach(),
    "leaving off": leaving_off,
    "telling modes apart": lambda net, x: net.linear(x) * 0 + (1.0 if torch.is_grad_enabled() else 1.5),
    "counting": counting,
}


@pytest.mark.parametrize("forward", ["linear", "views and what is passed through", "nan"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_mode_that_keeps_its_promises_is_not_accused(mode: Mode, forward: str) -> None:
    assert broken(mode, Net(FORWARDS[forward])) == []


TRACKS = "does not switch tracking off here, because the model tracks by itself: "


def history(mode: str) -> Broken:
    return Broken("history", f"{mode} {TRACKS}the output has a history (AddmmBackward0)")


NO_HISTORY = Broken("history", "the output has no history: nothing was tracked (does any parameter require grad?)")
RECORDING = replace(NO_GRAD, name="recording", records=True)
NOT_SAVED = Broken("records", "nothing was saved for backward: nothing was tracked (does any parameter require grad?)")
SAVED = "64 B are kept for backward beside parameters"
LEFT_OFF = Broken("grad_mode", "gradients were left off after the call")
OTHER_OUTPUT = Broken("same_output", "the output differs from tracked's: by up to 0.5 where values reach 1")
UNSTEADY = Broken(
    "same_output",
    "the output differs from call to call: by up to 1 where values reach 2; state that a call changes has to be a buffer",
)


@pytest.mark.parametrize(
    ("mode", "forward", "found"),
    [
        (NO_GRAD, "tracking", [history("no_grad"), Broken("records", SAVED)]),
        (MODES["set_grad_enabled"], "tracking", [history("set_grad_enabled"), Broken("records", SAVED)]),
        (TRACKED, "frozen", [NO_HISTORY]),
        (NO_GRAD, "frozen", []),
        (NO_GRAD, "saving", [Broken("records", f"no_grad {TRACKS}{SAVED}")]),
        (DETACH, "saving", []),
        (RECORDING, "linear", [NOT_SAVED]),
        (TRACKED, "leaving off", [LEFT_OFF]),
        (DETACH, "leaving off", [LEFT_OFF]),
        (NO_GRAD, "telling modes apart", [OTHER_OUTPUT]),
        (TRACKED, "counting", [UNSTEADY]),
    ],
    ids=lambda value: getattr(value, "name", value if isinstance(value, str) else ""),
)
def test_a_model_that_breaks_a_modes_promise_is_found_by_it(mode: Mode, forward: str, found: list[Broken]) -> None:
    assert broken(mode, Net(FORWARDS[forward])) == found
    assert torch.is_grad_enabled()


def test_an_input_that_requires_grad_is_why_a_frozen_model_is_tracked() -> None:
    module, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU()), X.clone().requires_grad_()
    contract = check_contract(FROZEN, observe(FROZEN.bind(module, lambda model: model(x)), module, [x]))
    assert [one.reason for one in contract.broken] == [
        "frozen does not switch tracking off here, because an input requires grad: the output has a history (ReluBackward0)", SAVED,
    ]  # fmt: skip


def test_gradients_that_were_off_before_are_off_afterwards_but_on_in_the_call() -> None:
    with torch.no_grad():
        assert broken(TRACKED, Net(linear)) == []
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ((X, X), X, "2 tensors instead of 1"),
        (X.half(), X, "float16[2, 8] instead of float32[2, 8]"),
        (X, X * float("nan"), "inf"),
        (torch.tensor([1, 2]), torch.tensor([1, 4]), "by up to 2 where values reach 4"),
        (torch.tensor([True]), torch.tensor([False]), "by up to 1"),
        (torch.tensor([1j]), torch.tensor([3j]), "by up to 2 where values reach 3"),
        (X.to_sparse(), X.to_sparse() * 2, "by up to 1 where values reach 2"),
        (X.to_sparse(), X.to_sparse_csr(), "float32[2, 8] sparse_coo instead of"),
    ],
    ids=["count", "dtype", "nan", "integers", "booleans", "complex", "sparse", "layout"],
)
def test_outputs_of_another_kind_differ_in_words(ours: Any, theirs: Any, said: str) -> None:
    contract = check_contract(NO_GRAD, observation(ours), observation(theirs))
    (promise,) = contract.broken
    assert said in promise.reason
    assert not equal_bits(tensors(ours), tensors(theirs))


@pytest.mark.parametrize(
    "output",
    [X.to_sparse(), X.to_sparse_csr(), X.to_mkldnn(), torch.quantize_per_tensor(X, 0.1, 0, torch.quint8),
     torch.nested.nested_tensor([X, X[:1]])],
    ids=["sparse", "compressed", "oneDNN", "quantised", "nested"],
)  # fmt: skip
def test_outputs_that_are_not_dense_are_compared(output: torch.Tensor) -> None:
    assert check_contract(NO_GRAD, observation(output), observation(output.clone())).holds
    assert equal_bits([output], [output.clone()])


def test_an_output_without_values_is_unsupported_in_torchs_words() -> None:
    empty = observation(X.to("meta"))
    with pytest.raises(Failure, match=r"cannot be compared.*meta tensors") as caught:
        check_contract(NO_GRAD, empty, empty)
    assert caught.value.status == "unsupported"


def observation(output: Any) -> Observation:
    return Observation(tensors(output), histories=[], saved=0, left_grad_enabled=True, changed_buffers=[])


@pytest.mark.parametrize(
    ("dtype", "more"),
    [
        (torch.float16, 2e-2),
        (torch.bfloat16, 0.2),
        (torch.float32, 1e-4),
        (torch.float64, 1e-6),
        (torch.complex64, 1e-4),
    ],
)
def test_a_rounding_difference_is_allowed_and_told_from_equal_bits_and_more_is_not_allowed(
    dtype: torch.dtype, more: float
) -> None:
    exact = torch.full((3,), 3.0, dtype=dtype)
    rounded = exact + torch.finfo(dtype).eps * 2
    assert check_contract(NO_GRAD, observation(rounded), observation(exact)).holds
    assert not equal_bits([rounded], [exact])
    assert not check_contract(NO_GRAD, observation(exact + more), observation(exact)).holds


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_value_near_0_may_be_some_roundings_of_the_largest_one_off(dtype: torch.dtype) -> None:
    exact = torch.tensor([300.0, 0.0, float("inf")], dtype=dtype)
    rounding = torch.finfo(dtype).eps * exact.nan_to_num(0, 0, 0)[0]
    for number, holds in ((3, True), (9, False)):
        off = exact + number * rounding * torch.tensor([0, 1, 0], dtype=dtype)
        assert check_contract(NO_GRAD, observation(off), observation(exact)).holds == holds


def test_nan_equals_nan_and_infinity_itself() -> None:
    strange = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0])
    assert check_contract(NO_GRAD, observation(strange), observation(strange.clone())).holds
    assert equal_bits([strange], [strange.clone()])
    assert not check_contract(NO_GRAD, observation(strange), observation(strange.flip(0))).holds
    assert not equal_bits([strange], [-strange])


def test_buffers_are_put_back_in_value_and_in_place() -> None:
    module = nn.Sequential(nn.BatchNorm1d(8)).train()
    buffers = dict(module.named_buffers())
    values = {name: buffer.clone() for name, buffer in buffers.items()}
    for mode in MODES.values():
        assert broken(mode, module) == []
        assert all(buffer is buffers[name] and torch.equal(buffer, values[name]) for name, buffer in module.named_buffers())


@pytest.mark.parametrize(
    "change", [lambda module: setattr(module, "count", module.count + 1), lambda module: module.count.resize_(7)]
)
def test_after_an_exception_buffers_are_put_back_too_and_what_cannot_be_does_not_hide_it(change: Callable[[Any], None]) -> None:
    module: Any = nn.Module()
    module.register_buffer("count", torch.zeros(1))
    before = module.count

    def change_and_raise() -> None:
        with preserved(module):
            change(module)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        change_and_raise()
    assert module.count is before


@pytest.mark.parametrize("mode", [TRACKED, NO_GRAD, INFERENCE_MODE], ids=lambda mode: mode.name)
def test_inputs_that_the_model_changes_in_place_are_put_back_and_expanded_ones_are_let_be(mode: Mode) -> None:
    x, expanded = torch.ones(2, 8), torch.ones(1, 8).expand(2, 8)
    module = Net(lambda net, _: net.linear(x.mul_(2)) + expanded)
    first = observe(bound(mode, module), module, [x, expanded])
    assert x.tolist() == [[1] * 8] * 2
    second = observe(bound(TRACKED, module), module, [x, expanded])
    assert equal_bits(first.output, second.output)
    assert x.tolist() == [[1] * 8] * 2
    assert first.changed_inputs
    assert not observe(bound(mode, Net(linear)), Net(linear), [x, expanded]).changed_inputs


def test_random_draws_are_the_same_in_every_mode_and_leave_no_trace() -> None:
    module = Net(lambda net, x: nn.functional.dropout(net.linear(x)) + random.random() + np.random.random())

    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state(legacy=False)), random.getstate()

    before = state()
    assert [broken(mode, module) for mode in MODES.values()] == [[]] * len(MODES)
    assert state() == before


def test_a_model_that_uses_torch_func_is_observed_without_what_it_saves() -> None:
    def gradient(net: Net, x: torch.Tensor) -> Any:
        return net.linear(x) * torch.func.grad(lambda y: (y**2).sum())(x)

    module = Net(gradient)
    assert observe(bound(TRACKED, module), module).saved is None
    assert [broken(mode, module) for mode in (TRACKED, NO_GRAD, DETACH)] == [[], [], []]
