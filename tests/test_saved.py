"""Saved bytes count each storage once, for the module that saved it; copies of parameters and workspaces are told apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.measure.saved import Saved, graph_nodes, histories, saved_for_backward
from benchmarks.models import Workload
from benchmarks.modes import DETACHED_PARAMETERS, Mode, Step, mode_named
from benchmarks.record import SavedBy

KIB, MIB = 2**10, 2**20

W = torch.ones(2, requires_grad=True)


class Keeps(torch.autograd.Function):
    """Saves for backward what the test wants saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *kept: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*kept)
        return x.sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise NotImplementedError


def keeping(*kept: torch.Tensor) -> Step:
    return partial(Keeps.apply, W, *kept)


NOTHING = Workload(nn.Module(), (), {})
"""A model of which nothing is set apart."""


def saved_of(module: nn.Module, x: torch.Tensor, run: Callable[[Any], Any] | None = None) -> Saved:
    step = partial(run, module) if run else partial(module, x)
    return saved_for_backward(step, Workload.of(module, x))


def test_a_storage_saved_under_several_views_counts_once_and_whole() -> None:
    base = torch.ones(1000)
    assert saved_for_backward(keeping(base[:10], base[5:], base.view(10, 100).T), NOTHING).saved_bytes == 4000


def test_parameters_and_buffers_are_left_out_and_what_is_kept_of_inputs_is_told_beside_it_once() -> None:
    """Frozen weights keep the input of a trained layer alive, which the total alone would hide."""
    layer, x = nn.BatchNorm1d(7), torch.ones(100)
    kept = keeping(layer.weight.detach(), *layer.buffers(), x[:10], x, torch.ones(10))
    saved = saved_for_backward(kept, Workload.of(layer, (x, torch.ones(5))))
    assert (saved.saved_bytes, saved.input_saved_bytes) == (40, 400)


def test_a_sparse_tensor_counts_as_its_parts() -> None:
    assert saved_for_backward(keeping(torch.eye(4).to_sparse()), NOTHING).saved_bytes == 4 * (2 * 8 + 4)


def test_tensors_that_are_freed_on_the_way_are_counted_each() -> None:
    """They are dropped by the model at once: only what is kept alive for counting keeps their addresses apart."""

    def step() -> None:
        for _ in range(8):
            keeping(torch.ones(MIB // 4))()

    assert saved_for_backward(step, NOTHING).saved_bytes == 8 * MIB


def test_histories_name_the_nodes_that_an_output_hangs_on() -> None:
    tracked = W * 2
    output = [tracked, {"detached": tracked.detach(), "leaf": W, "sum": tracked.sum()}]
    assert histories(output) == ["MulBackward0", "SumBackward0"]
    with torch.no_grad():
        assert histories(W.view(1, 2)) == [], "though it requires grad"


def test_the_nodes_of_a_graph_are_counted_once_each() -> None:
    x = torch.ones(2, requires_grad=True)
    assert graph_nodes(x) == 0
    assert graph_nodes(x * 2) == 2
    assert graph_nodes((x * 2, x * 3)) == 3


def test_what_is_saved_is_told_by_module_and_sums_to_the_total() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2)))
    x = torch.ones(3, 4)
    saved = saved_of(module, x, lambda model: model(x).exp())
    assert saved.saved_by_module == [SavedBy("1.0", 3 * 8 * 4), SavedBy("(model)", 3 * 2 * 4)]
    assert saved.saved_bytes == 3 * 8 * 4 + 3 * 2 * 4


@pytest.mark.parametrize("part", ["", "1"], ids=["the model", "a part of it"])
@pytest.mark.parametrize("mode", [mode_named("frozen:*"), DETACHED_PARAMETERS], ids=lambda mode: mode.name)
def test_a_mode_that_runs_a_copy_shows_the_paths_in_the_model(mode: Mode, part: str) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    x = torch.ones(3, 4, requires_grad=True)
    step = mode.bind(module.get_submodule(part), lambda model: model(x))
    assert saved_for_backward(step, Workload.of(module, x)).saved_by_module == [SavedBy("1.1", 48)]


def test_a_module_that_is_no_part_of_the_model_goes_by_its_class() -> None:
    activation, x = nn.Tanh(), torch.ones(3, 4)
    saved = saved_of(nn.Linear(4, 4), x, lambda model: activation(model(x)))
    assert saved.saved_by_module == [SavedBy("Tanh", 48)]


def test_the_smallest_savers_are_summed_as_the_rest() -> None:
    module = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()) for _ in range(25)])
    saved = saved_of(module, torch.ones(2, 4))
    assert len(saved.saved_by_module) == 21
    assert saved.saved_by_module[-1] == SavedBy("(smaller ones, anywhere)", 5 * 32)
    assert sum(saver.bytes for saver in saved.saved_by_module) == saved.saved_bytes == 25 * 32


def test_finding_the_savers_leaves_no_hook_behind_even_after_an_exception() -> None:
    with pytest.raises(RuntimeError):
        saved_of(nn.Linear(2, 2), torch.ones(1, 3))
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_where_the_step_does_not_bear_being_watched_all_is_the_models() -> None:
    class Shy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.nn.modules.module._global_forward_hooks:
                raise AssertionError("watched")
            return super().forward(x).exp()

    saved = saved_of(Shy(2, 2), torch.ones(3, 2))
    assert (saved.saved_bytes, saved.saved_by_module) == (24, [SavedBy("(model)", 24)])


def autocast(model: Any, x: torch.Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(x)


@pytest.mark.parametrize(
    ("module", "x", "saved_bytes", "cast_bytes"),
    [
        (nn.Sequential(*[nn.Linear(256, 256) for _ in range(4)]), torch.randn(8, 256), 16 * KIB, 384 * KIB),
        (nn.Sequential(*[nn.Sequential(nn.Linear(256, 256), nn.ReLU()) for _ in range(4)]), torch.randn(8, 256), 20 * KIB, 384 * KIB),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)), torch.randn(1, 3, 8, 8), 2 * (3 * 64 + 4 * 36), 2 * (3 * 4 * 9 + 4 * 8 * 9)),
    ],
    ids=["linear", "linear and relu", "convolution"],
)  # fmt: skip
def test_the_copies_of_weights_that_autocast_keeps_are_told_apart(
    module: nn.Module, x: torch.Tensor, saved_bytes: int, cast_bytes: int
) -> None:
    """Kept in bfloat16 are the input's copy, the activations, and the weights: a first Linear does not need its own again."""
    saved = saved_of(module, x, partial(autocast, x=x))
    assert (saved.saved_bytes, saved.cast_saved_bytes) == (saved_bytes, cast_bytes)
    assert sum(saver.bytes for saver in saved.saved_by_module) == saved_bytes


def test_a_tensor_as_large_as_a_parameter_is_not_taken_for_its_copy() -> None:
    module = nn.Linear(8, 8, bias=False)
    x = torch.randn(8, 8)
    saved = saved_of(module, x, lambda model: (model(x).bfloat16() * W.bfloat16()[0]).sum())
    assert (saved.saved_bytes, saved.cast_saved_bytes) == (8 * 8 * 2 + 2 * 2, 0)
