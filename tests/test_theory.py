"""Closed forms of the bytes that a forward pass saves for backward equal the measured ones, for any size, whatever kernels run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measure.profile import operators
from benchmarks.measure.saved import saved_for_backward
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

ONE_DNN_LSTM, ATTENTION = "aten::mkldnn_rnn_layer", "aten::_scaled_dot_product_flash_attention_for_cpu"


def mlp_bytes(batch: int, width: int, depth: int, *, element_bytes: int, ran: set[str]) -> int:
    """Each ReLU keeps its result, which is also what the next Linear keeps as its input.

    The first Linear keeps the model's input, and a Linear's own result is kept by nobody.
    """
    return depth * batch * width * element_bytes


def convnet_bytes(batch: int, image: int, channels: int, stages: int, blocks: int, *, element_bytes: int, ran: set[str]) -> int:
    """A batch norm keeps its input, a ReLU its result, which the next convolution keeps as its input.

    That is two maps in the stem, four in a block, and a fifth, for the shortcut's batch norm, in a stage's first. A map of stage s has
    channels * 2^s * (image / 2^s)^2 values (a stride of 2 rounds the side up). In eval mode a batch norm keeps no statistics of the
    batch. The head keeps its input.
    """
    side, values = image, 2 * channels * image**2
    for stage in range(stages):
        side = (side + 1) // 2 if stage > 0 else side
        values += (4 * blocks + (stage > 0)) * channels * 2**stage * side**2
    head_width: int = channels * 2 ** (stages - 1)
    return (values + head_width) * batch * element_bytes


def transformer_bytes(
    batch: int, tokens: int, width: int, heads: int, depth: int, vocabulary: int, *, element_bytes: int, ran: set[str]
) -> int:
    """In widths per row (rows = batch * tokens), a block keeps 16, and the last layer norm and the head 2 more.

    They are 1 + 1 the inputs of its layer norms, 1 + 1 their results as inputs of the first Linears, 3 the queries, keys and values, 1
    attention's result (input of `out` as well), 4 GELU's input, 4 its result as input of the last Linear. Each layer norm also keeps a
    mean and a deviation per row, and attention the logarithm of each softmax's sum, in float32 per head and row. The sums of
    the shortcuts are inputs of the next layer norm. The embedding keeps the token ids, which are the model's input.
    """
    assert ATTENTION in ran, "the form is that of this kernel"
    rows = batch * tokens
    block_bytes = (16 * width + 4) * rows * element_bytes + 4 * heads * rows
    return depth * block_bytes + (2 * width + 2) * rows * element_bytes


def lstm_bytes(batch: int, steps: int, features: int, width: int, depth: int, *, element_bytes: int, ran: set[str]) -> int:
    """oneDNN keeps the initial states (2 per layer), and per layer its results of all steps and its last two states; beside them a workspace.

    torch itself runs the cell step by step and keeps, per layer and step, four gates and four states. Both keep a copy of the input with
    time first, unless there is one step or one sequence and the transposed input is the input itself.
    """
    copied_input = batch * steps * features if batch > 1 and steps > 1 else 0
    states = depth * batch * width * (steps + 4 if ONE_DNN_LSTM in ran else 8 * steps)
    return (copied_input + states) * element_bytes


FORMS: dict[str, Callable[..., int]] = {
    "mlp": mlp_bytes, "convnet": convnet_bytes, "transformer": transformer_bytes, "lstm": lstm_bytes,
}  # fmt: skip


def test_every_family_has_a_closed_form() -> None:
    assert set(FORMS) == set(SIZES) == set(MODELS)


@pytest.mark.parametrize("one_dnn", [True, False], ids=["oneDNN", "without oneDNN"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_the_closed_form_holds_for_any_size(name: str, dtype: torch.dtype, one_dnn: bool) -> None:
    """Which kernels run depends on the CPU (oneDNN has bfloat16 LSTMs on some): the form of those that ran must hold."""

    @settings(max_examples=8, deadline=None, derandomize=True, database=None)
    @given(SIZES[name])
    def holds(size: dict[str, int]) -> None:
        module, inputs = MODELS[name].build(**size)
        workload = Workload.of(module.eval(), inputs).to("cpu", dtype)
        step = partial(workload.run, workload.module)
        with torch.backends.mkldnn.flags(enabled=one_dnn):
            ran = set(operators(step).everywhere)
            saved = saved_for_backward(step, workload)
        assert saved.saved_bytes - saved.opaque_saved_bytes == FORMS[name](**size, element_bytes=dtype.itemsize, ran=ran)

    holds()
