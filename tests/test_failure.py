"""Exceptions are told apart: short of memory, refused by torch in this mode, or a defect."""

from __future__ import annotations

import pytest
import torch

from benchmarks.failure import Failure, describe


def raised(action: str) -> Exception:
    """What torch really raises."""
    try:
        if action == "allocate":
            torch.empty(10**15)
        elif action == "save an inference tensor":
            with torch.inference_mode():
                x = torch.ones(2)
            torch.ones(2, requires_grad=True) * x
        elif action == "numpy":
            torch.ones(2, requires_grad=True).numpy()
        elif action == "leaf in place":
            torch.ones(2, requires_grad=True).add_(1)
        elif action == "shapes":
            torch.ones(2, 3) @ torch.ones(2, 3)
    except Exception as error:  # noqa: BLE001 - the very point
        return error
    raise AssertionError(action)


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("allocate", "out_of_memory"),
        ("save an inference tensor", "unsupported"),
        ("numpy", "unsupported"),
        ("leaf in place", "unsupported"),
        ("shapes", "crashed"),
    ],
)
def test_torchs_own_errors_get_the_status_of_what_they_are_about(action: str, status: str) -> None:
    assert Failure.of(raised(action)).status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (NotImplementedError("no kernel"), "unsupported"),
        (RuntimeError("boom"), "crashed"),
        (ValueError("this requires grad students"), "crashed"),
        (SystemExit(3), "crashed"),
    ],
)
def test_every_other_error_is_a_crash_unless_its_class_says_more(error: BaseException, status: str) -> None:
    assert Failure.of(error).status == status


def test_what_was_asked_for_is_told_where_memory_was_short() -> None:
    message = (
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 7.50 GiB is free."
    )
    assert "Tried to allocate 20.00 GiB" in Failure.of(torch.OutOfMemoryError(message)).reason
    assert f"tried to allocate {4 * 10**15} bytes" in Failure.of(raised("allocate")).reason


def test_a_failure_keeps_its_status_and_gains_the_lane() -> None:
    again = Failure.of(Failure("timed_out", "too long"), lane="detach")
    assert (again.status, again.reason, again.lane) == ("timed_out", "too long", "detach")
    assert Failure.of(again, lane="no_grad").lane == "detach"


def test_an_error_is_described_in_one_bounded_line() -> None:
    assert describe(ValueError("two\nlines")) == "ValueError: two lines"
    assert describe(KeyError()) == "KeyError"
    assert len(describe(ValueError("x" * 5000))) < 350
    assert describe(raised("shapes")).endswith(")")
