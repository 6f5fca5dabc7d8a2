"""Closed forms of the bytes saved for backward equal the measured ones, for any size, in float32 and bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measure.graph import saved_for_backward
from benchmarks.models import MODELS, Workload

SMALL = st.integers(1, 5)
SIZES: dict[str, Any] = {
    "mlp": st.fixed_dictionaries({"batch": SMALL, "width": SMALL, "depth": SMALL}),
    "convnet": st.fixed_dictionaries(
        {"batch": SMALL, "image": st.integers(4, 11), "channels": SMALL, "stages": st.integers(1, 3), "blocks": st.integers(1, 2)}
    ),
    "transformer": st.builds(
        lambda heads, head_width, **rest: {"heads": heads, "width": heads * head_width, **rest},
        heads=st.integers(1, 3), head_width=st.integers(1, 4), batch=SMALL, tokens=st.integers(2, 6), depth=st.integers(1, 3),
        vocabulary=st.integers(2, 9),
    ),
    "lstm": st.fixed_dictionaries({"batch": SMALL, "steps": SMALL, "features": SMALL, "width": SMALL, "depth": st.integers(1, 3)}),
}  # fmt: skip


def test_every_family_has_a_closed_form() -> None:
    assert set(SIZES) == set(MODELS)
    assert all(family.saved_bytes is not None for family in MODELS.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_the_closed_form_holds_for_any_size(name: str, dtype: torch.dtype) -> None:
    family = MODELS[name]
    assert family.saved_bytes is not None
    closed_form = family.saved_bytes

    @settings(max_examples=12, deadline=None)
    @given(SIZES[name])
    def holds(size: dict[str, int]) -> None:
        module, inputs = family.build(**size)
        workload = Workload.of(module.eval(), inputs).to("cpu", dtype)
        saved = saved_for_backward(lambda: workload.run(workload.module), workload.constants())
        assert saved.total_bytes - saved.opaque_bytes == closed_form(**size, element_bytes=dtype.itemsize)

    holds()
