"""Saved files, broken at random in bytes or in values, through every analysis: an answer or a line, never a traceback."""

from __future__ import annotations

import copy
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from analysis.read import AnalysisError, read
from benchmarks.machines import ROOT
from benchmarks.measure.memory import peak_rss_bytes
from benchmarks.record import from_lines, to_line
from benchmarks.selfcheck import stand_ins
from benchmarks.selfcheck.findings import Goal, Tried

RUN = ROOT / "results" / "reference" / "cpu.json"
LONGEST_SECONDS, MOST_MIB = 10.0, 500
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**30, 1e308, 5e-324, -0.5, "", "tracked", "\x1b[31m\u202e\x00", "<script>", "=1+1", "x" * 10_000, [], {}, [[]],
    {"low": 1},
)  # fmt: skip


def mutated_files(number: int, seed: int = 0) -> Tried:
    """So many, drawn from a part of the reference run and from a journal: none may give neither an answer nor a line, or take too much."""
    chance, longest_seconds, most_mib = random.Random(seed), 0.0, 0.0
    outcomes: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = folder / "0001_base.json"
        run = json.loads(RUN.read_bytes())
        del run["benchmarks"][8:]  # two groups are left
        base.write_bytes(_as_saved(run))
        lines, _, _ = from_lines(stand_ins.left_after(folder, stand_ins.jobs(3), 2).read_bytes())

        def as_journal(payloads: Any) -> bytes:
            return b"".join(to_line(replace(line, payload=payload)) for line, payload in zip(lines, payloads, strict=False))

        kinds: tuple[tuple[str, Any, Callable[[Any], bytes]], ...] = (
            (".json", run, _as_saved),
            (".jsonl", [line.payload for line in lines], as_journal),
        )
        _read(base, base, [], whole=True)  # imports what is needed, which is no file's own time
        for file in range(1, number + 1):
            ending, document, written = chance.choices(kinds, weights=(2, 1))[0]
            path = folder / f"0002_mutated{ending}"
            path.write_bytes(_mutated(document, written, chance))
            wrong = outcomes.setdefault(f"file {file} of seed {seed}", [])
            begin = time.process_time()  # a busy machine is not the file's fault
            mib = (peak_rss_bytes(partial(_read, path, base, wrong, whole=file % 20 == 0)) or 0) / 2**20
            seconds = time.process_time() - begin
            if seconds > LONGEST_SECONDS or mib > MOST_MIB:
                wrong.append(f"{seconds:.0f} s of CPU and {mib:.0f} MiB")
            longest_seconds, most_mib = max(longest_seconds, seconds), max(most_mib, mib)
    return Tried.of(
        "mutated files through every analysis",
        outcomes,
        Goal("seconds of CPU that a mutated file took, at most", longest_seconds, LONGEST_SECONDS, form=".2f"),
        Goal("MiB that a mutated file took, at most", most_mib, MOST_MIB, form=".0f"),
    )


def _read(path: Path, base: Path, wrong: list[str], *, whole: bool) -> None:
    """Adds to `wrong` an error that is no line, or a control character that came through; the slow outputs only if `whole`."""
    try:
        shown = "".join(_outputs(path, base, whole=whole))
        if not shown.replace("\n", "").isprintable():
            wrong.append("a control character in the output")
    except AnalysisError as error:
        if not str(error).isprintable() or len(str(error)) > 2000:
            wrong.append(f"an error of {len(str(error))} characters")
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        wrong.append(f"{type(error).__name__}: {error}"[:200])


def _outputs(path: Path, base: Path, *, whole: bool) -> Iterator[str]:
    from analysis import advise, claims, compare, explain, report, summarise  # with libraries that the other checks do without
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
    """One to three values replaced, doubled or removed; nothing is there twice as one object, which could come to hold itself."""
    changed = copy.deepcopy(document)
    for _ in range(chance.randint(1, 3)):
        change, (holder, key) = chance.random(), _place(changed, chance)
        if change < 0.7:
            holder[key] = copy.deepcopy(chance.choice(_VALUES))
        elif change < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[chance.choice(_VALUES[9:15])] = copy.deepcopy(holder[key])
    return changed


def _place(document: Any, chance: random.Random) -> tuple[Any, Any]:
    """Some way down: a list or dict and an index or key of it."""
    while True:
        holder, key = document, chance.choice(list(document) if isinstance(document, dict) else range(len(document)))
        document = holder[key]
        if not document or not isinstance(document, list | dict) or chance.random() < 0.1:
            return holder, key


def _with_other_bytes(content: bytes, chance: random.Random) -> bytes:
    """Cut off, another byte or more of them at some place, or a part removed or doubled."""
    first, second = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    before, behind = content[:first], content[first:]
    byte, more = chance.randbytes(1), chance.randbytes(chance.randint(1, 40))
    changed = (before, before + byte + behind[1:], before + more + behind, before + content[second:], content[:second] + behind)
    return chance.choice(changed)
