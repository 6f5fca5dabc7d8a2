"""What all tests of this folder share."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True, scope="session")
def small_heap() -> None:
    """What was imported by now, torch above all, is left out of collections: they would take most of the time of many tests."""
    gc.freeze()
