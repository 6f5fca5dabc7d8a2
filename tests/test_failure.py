"""Exceptions are told apart: short of memory, refused by torch in this mode, or a defect."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.failure import Failure, describe

with torch.inference_mode():
    INFERRED = torch.ones(2)


def weight() -> torch.Tensor:
    return torch.ones(2, requires_grad=True)


RAISING: dict[str, tuple[str, Callable[[], Any]]] = {
    "an inference tensor is saved": ("unsupported", lambda: weight() * INFERRED),
    "an inference tensor is written": ("unsupported", lambda: INFERRED.add_(1)),
    "an inference tensor is to require grad": ("unsupported", INFERRED.requires_grad_),
    "numpy is called": ("unsupported", lambda: weight().numpy()),
    "a leaf is written": ("unsupported", lambda: weight().add_(1)),
    "a leaf is written through a view": ("unsupported", lambda: weight()[:1].add_(1)),
    "a result is copied": ("unsupported", lambda: copy.deepcopy(weight() * 2)),
    "nothing can be sent backward": ("unsupported", lambda: torch.ones(1).backward()),  # type: ignore[no-untyped-call]
    "nothing leads there": ("unsupported", lambda: torch.autograd.grad(weight().sum(), weight().detach())),
    "a dtype has no kernel": ("unsupported", lambda: torch.linalg.qr(torch.ones(2, 2, dtype=torch.float16))),
    "shapes do not fit": ("crashed", lambda: torch.ones(2, 3) @ torch.ones(2, 3)),
    "a module lacks its forward": ("crashed", lambda: nn.Module()(1)),
    "integers cannot require grad": ("crashed", lambda: torch.ones(1, dtype=torch.int64).requires_grad_()),
    "memory cannot be had": ("out_of_memory", lambda: torch.empty(10**15)),
}


def failure_of(action: Callable[[], Any]) -> Failure:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what torch raises is the very point
        action()
    return Failure.of(caught.value)


@pytest.mark.parametrize(("status", "action"), RAISING.values(), ids=RAISING)
def test_what_torch_refuses_in_a_gradient_mode_is_told_from_what_fails_in_any_where(
    status: str, action: Callable[[], Any]
) -> None:
    assert failure_of(action).status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out_of_memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory"),
        (RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive"), "unsupported"),
        (RuntimeError("Unsupported dtype BFloat16"), "unsupported"),
        (RuntimeError("torch.compile does not support compiling torch.jit.script models directly."), "unsupported"),
        (RuntimeError("The stateless API can't be used with nn.DataParallel module"), "unsupported"),
        (NotImplementedError("my model does not do that yet"), "crashed"),
        (RuntimeError("the student requires grad, grad_fn or not"), "crashed"),
        (ValueError("a leaf Variable that requires grad"), "crashed"),
        (SystemExit(3), "crashed"),
    ],
)
def test_the_class_of_an_error_counts_before_its_words(error: BaseException, status: str) -> None:
    assert Failure.of(error).status == status


def test_a_failure_keeps_its_status_and_gains_the_arm() -> None:
    again = Failure.of(Failure("timed_out", "too long"), arm="detach")
    assert (again.status, again.reason, again.arm, str(again)) == ("timed_out", "too long", "detach", "timed_out: too long")
    assert Failure.of(again, arm="no_grad").arm == "detach"


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError


def test_the_reason_is_one_bounded_line_of_printable_characters_with_the_line_that_raised() -> None:
    assert describe(ValueError("two\nlines \x1b[31mand a colour\x00")) == "ValueError: two lines [31mand a colour"
    assert describe(KeyError()) == "KeyError"
    assert describe(ValueError("x" * 5000)) == f"ValueError: {'x' * 300}..."
    assert describe(Speechless()) == "Speechless: (its text cannot be had: ValueError)"
    reason = failure_of(lambda: torch.empty(10**15)).reason
    assert f"tried to allocate {4 * 10**15} bytes" in reason
    assert "(test_failure.py:" in reason
