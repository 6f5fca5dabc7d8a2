"""What is shared of a run is a run that every command reads, holds nothing personal, and comes from a machine that was quiet enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.read import Run, read
from analysis.share import refusals, shared, write
from benchmarks.record import CONTEXT, OPERATORS, Interval, Memory

ROOT = Path(__file__).parent.parent
GIVEN = sorted([*ROOT.glob("results/reference/*.json"), *ROOT.glob("results/20*/*.json")])
Shown = pytest.CaptureFixture[str]

PERSONAL = ("janes-laptop", "jane", "secret", "8f6e51d2")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go to results/ of the current folder."""
    monkeypatch.chdir(tmp_path)


def personal_run() -> Run:
    """Of somebody whose name, computer, folders and graphics card are in all places where they could be."""
    machine = {
        "node": "janes-laptop", "cpu": {"brand_raw": "Some CPU", "count": 2, "hostname": "janes-laptop"}, "system": "Linux",
        "gradtax": {
            "torch": "2.13.0",
            "environment": {"LD_PRELOAD": "/home/jane/lib/libjemalloc.so.2", "CUDA_VISIBLE_DEVICES": "GPU-8f6e51d2-0a1b-2c3d"},
            "devices": {"cpu": {"cores": 2}, "cuda": {"driver": "NVRM version 570.86 Release Build (jane@janes-laptop)"}},
        },
    }  # fmt: skip
    conditions = {
        "command": ["pytest", "--model", "/home/jane/secret.py:build"], "journal": "/home/jane/j", "machine": "janes-laptop",
        "threads": 1, "budget": 7.0, "in_process": False, "warnings": ["load is 3.2 on 2 cores: close ~/secret/run, or wait"],
    }  # fmt: skip
    memory = Memory(10, 10, 10, unavailable={"peak_rss_bytes": "file:///home/jane/x: cannot be opened"})
    reason = r"OSError: '/home/jane/secret dir/w.pt', C:\Users\jane\x (secret/net.py:12)"
    lost = builders.unmeasured("frozen", "crashed", reason)
    return builders.run(*builders.group(memory=memory), unmeasured=[lost], machine=machine, conditions=conditions)


def test_every_command_reads_the_shared_file_as_the_run() -> None:
    made = builders.run(*builders.group({"no_grad": 1.3}), unmeasured=[builders.unmeasured()], conditions={"threads": 1})
    found = read(write(made), made.name)
    pd.testing.assert_frame_equal(found.frame, made.frame)
    assert (found.results, found.unmeasured, found.conditions) == (made.results, made.unmeasured, made.conditions)
    assert (found.saved_at, found.commit, found.identity("cpu")) == (made.saved_at, made.commit, made.identity("cpu"))


def test_nothing_personal_and_no_rounds_are_in_it() -> None:
    text = write(personal_run()).read_text(encoding="utf-8")
    assert [word for word in (*PERSONAL, "data", "stats") if word in text] == []
    assert all(word in text for word in ("libjemalloc.so.2", "net.py:12", "Release Build", "load is 3.2", '"budget": 7.0'))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.text(alphabet="ab./\\~@:' \"C-", max_size=20), min_size=4, max_size=4))
def test_what_is_shared_once_is_what_is_shared_again(texts: list[str]) -> None:
    made = builders.run(unmeasured=[builders.unmeasured(reason=text) for text in texts])
    once = shared(made)
    again = shared(
        builders.run(unmeasured=[builders.unmeasured(reason=one["reason"]) for one in once["gradtax"]["unmeasured"]])
    )
    assert again == once


