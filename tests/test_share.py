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
        "node": "janes-laptop",
        "cpu": {"brand_raw": "Some CPU", "count": 2, "hostname": "janes-laptop"},
        "system": "Linux",
        "gradtax": {
            "torch": "2.13.0",
            "environment": {"LD_PRELOAD": "/home/jane/lib/libjemalloc.so.2", "CUDA_VISIBLE_DEVICES": "GPU-8f6e51d2-0a1b-2c3d"},
            "devices": {"cpu": {"cores": 2}, "cuda": {"driver": "NVRM version 570.86 Release Build (jane@janes-laptop)"}},
        },
    }
    conditions = {
        "command": ["pytest", "--model", "/home/jane/secret.py:build"], "journal": "/home/jane/j", "machine": "janes-laptop",
        "threads": 1, "budget": 7.0, "in_process": False, "warnings": ["load is 3.2 on 2 cores: close ~/secret/run, or wait"],
    }  # fmt: skip
    memory = Memory(10, 10, 10, unavailable={"peak_rss_bytes": "file:///home/jane/x: cannot be opened"})
    lost = builders.unmeasured(
        "frozen", "crashed", r"OSError: '/home/jane/secret dir/w.pt', C:\Users\jane\x (secret/net.py:12)"
    )
    return builders.run(
        *builders.group(memory=memory),
        unmeasured=[lost],
        machine=machine,
        conditions=conditions,
    )


def noisy(resolution: float, **fields: Any) -> Run:
    placebo = Interval(1.0, 1 - resolution, 1 + resolution)
    return builders.run(*builders.group(placebo=placebo, resolution=resolution, **fields))


def test_every_command_reads_the_shared_file_as_the_run() -> None:
    made = builders.run(*builders.group({"no_grad": 1.3}), unmeasured=[builders.unmeasured()], conditions={"threads": 1})
    found = read(write(made))
    pd.testing.assert_frame_equal(found.frame, made.frame)
    assert (found.results, found.unmeasured, found.conditions) == (made.results, made.unmeasured, made.conditions)
    assert (found.saved_at, found.commit, found.identity("cpu") | {"run": ""}) == (
        made.saved_at,
        made.commit,
        made.identity("cpu") | {"run": ""},
    )


def test_nothing_personal_and_no_rounds_are_in_it() -> None:
    text = write(personal_run()).read_text(encoding="utf-8")
    assert [word for word in (*PERSONAL, "data", "stats") if word in text] == []
    assert all(word in text for word in ("libjemalloc.so.2", "net.py:12", "Release Build", "load is 3.2", '"budget": 7.0'))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(alphabet="ab./\\~@:' \"C-", max_size=20))
def test_what_is_shared_once_is_what_is_shared_again(text: str) -> None:
    once = shared(builders.run(unmeasured=[builders.unmeasured(reason=text)]))
    again = shared(builders.run(unmeasured=[builders.unmeasured(reason=once["gradtax"]["unmeasured"][0]["reason"])]))
    assert again == once


def test_a_shared_file_is_fit_and_the_saved_run_is_not(capsys: Shown) -> None:
    saved = builders.saved(Path("results/Linux/0001_run.json"))
    assert main(["validate", str(saved)]) == 1
    out, err = capsys.readouterr()
    advice = f"write the file with `python -m analysis share {saved} -o {saved}`"
    assert (out, err) == ("", f"{saved}: machine_info.node: is more than what is shared; {advice}\n")
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
def test_what_somebody_adds_to_a_shared_file_is_refused_with_its_place(place: str, value: object, capsys: Shown) -> None:
    path = write(builders.run(unmeasured=[builders.unmeasured()]))
    file = json.loads(path.read_text())
    *ways, last = place.replace("[", ".").replace("]", "").split(".")
    inner = file
    for way in ways:
        inner = inner[int(way) if way.isdigit() else way]
    inner[last] = value
    path.write_text(json.dumps(file))
    assert main(["validate", "results"]) == 1
    assert capsys.readouterr().err.startswith(f"{path}: {place}")


