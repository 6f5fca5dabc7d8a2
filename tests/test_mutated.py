"""Saved files and journals, broken at random in bytes or in values: each gives an answer or a line, in little time and memory."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import stand_in_jobs
from builders import REFERENCE

from analysis import advise, claims, compare, explain, report, summarise
from analysis.read import AnalysisError, read
from analysis.render import FIGURES, VIEWS, rendered
from benchmarks.measure.memory import peak_rss_bytes
from benchmarks.saving import from_lines, to_line

LONGEST_SECONDS, MOST_MIB = 10.0, 500
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**30, 1e308, 5e-324, -0.5, "", "tracked", "\x1b[31m\u202e\x00", "<script>", "=1+1", "x" * 10_000, [], {}, [[]],
    {"low": 1},
)  # fmt: skip


class Documents:
    """A run of two groups of the reference, and a journal of two of three jobs, each as values and as the bytes of a file."""

    def __init__(self, folder: Path) -> None:
        self.run = json.loads(REFERENCE.read_bytes())
        del self.run["benchmarks"][8:]
        self.base = folder / "0001_base.json"
        self.base.write_bytes(json.dumps(self.run).encode())
        journal = stand_in_jobs.left_after(folder, stand_in_jobs.jobs(3), 2).read_bytes()
        self.lines, _, _ = from_lines(journal)
        self.mutated = {".json": folder / "0002_mutated.json", ".jsonl": folder / "0002_mutated.jsonl"}

    def mutate(self, chance: random.Random) -> Path:
        """A file that is broken in its bytes, or in one to three values; JSON that cannot be written is an empty file."""
        ending = chance.choice((".json", ".json", ".jsonl"))
        document = self.run if ending == ".json" else [line.payload for line in self.lines]
        in_bytes = chance.random() < 0.5
        try:
            content = self.written(document if in_bytes else with_other_values(document, chance), ending)
        except (ValueError, OverflowError):
            content = b""
        self.mutated[ending].write_bytes(with_other_bytes(content, chance) if in_bytes else content)
        return self.mutated[ending]

    def written(self, document: Any, ending: str) -> bytes:
        if ending == ".json":
            return json.dumps(document).encode()
        return b"".join(to_line(replace(line, payload=payload)) for line, payload in zip(self.lines, document, strict=False))


def with_other_values(document: Any, chance: random.Random) -> Any:
    """Some are replaced, doubled or removed; nothing is there twice as one object, which could come to hold itself."""
    changed = copy.deepcopy(document)
    for _ in range(chance.randint(1, 3)):
        change, (holder, key) = chance.random(), place_in(changed, chance)
        if change < 0.7:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
        elif change < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[chance.choice(VALUES[9:15])] = copy.deepcopy(holder[key])
    return changed


def place_in(document: Any, chance: random.Random) -> tuple[Any, Any]:
    """Some way down: a list or dict and an index or key of it."""
    while True:
        holder, key = document, chance.choice(list(document) if isinstance(document, dict) else range(len(document)))
        document = holder[key]
        if not document or not isinstance(document, list | dict) or chance.random() < 0.1:
            return holder, key


def with_other_bytes(content: bytes, chance: random.Random) -> bytes:
    """Cut off, another byte or more of them at some place, or a part removed or doubled."""
    first, second = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    before, behind = content[:first], content[first:]
    byte, more = chance.randbytes(1), chance.randbytes(chance.randint(1, 40))
    changed = (before, before + byte + behind[1:], before + more + behind, before + content[second:], content[:second] + behind)
    return chance.choice(changed)


def outputs(path: Path, base: Path, *, slow_ones: bool) -> Iterator[str]:
    run, other = read(path), read(base)
    yield rendered(summarise.summary(run), summarise.figures(run), "terminal")
    yield from advise.advise(run)
    yield from explain.explain(run, {})
    changes = compare.compare(other, run)
    yield rendered(compare.tables(other, run, changes), changes, "terminal")
    yield from compare.gate_lines(changes, compare.regressions(changes))
    if slow_ones:
        for format_ in {*VIEWS, *FIGURES}:
            yield rendered(summarise.summary(run), summarise.figures(run), format_)
        yield rendered(claims.tables(run), claims.claims(run), "terminal")
        yield report.page(run)


def look_through(path: Path, base: Path, *, slow_ones: bool) -> None:
    try:
        shown = "".join(outputs(path, base, slow_ones=slow_ones))
    except AnalysisError as error:
        shown = str(error)
        assert len(shown) < 2000
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("number", [pytest.param(100, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.whole)])
def test_mutated_files_in_every_analysis(tmp_path: Path, number: int, record_property: Any) -> None:
    documents, longest_seconds, most_mib = Documents(tmp_path), 0.0, 0.0
    look_through(documents.base, documents.base, slow_ones=True)  # imports what is needed, which is no file's own time
    for seed in range(number):
        path = documents.mutate(random.Random(seed))
        begin = time.process_time()  # a busy machine is not the file's fault
        grown_bytes = peak_rss_bytes(partial(look_through, path, documents.base, slow_ones=seed % 20 == 0)) or 0
        longest_seconds = max(longest_seconds, time.process_time() - begin)
        most_mib = max(most_mib, grown_bytes / 2**20)
        assert longest_seconds < LONGEST_SECONDS, f"seed {seed}"
        assert most_mib < MOST_MIB, f"seed {seed}"
    record_property("times", number)
    record_property("seconds of CPU that a mutated file took, at most 10", longest_seconds)
    record_property("MiB that a mutated file took, at most 500", most_mib)
