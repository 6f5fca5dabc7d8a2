"""The meters against each other: what must hold between the memory figures of a group, whatever the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from analysis.figures import bytes_text
from benchmarks.measure.calibration import METERS
from benchmarks.record import FORWARD, Group, Result


def broken_invariants(results: Iterable[Result]) -> list[str]:
    """What does not hold, in words; a comparison whose figures are missing, or that two modes' other kernels explain, is left out.

    Resident memory may fall short of the tensor peak by what its meter may be off (2 % and 256 KiB, for pages are counted late) and by
    library workspaces, which need not be written. Memory is the same for every allocator, so what breaks is told once.
    """
    groups: dict[Group, dict[str, Result]] = {}
    for result in results:
        groups.setdefault(replace(result.case.group, allocator=""), {})[result.case.mode] = result
    return [
        f"{group.scenario} {group.model} {group.size} {group.device} {group.dtype}: {words}"
        for group, modes in groups.items()
        for words in _broken(modes, one_pass=group.scenario == FORWARD)
    ]


def _broken(modes: Mapping[str, Result], *, one_pass: bool) -> Iterator[str]:
    yield from _unequal(modes, "inference_mode", "no_grad", "peak_tensor_bytes")
    if one_pass:
        yield from _unequal(modes, "detach", "tracked", "peak_tensor_bytes")
        yield from _unequal(modes, "detach", "no_grad", "held_tensor_bytes")
    for mode, result in modes.items():
        memory = result.memory
        held, saved, peak, resident = (
            memory.held_tensor_bytes, memory.saved_bytes, memory.peak_tensor_bytes, memory.peak_rss_bytes,
        )  # fmt: skip
        if one_pass and mode == "tracked" and held is not None and saved is not None and held < saved:
            yield f"tracked holds {bytes_text(held)}, less than the {bytes_text(saved)} that it saved"
        if peak is None or resident is None:
            continue
        short = peak - resident - (memory.opaque_saved_bytes or 0)
        if short <= 0 or METERS["peak_rss_bytes"].allows(short, peak):
            continue
        yield (
            f"{mode} peaks at {bytes_text(peak)} in tensors but at {bytes_text(resident)} in resident memory (never written?)"
        )


def _unequal(modes: Mapping[str, Result], one: str, other: str, figure: str) -> Iterator[str]:
    if one not in modes or other not in modes:
        return
    kernels, other_kernels = modes[one].kernels, modes[other].kernels
    if (kernels.same_as_tracked, kernels.added, kernels.removed) != (
        other_kernels.same_as_tracked, other_kernels.added, other_kernels.removed,
    ):  # fmt: skip
        return
    found, expected = getattr(modes[one].memory, figure), getattr(modes[other].memory, figure)
    if None not in (found, expected) and found != expected:
        what = figure.partition("_")[0]
        yield f"{what} of {one} is {found:,} B, of {other} {expected:,} B, from the same kernels"