def test_a_file_that_was_shared_before_a_field_was_there_stays_fit() -> None:
    path = write(builders.run())
    file = json.loads(path.read_text())
    for benchmark in file["benchmarks"]:
        del benchmark["extra_info"]["kept_pages"]
    path.write_text(json.dumps(file))
    assert refusals(path) == []


@pytest.mark.parametrize(
    ("run", "figure"),
    [
        (noisy(0.08), "less than 8.0 % (median group)"),
        (noisy(0.08, allocator="as_shipped"), "less than 8.0 % (median group)"),
        (builders.run(*builders.group(), *builders.group(size="small", trusted=False)), "failed in 1 of 2 groups"),
    ],
)
def test_a_noisy_machine_is_refused_with_what_its_control_reads(run: Run, figure: str, capsys: Shown) -> None:
    saved = builders.saved(Path("results/Linux/0001_run.json"), run)
    assert main(["share"]) == 1
    out, err = capsys.readouterr()
    assert (out, figure in err, "5.0 % are allowed" in err) == ("", True, True)
    assert list(Path("results").iterdir()) == [saved.parent]
    write(run)
    assert main(["validate", "results/2026-11-22"]) == 1
    assert figure in capsys.readouterr().err


def test_what_scatters_on_any_machine_does_not_count_as_noise() -> None:
    wide: dict[str, Any] = {"placebo": Interval(1.0, 0.8, 1.2), "resolution": 0.2}
    shipped = [one for model in "abc" for one in builders.group(model=model, allocator="as_shipped", **wide)]
    contexts = [one for size in "abc" for one in builders.group(scenario=OPERATORS, model=CONTEXT, size=size, **wide)]
    assert refusals(write(builders.run(*builders.group(), *shipped, *contexts))) == []


def test_a_run_that_is_not_whole_or_has_no_speedup_is_refused(capsys: Shown) -> None:
    builders.saved(Path("a.json"), builders.run(conditions={"unfinished": "2 of 9 jobs are measured"}))
    assert main(["share", "a.json"]) == 1
    assert capsys.readouterr().err == "a.json: unfinished: 2 of 9 jobs are measured\n"
    builders.saved(Path("b.json"), Run([], unmeasured=[builders.unmeasured()]))
    assert main(["share", "b.json"]) == 1
    assert "b.json: it has no speedups" in capsys.readouterr().err


def test_what_is_no_run_is_wrong_input(capsys: Shown) -> None:
    Path("torn.json").write_text("{")
    for arguments in (["validate", "torn.json"], ["validate", "missing.json"], ["share"], ["share", "torn.json"]):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
    builders.saved(Path("a.json"))
    assert main(["share", "a.json", "-o", "a.json/b.json"]) == 2
    assert "name another place with -o" in capsys.readouterr().err


def test_no_other_run_is_replaced_unless_its_file_is_named() -> None:
    first, second = builders.run(), builders.run(*builders.group({"no_grad": 1.5}))
    assert [write(run).name for run in (first, second, first)] == [
        "some-cpu-2-cores.json",
        "some-cpu-2-cores-2.json",
        "some-cpu-2-cores.json",
    ]
    assert write(second, Path("reference/cpu.json")) == write(first, Path("reference/cpu.json"))
    assert read(Path("reference/cpu.json")).results == first.results


def test_a_run_and_what_was_shared_of_it_count_once(capsys: Shown) -> None:
    builders.saved(Path("results/Linux/0001_run.json"))
    builders.saved(Path("results/Linux/0002_run.json"), builders.run(saved_at="2026-11-23T10:00:00"))
    assert main(["share", "0002"]) == 0
    capsys.readouterr()
    assert main(["summarise", "results", "--by", "machine"]) == 0
    assert "Some CPU, 2 cores  1.250 ±0.009      1     2" in capsys.readouterr().out


def test_no_name_of_a_machine_leaves_the_folder() -> None:
    machine = {"cpu": {"brand_raw": "../../x" * 50, "count": 2}}
    path = write(builders.run(saved_at="../../../y", machine=machine))
    assert path.resolve().is_relative_to(Path("results").resolve())
    assert write(builders.run(saved_at="", machine={})).parent.name == "undated"


@pytest.mark.parametrize("path", GIVEN, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_files_that_are_there_are_fit(path: Path) -> None:
    assert refusals(path) == []
