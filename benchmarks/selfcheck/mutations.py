"""Saved files, broken at random in bytes or in values, through every analysis: an answer or a line, never a traceback."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.measure.memory import peak_rss_bytes
from benchmarks.record import from_lines, to_line
from benchmarks.selfcheck import stand_ins

RUN = Path(__file__).parents[2] / "results" / "reference" / "cpu.json"
LONGEST_SECONDS, MOST_BYTES = 10.0, 500 * 2**20
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**30, 1e308, 5e-324, -0.5, "", "tracked", "\x1b[31m\u202e\x00", "<script>", "=1+1", "x" * 10_000, [], {}, [[]],
    {"low": 1},
)  # fmt: skip


@dataclass(slots=True)
class Mutated:
    """What became of mutated files: `faults` are those that gave neither an answer nor a line, or took too much."""

    files: int = 0
    faults: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    most_bytes: int = 0
    """By which one file made the process grow; 0 where that cannot be told."""


def mutated_files(number: int, seed: int) -> Mutated:
    """Tries so many, drawn from a part of the reference run and from a journal."""
    chance, tried = random.Random(seed), Mutated()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = folder / "0001_base.json"
        base.write_bytes(_as_saved(run := _part_of(RUN)))
        lines, _, _ = from_lines(stand_ins.left_after(folder, stand_ins.jobs(3), 2).read_bytes())
        journal = [line.payload for line in lines]

        def as_journal(payloads: Any) -> bytes:
            return b"".join(to_line(replace(line, payload=payload)) for line, payload in zip(lines, payloads, strict=False))

        kinds: tuple[tuple[str, Any, Callable[[Any], bytes]], ...] = (
            (".json", run, _as_saved),
            (".jsonl", journal, as_journal),
        )
        tried.faults += _faults(base, base, whole=True)  # imports what is needed, which is no file's own time
        for tried.files in range(1, number + 1):
            ending, document, written = chance.choices(kinds, weights=(2, 1))[0]
            path = folder / f"0002_mutated{ending}"
            path.write_bytes(_mutated(document, written, chance))
            faults: list[str] = []
            begin = time.monotonic()
            grown = peak_rss_bytes(lambda: faults.extend(_faults(path, base, whole=tried.files % 20 == 0))) or 0  # noqa: B023
            seconds = time.monotonic() - begin
            if seconds > LONGEST_SECONDS or grown > MOST_BYTES:
                faults.append(f"{seconds:.0f} s and {grown / 2**20:.0f} MiB")
            tried.longest_seconds, tried.most_bytes = max(tried.longest_seconds, seconds), max(tried.most_bytes, grown)
            tried.faults += [f"file {tried.files} of seed {seed}: {fault}" for fault in faults[:1]]
    return tried


def _faults(path: Path, base: Path, *, whole: bool) -> Iterator[str]:
    """An error that is no line, or a control character that came through; the slow outputs only if `whole`."""
    from analysis.read import AnalysisError  # pandas, which the other checks do without

    try:
        for text in _outputs(path, base, whole=whole):
            if any(not character.isprintable() and character != "\n" for character in text):
                yield "a control character in the output"
    except AnalysisError as error:
        if not str(error).isprintable() or len(str(error)) > 2000:
            yield f"an error of {len(str(error))} characters"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        yield f"{type(error).__name__}: {error}"[:200]


def _outputs(path: Path, base: Path, *, whole: bool) -> Iterator[str]:
    from analysis import advise, claims, compare, explain, report, summarise
    from analysis.read import read
    from analysis.render import rendered

    run, other = read(path), read(base)
    yield rendered(summarise.summary(run), summarise.figures(run), "terminal")
    yield from advise.advise(run)
    yield from explain.explain(run, {})
    changes = compare.compare(other, run)
    yield rendered(compare.tables(other, run, changes), changes, "terminal")
    yield from compare.gate_lines(changes, compare.regressions(changes))
    if whole:
        for format_ in ("markdown", "latex", "html", "csv", "json"):
            yield rendered(summarise.summary(run), summarise.figures(run), format_)
        yield rendered(claims.tables(run), claims.claims(run), "terminal")
        yield report.page(run)


def _part_of(path: Path) -> Any:
    """Two groups of a saved run."""
    run = json.loads(path.read_bytes())
    del run["benchmarks"][8:]
    return run


def _as_saved(run: Any) -> bytes:
    return json.dumps(run).encode()


def _mutated(document: Any, written: Callable[[Any], bytes], chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return _with_other_bytes(written(document), chance)
    try:
        return written(_with_other_values(document, chance))
    except (ValueError, OverflowError):  # a number that a journal cannot hold
        return b""


def _with_other_values(document: Any, chance: random.Random) -> Any:
    """One to three values replaced, doubled or removed."""
    changed = json.loads(json.dumps(document))
    for _ in range(chance.randint(1, 3)):
        change, place = chance.random(), _place(changed, chance)
        if place is None:
            break
        holder, key = place
        if change < 0.7:
            holder[key] = chance.choice(_VALUES)
        elif change < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[chance.choice(_VALUES[9:15])] = holder[key]
    return changed


def _place(document: Any, chance: random.Random) -> tuple[Any, Any] | None:
    """Some way down: a list or dict and an index or key of it."""
    place = None
    while isinstance(document, list | dict) and document:
        key = chance.randrange(len(document)) if isinstance(document, list) else chance.choice(list(document))
        place, document = (document, key), document[key]
        if chance.random() < 0.1:
            break
    return place


def _with_other_bytes(content: bytes, chance: random.Random) -> bytes:
    first, second = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: content[:first],
        lambda: content[:first] + bytes([chance.randrange(256)]) + content[first + 1 :],
        lambda: content[:first] + chance.randbytes(chance.randint(1, 40)) + content[first:],
        lambda: content[:first] + content[second:],
        lambda: content[:second] + content[first:],
    )
    return chance.choice(changes)()
