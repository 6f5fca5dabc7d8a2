"""Every mode does what it promises and leaves the gradient mode, the model and its own later calls alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.failure import Failure
from benchmarks.measure.saved import histories, record_saved, saved_for_backward
from benchmarks.models import MODELS, Workload
from benchmarks.models.workload import Family, tensors
from benchmarks.modes import DETACHED_PARAMETERS, FROZEN, MODES, TRACKED, Mode, freezing, mode_named

every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
every_family = pytest.mark.parametrize("family", MODELS.values(), ids=MODELS)


class Normed(nn.Module):
    """Has tied weights, and a batch norm that moves its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.linear.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.norm(self.tied(self.linear(x)))


@every_mode
@every_family
def test_a_mode_gives_trackeds_output_and_keeps_its_promises(mode: Mode, family: Family) -> None:
    workload = family.workload("tiny")
    expected = tensors(TRACKED.bind(workload.module, workload.run)())
    output, saved = record_saved(mode.bind(workload.module, workload.run))
    torch.testing.assert_close(tensors(output), expected, check_stride=True)
    assert bool(histories(output)) == mode.history
    assert bool(saved) == (mode.records is None)


@every_mode
@pytest.mark.parametrize("enabled", [True, False])
def test_the_gradient_mode_of_before_is_restored_also_when_the_model_raises_or_the_step_is_called_inside_itself(
    mode: Mode, enabled: bool
) -> None:
    depth = 0

    def run(model: Callable[..., Any]) -> Any:
        nonlocal depth
        depth += 1
        if depth < 3:
            step()
        return model(torch.ones(1, 2))

    step = mode.bind(nn.Linear(2, 2), run)
    raising = mode.bind(nn.Linear(2, 2), lambda model: model(torch.ones(1, 3)))
    with torch.set_grad_enabled(enabled):
        assert bool(histories(step())) == (mode.history and enabled)
        assert torch.is_grad_enabled() == enabled
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            raising()
        assert torch.is_grad_enabled() == enabled
        assert not torch.is_inference_mode_enabled()


@every_mode
def test_a_mode_leaves_the_models_parameters_as_they_were_and_moves_its_buffers(mode: Mode) -> None:
    module = Normed()
    before = [(name, id(parameter), parameter._version) for name, parameter in module.named_parameters()]
    mode.bind(module, lambda model: model(torch.ones(3, 4)))()
    assert [(name, id(parameter), parameter._version) for name, parameter in module.named_parameters()] == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert module.norm.num_batches_tracked is not None
    assert module.norm.num_batches_tracked.item() == 1


def test_detached_parameters_are_never_put_into_the_model_itself() -> None:
    """cuDNN's recurrent layers would keep hold of them, and gather the weights anew in each mode's turn."""
    module = nn.Linear(2, 2)
    seen: list[bool] = []
    module.register_forward_pre_hook(lambda called, _: seen.append(called is module))
    DETACHED_PARAMETERS.bind(module, lambda model: model(torch.ones(1, 2)))()
    assert seen == [False]


@pytest.mark.parametrize("mode", [FROZEN, DETACHED_PARAMETERS], ids=lambda mode: mode.name)
def test_modes_with_parameters_of_their_own_follow_the_models_and_need_a_module_that_can_be_copied(mode: Mode) -> None:
    module = nn.Linear(2, 2)
    step = mode.bind(module, lambda model: model(torch.ones(1, 2)))
    with torch.no_grad():
        module.weight.fill_(3)
        module.bias.zero_()
    assert step().tolist() == [[6, 6]]
    module.cache = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(Failure, match="the module cannot be copied: Only Tensors created explicitly") as raised:
        mode.bind(module, lambda model: model)
    assert raised.value.status == "unsupported"


class Unshared(nn.Linear):
    """Its copies have values of their own, as those of TorchScript's modules do."""

    def __deepcopy__(self, _: Any) -> nn.Linear:
        return nn.Linear(self.in_features, self.out_features)


@pytest.mark.parametrize("mode", [FROZEN, DETACHED_PARAMETERS], ids=lambda mode: mode.name)
def test_a_module_whose_copy_does_not_share_its_parameters_is_unsupported(mode: Mode) -> None:
    with pytest.raises(Failure, match="a copy of Unshared does not share its parameters") as raised:
        mode.bind(Unshared(2, 2), lambda model: model)
    assert raised.value.status == "unsupported"


LINEAR = [lambda: nn.Linear(8, 8)]
WITH_ACTIVATIONS = [*LINEAR, nn.ReLU]


@pytest.mark.parametrize(
    ("layers", "pattern", "saved"),
    [
        (LINEAR, "*", 0), (LINEAR, "0.*", 3), (LINEAR, "[123].*", 0), (LINEAR, "?.bias", 3), (LINEAR, "3.weight", 2),
        (WITH_ACTIVATIONS, "[2468].*", 4), (WITH_ACTIVATIONS, "6.*", 4), (WITH_ACTIVATIONS, "[024].*", 2),
    ],
)  # fmt: skip
def test_freezing_says_exactly_what_each_pattern_saves(layers: list[Callable[[], nn.Module]], pattern: str, saved: int) -> None:
    """Of four linear layers: the input of each that learns is kept, and the outputs of the activations behind the first that does."""
    chain, inputs = nn.Sequential(*(make() for _ in range(4) for make in layers)), torch.randn(16, 8)
    step = mode_named(freezing(pattern)).bind(chain, lambda model: model(inputs))
    assert saved_for_backward(step, Workload.of(chain, inputs)).saved_bytes == saved * inputs.nbytes


def test_a_pattern_that_matches_nothing_lists_the_names() -> None:
    with pytest.raises(Failure, match=r"matches encoder\.\*; there are weight, bias"):
        mode_named(freezing("encoder.*")).bind(nn.Linear(2, 2), lambda model: model)
