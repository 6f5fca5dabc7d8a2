"""Saved files, broken at random in bytes or in values, through every analysis: an answer or a line, never a traceback."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import GroupResult, Line, to_json, to_line
from benchmarks.selfcheck import stand_ins

LONGEST_SECONDS = 10.0
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**30, 1e308, 5e-324, -0.5, "", "tracked", "\x1b[31m\u202e\x00", "<script>", "=1+1", "x" * 10_000, [], {}, [[]],
    {"low": 1},
)  # fmt: skip


def mutated_files(number: int, seed: int) -> tuple[int, list[str]]:
    """How many files were tried, and what each gave that is neither an answer nor a line, or took too long."""
    chance, faults = random.Random(seed), []
    groups = list(stand_ins.measured(stand_ins.jobs(2)))
    documents = {".json": _saved(groups), ".jsonl": _journal(groups)}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "0001_base.json"
        base.write_text(json.dumps(documents[".json"]))
        for count in range(number):
            ending = chance.choice((".json", ".json", ".jsonl"))
            path = Path(folder) / f"0002_mutated{ending}"
            path.write_bytes(_mutated(documents[ending], chance))
            begin = time.monotonic()
            fault = _fault(path, base, whole=count % 20 == 0)
            if not fault and time.monotonic() - begin > LONGEST_SECONDS:
                fault = f"{time.monotonic() - begin:.0f} s"
            faults += [f"file {count} of seed {seed}: {fault}"] if fault else []
    return number, faults


def _fault(path: Path, base: Path, *, whole: bool) -> str:
    """The error that is no line, or the control character that came through; the slow outputs only if `whole`."""
    from analysis.read import AnalysisError  # pandas, which the other checks do without

    try:
        for text in _outputs(path, base, whole=whole):
            if any(not character.isprintable() and character != "\n" for character in text):
                return "a control character in the output"
    except AnalysisError as error:
        return "" if str(error).isprintable() and len(str(error)) < 2000 else f"an error of {len(str(error))} characters"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{type(error).__name__}: {error}"[:200]
    return ""


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


def _saved(groups: list[GroupResult]) -> dict[str, Any]:
    """As pytest-benchmark saves a run."""
    results = [to_json(timed.result) for group in groups for timed in group.timed]
    benchmarks = [
        {"name": f"test_{number}", "extra_info": one, "stats": {"data": [1e-4]}} for number, one in enumerate(results)
    ]
    facts = {"torch": "2.13.0", "threads": 1, "devices": {"cpu": {"cores": 2}}}
    return {
        "machine_info": {"node": "here", "cpu": {"brand_raw": "a processor", "count": 2}, "gradtax": facts},
        "commit_info": {"id": "abcdef12", "dirty": False},
        "benchmarks": benchmarks,
        "datetime": "2026-01-01T00:00:00+00:00",
        "gradtax": {
            "schema": 2,
            "unmeasured": [to_json(lost) for group in groups for lost in group.unmeasured],
            "conditions": {"warnings": ["busy"], "command": ["pytest"], "segments": []},
        },
    }


def _journal(groups: list[GroupResult]) -> list[dict[str, Any]]:
    """The payloads of a journal's lines."""
    done = [{"job": number, "groups": [to_json(group)]} for number, group in enumerate(groups)]
    return [{"identity": {"torch": "2.13.0", "devices": {}}, "jobs": 4, "command": "pytest --resume"}, *done]


def _mutated(document: Any, chance: random.Random) -> bytes:
    in_bytes = chance.random() < 0.5
    changed = document if in_bytes else _with_other_values(document, chance)
    content = _lines(changed) if isinstance(document, list) else json.dumps(changed).encode()
    return _with_other_bytes(content, chance) if in_bytes else content


def _lines(payloads: list[Any]) -> bytes:
    kinds: Any = ["run", *["done"] * (len(payloads) - 1)]
    stamps = [Line(number, kind, "2026-01-01T00:00:00+00:00", {}) for number, kind in enumerate(kinds, 1)]
    lines = (
        to_line(Line(stamp.number, stamp.kind, stamp.at, payload)) for stamp, payload in zip(stamps, payloads, strict=False)
    )
    try:
        return b"".join(lines)
    except (ValueError, OverflowError):  # a number that only Python's own writer takes
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
