"""Noise as machines have it: what the coverage study draws its log-ratios from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DEVIATION = 0.02
"""Of log-ratios, about what a shared machine has."""

STRONGEST = "AR(1) of 0.9"


@dataclass(frozen=True, slots=True)
class Noise:
    """`draw(rng, n)` has median 0 and, apart from bursts, the deviation 1. A drift rises by `drift` deviations over the run.

    `rounds_for_98` is from how many rounds on 98 % of intervals are asked to hold the truth.
    """

    draw: Callable[[np.random.Generator, int], Floats]
    drift: float = 0.0
    rounds_for_98: int = 200
    bursts: bool = False

    def series(self, rng: np.random.Generator, rounds: int, deviation: float = DEVIATION) -> Floats:
        values = deviation * (self.draw(rng, rounds) + np.linspace(0, self.drift, rounds))
        return values + tenfold(rng, rounds) - tenfold(rng, rounds) if self.bursts else values

    def truth(self, seen: int, rounds: int, deviation: float = DEVIATION) -> float:
        """The noiseless value in the middle of the first `seen` of `rounds`."""
        return deviation * self.drift * (seen - 1) / (rounds - 1) / 2


def white(rng: np.random.Generator, n: int) -> Floats:
    return rng.normal(size=n)


def autoregressive(weight: float) -> Callable[[np.random.Generator, int], Floats]:
    """Stationary AR(1): the shocks' weights fade to below 1e-9, then are cut."""
    fading = math.sqrt(1 - weight**2) * weight ** np.arange(math.ceil(math.log(1e-9) / math.log(weight)))

    def draw(rng: np.random.Generator, n: int) -> Floats:
        return np.convolve(rng.normal(size=n + fading.size - 1), fading, "valid")

    return draw


def student(rng: np.random.Generator, n: int) -> Floats:
    return rng.standard_t(2, n)


def tenfold(rng: np.random.Generator, n: int) -> Floats:
    """What is added to one lane's log-seconds: 5 % of rounds are ten times slower."""
    return np.where(rng.random(n) < 0.05, math.log(10), 0.0)


NOISES: Mapping[str, Noise] = MappingProxyType({
    "white": Noise(white),
    "AR(1) of 0.5": Noise(autoregressive(0.5)),
    STRONGEST: Noise(autoregressive(0.9), rounds_for_98=1000),
    "drift": Noise(white, drift=4.0),
    "Student t, 2 degrees": Noise(student),
    "bursts": Noise(white, bursts=True),
    "AR(1) of 0.5, bursts": Noise(autoregressive(0.5), bursts=True),
})  # fmt: skip
