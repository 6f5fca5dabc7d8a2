"""Temporaries count, operators are counted on every thread, and what a meter does not see is known."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.measure.profile import allocations, operators


def test_temporaries_inside_an_operator_count_and_what_is_freed_before_the_next_does_not_add_up() -> None:
    x = torch.ones(64, 256)
    call = allocations(lambda: [torch.logsumexp(x, dim=1) for _ in range(5)][:1])
    assert call.held_bytes == 64 * 4
    assert x.nbytes + 64 * 4 < call.peak_bytes < 2 * x.nbytes


def test_operators_are_counted_one_by_one() -> None:
    x = torch.ones(4, 4)
    ran = operators(lambda: torch.relu(x @ x @ x)).everywhere
    assert (ran["aten::mm"], ran["aten::relu"]) == (2, 1)
    assert all(name.startswith("aten::") for name in ran)


def test_a_step_whose_operators_vary_from_call_to_call_is_not_taken_for_one_with_threads() -> None:
    calls = iter(range(4))

    def step() -> list[torch.Tensor]:
        return [torch.ones(4) for _ in range(next(calls))]

    assert operators(step).unseen(allocations(step)) == []


jit: Any = torch.jit  # TorchScript takes comments for mypy as its own


def summed_exp(x: torch.Tensor) -> torch.Tensor:
    return x.exp().sum()


def forked_sum(x: torch.Tensor) -> torch.Tensor:
    joined: torch.Tensor = jit.wait(jit.fork(summed_exp, x))
    return joined


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_what_torch_itself_forks_is_seen_to_the_byte() -> None:
    x, forked = torch.ones(64, 256), jit.script(forked_sum)
    step = partial(forked, x)
    step()
    for _ in range(5):
        call = allocations(step)
        assert (call.peak_bytes, operators(step).unseen(call)) == (x.nbytes + 4, [])