def test_a_shared_file_is_fit_and_the_saved_run_is_not(capsys: Shown) -> None:
    saved = builders.saved(Path("results/Linux/0001_run.json"))
    assert main(["validate", str(saved)]) == 1
    advice = f"write the file with `python -m analysis share {saved} -o {saved}`"
    assert capsys.readouterr() == ("", f"{saved}: machine_info.node: is more than what is shared; {advice}\n")
    assert main(["share"]) == 0
    path = Path("results/2026-11-22/some-cpu-2-cores.json")
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["validate", str(path), str(path.parent)]) == 0
    assert capsys.readouterr().out == "fit to be shared: 1 file\n"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("machine_info.node", "janes-laptop"),
        ("commit_info.branch", "jane"),
        ("gradtax.conditions.command", ["pytest"]),
        ("gradtax.unmeasured[0].reason", "in /home/jane/x.py"),
        ("benchmarks[1].stats", {"data": [1e-4]}),
        ("benchmarks[1].extra_info.memory.author", "jane"),
    ],
)
def test_what_somebody_adds_to_a_shared_file_is_refused_with_its_place(place: str, value: object) -> None:
    path = write(builders.run(unmeasured=[builders.unmeasured()]))
    path.write_text(json.dumps(builders.changed(json.loads(path.read_bytes()), place, value)))
    (refusal,) = refusals(path)
    assert refusal.startswith(f"{place}: is more")


def test_a_file_that_was_shared_before_a_field_was_there_stays_fit() -> None:
    path = write(builders.run())
    file = json.loads(path.read_bytes())
    for benchmark in file["benchmarks"]:
        del benchmark["extra_info"]["kept_pages"]
    path.write_text(json.dumps(file))
    assert refusals(path) == []


def noisy(resolution: float, **fields: Any) -> list[Any]:
    return builders.group(placebo=Interval(1.0, 1 - resolution, 1 + resolution), resolution=resolution, **fields)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (builders.run(*noisy(0.08)), "less than 8.0 % (median group); 5.0 % are allowed"),
        (builders.run(*noisy(0.08, allocator="as_shipped")), "less than 8.0 % (median group); 5.0 % are allowed"),
        (builders.run(*builders.group(), *builders.group(size="small", trusted=False)), "failed in 1 of 2 groups; 5.0 % are"),
        (builders.run(conditions={"unfinished": "2 of 9 jobs are measured"}), "unfinished: 2 of 9 jobs are measured\n"),
        (Run([], [builders.unmeasured()]), "it has no speedups"),
    ],
)
def test_a_run_that_is_noisy_or_not_whole_is_refused_with_the_reason(run: Run, reason: str, capsys: Shown) -> None:
    builders.saved(Path("a.json"), run)
    assert main(["share", "a.json"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.partition(" ")[0], reason in err) == ("", "a.json:", True)
    assert not Path("results").exists()
    assert main(["validate", "a.json"]) == 1
    assert reason in capsys.readouterr().err


def test_what_scatters_on_any_machine_does_not_count_as_noise() -> None:
    shipped = [one for model in "abc" for one in noisy(0.2, model=model, allocator="as_shipped")]
    contexts = [one for size in "abc" for one in noisy(0.2, scenario=OPERATORS, model=CONTEXT, size=size)]
    assert refusals(write(builders.run(*builders.group(), *shipped, *contexts))) == []


@pytest.mark.parametrize(
    "arguments",
    ["validate torn.json", "validate missing.json", "share", "share torn.json", "share good.json -o good.json/b.json"],
)
def test_what_is_no_run_or_no_place_is_wrong_input(arguments: str, capsys: Shown) -> None:
    Path("torn.json").write_text("{")
    builders.saved(Path("good.json"))
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)


def test_no_other_run_is_replaced_unless_its_file_is_named() -> None:
    first, second = builders.run(), builders.run(*builders.group({"no_grad": 1.5}))
    names = [write(run).name.removeprefix("some-cpu-2-cores") for run in (first, second, first)]
    assert names == [".json", "-2.json", ".json"]
    path = Path("reference/cpu.json")
    assert write(second, path) == write(first, path) == path
    assert read(path).results == first.results


def test_no_name_of_a_machine_leaves_the_folder() -> None:
    machine = {"cpu": {"brand_raw": "../../x" * 50, "count": 2}}
    path = write(builders.run(saved_at="../../../y", machine=machine))
    assert path.resolve().is_relative_to(Path("results").resolve())
    assert write(builders.run(saved_at="", machine={})).parent.name == "undated"


@pytest.mark.parametrize("path", GIVEN, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_files_that_are_there_are_fit(path: Path) -> None:
    assert refusals(path) == []
