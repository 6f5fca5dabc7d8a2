"""From the timings of a group, one for each process or heap, to the result of each of its cases."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.measure.timing import Timings
from benchmarks.modes import NO_GRAD, TRACKED
from benchmarks.record import Case, Interval, ProcessReading, Result, Timed, Verdict
from benchmarks.statistics import MIN_ROUNDS, across, combine, median_ratio, paired_ratio, settled, verdict
from benchmarks.tasks import KEPT_PAGES, PLACEBO, Examination


def settled_group(seconds: Mapping[str, list[float]], precision: float) -> bool:
    """Whether the rounds of a group suffice: every lane's, against tracked."""
    baseline = seconds.get(TRACKED.name)
    if baseline is None:
        return True
    return all(settled(baseline, series, precision) for name, series in seconds.items() if name != TRACKED.name)


def speedup_of(timings: Sequence[Timings], lane: str, base: str = TRACKED.name) -> Interval | None:
    """seconds(base) / seconds(lane): from the rounds of a process, or across processes, or heaps; None where either was not timed."""
    if not {base, lane} <= timings[0].seconds.keys():
        return None
    pairs = [(one.seconds[base], one.seconds[lane]) for one in timings]
    if min(len(rounds) for rounds, _ in pairs) < MIN_ROUNDS:
        return across([median_ratio(*pair) for pair in pairs])
    return combine([paired_ratio(*pair) for pair in pairs])


def trusted(placebo: Interval) -> bool:
    return verdict(placebo) not in ("faster", "slower")


def timed(
    case: Case, examined: Examination, timings: Sequence[Timings], discarded: Sequence[Interval], steps: int = 1
) -> Timed:
    """The result of `case` with the blocks of all processes, one after the other. `discarded` are placebos of timings done again, `steps`
    those of one call."""
    assert examined.memory is not None
    mode, calls = case.mode, timings[0].calls
    placebo = speedup_of(timings, PLACEBO)
    speedup = Interval(1.0, 1.0, 1.0) if mode == TRACKED.name else speedup_of(timings, mode)
    word: Verdict = "baseline" if mode == TRACKED.name else verdict(speedup) if speedup is not None else "unclear"
    blocks = [seconds for one in timings for seconds in one.seconds[mode]]
    device_blocks = [seconds for one in timings for seconds in one.device_seconds.get(mode, ())]
    result = Result(
        case=case,
        seconds=statistics.median(blocks) / calls,
        speedup=speedup,
        verdict=word,
        placebo=placebo,
        trusted=placebo is not None and trusted(placebo),
        page_faults=statistics.fmean(one.page_faults[mode] for one in timings),
        memory=examined.memory,
        contract=examined.contract,
        kernels=examined.kernels,
        model=examined.model,
        device_seconds=statistics.median(device_blocks) / calls if device_blocks else None,
        over_no_grad=speedup_of(timings, mode, NO_GRAD.name) if mode not in (TRACKED.name, NO_GRAD.name) else None,
        kept_pages=speedup_of(timings, KEPT_PAGES),
        cold_seconds=examined.cold_seconds,
        warmup_calls=timings[0].warmup_calls[mode],
        discarded_placebos=list(discarded),
        steps=steps,
        processes=[_reading(mode, one) for one in timings] if len(timings) > 1 else [],
    )
    return Timed(result, blocks, calls)


def _reading(mode: str, timings: Timings) -> ProcessReading:
    tracked, blocks, placebo = (timings.seconds.get(lane, []) for lane in (TRACKED.name, mode, PLACEBO))
    return ProcessReading(
        rounds=len(blocks),
        seconds=statistics.median(blocks) / timings.calls,
        speedup=median_ratio(tracked, blocks) if tracked else None,
        placebo=median_ratio(tracked, placebo) if tracked else None,
        page_faults=timings.page_faults[mode],
    )
