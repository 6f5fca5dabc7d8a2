"""Proves that the gate lets pass what is allowed, names what regressed, and ends with the status that tells the two apart."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import make_result, saved_run
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from analysis.__main__ import app
from analysis.compare import compare
from analysis.gate import parse_limits, regressions
from analysis.github import LIMIT, _cut, comment
from analysis.load import Run, load
from analysis.pairing import MEMORY, CompareError
from benchmarks.record import Interval, Memory, Result, Unmeasured
from benchmarks.statistics import verdict

QUICK = settings(max_examples=50, deadline=None, derandomize=True, database=None)
MACHINE = {"cpu": {"brand_raw": "AMD EPYC"}, "gradtax": {"threads": 1}}


def results(speedup: float = 1.25, *, seconds: float = 1e-4, model: str = "mlp", **memory: int | None) -> list[Result]:
    """tracked and a mode that reads `speedup` to 0.1 %, with a placebo of 1."""
    figures: dict[str, Any] = {
        "peak_tensor_bytes": 4096,
        "held_tensor_bytes": 4096,
        "saved_bytes": 0,
        "peak_rss_bytes": 10 * 2**20,
    } | memory
    found = Interval(speedup, speedup * 0.999, speedup * 1.001)
    case, placebo = {"model": model}, Interval(1.0, 0.999, 1.001)
    mode = make_result(
        case=case, speedup=found, verdict=verdict(found), placebo=placebo, memory=Memory(**figures), seconds=seconds,
    )  # fmt: skip
    return [make_result("tracked", case=case, placebo=placebo, memory=Memory(**(figures | {"saved_bytes": 4096}))), mode]


def saved(name: str, *found: Result, unmeasured: tuple[Unmeasured, ...] = (), machine: Any = None) -> str:
    path = saved_run(Path(name), found, unmeasured)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"machine_info": MACHINE if machine is None else machine}))
    return name


@pytest.fixture(autouse=True)
def in_a_folder_with_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved("base.json", *results())


def gate(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, ["compare", *arguments, "--gate"])


def said(*head: Result, allow: tuple[str, ...] = (), **kept: Any) -> tuple[int, list[str]]:
    done = gate("base.json", saved("head.json", *head, **kept), *(word for one in allow for word in ("--allow", one)))
    return done.exit_code, done.stderr.splitlines()


def test_nothing_regressed_ends_with_0_and_a_line_that_says_so() -> None:
    assert said(*results()) == (0, ["gate: nothing regressed (2 cases compared)"])
    assert said(*results(1.4, saved_bytes=0, peak_tensor_bytes=1, peak_rss_bytes=0))[0] == 0


def test_each_regression_has_a_line_with_its_figures_and_what_was_allowed_the_worst_first() -> None:
    status, lines = said(*results(1.2, peak_tensor_bytes=4104))
    assert status == 1
    assert lines == [
        "regressed: mlp tiny no_grad: speedup 1.250 -> 1.200, 0.960 ±0.001 (allowed: 1.0 %)",
        "regressed: mlp tiny no_grad: peak_tensor_bytes 4.00 KiB -> 4.01 KiB, +8 B (allowed: 0 B)",
        "regressed: mlp tiny tracked: peak_tensor_bytes 4.00 KiB -> 4.01 KiB, +8 B (allowed: 0 B)",
        "gate: 3 regressions (2 cases compared)",
    ]


@pytest.mark.parametrize(
    ("head", "allow", "status"),
    [
        ({"speedup": 1.23}, "", 1),
        ({"speedup": 1.23}, "speedup=2%", 0),
        ({"speedup": 1.22}, "speedup=2%", 1),
        ({"speedup": 1.24}, "", 0),
        ({"speedup": 1.24}, "speedup=0%", 1),
        ({"peak_tensor_bytes": 4097}, "", 1),
        ({"peak_tensor_bytes": 4097}, "peak_tensor_bytes=1", 0),
        ({"peak_tensor_bytes": 4098}, "peak_tensor_bytes=1B", 1),
        ({"held_tensor_bytes": 4505}, "held_tensor_bytes=10%", 0),
        ({"held_tensor_bytes": 4506}, "held_tensor_bytes=10%", 1),
        ({"peak_rss_bytes": 10 * 2**20 + 900_000}, "", 0),
        ({"peak_rss_bytes": 11 * 2**20}, "", 1),
        ({"peak_rss_bytes": 11 * 2**20}, "peak_rss_bytes=1MiB", 0),
        ({"peak_rss_bytes": 10 * 2**20 + 1}, "peak_rss_bytes=0", 1),
        ({"peak_rss_bytes": None}, "", 1),
        ({"peak_rss_bytes": None}, "unmeasured", 0),
        ({"seconds": 2e-4}, "", 0),
        ({"seconds": 2e-4}, "seconds=10%", 1),
        ({"seconds": 1.05e-4}, "seconds=10%", 0),
    ],
)
def test_what_is_allowed_passes_and_what_is_more_does_not(head: dict[str, Any], allow: str, status: int) -> None:
    assert said(*results(**head), allow=(allow,) if allow else ())[0] == status


def test_a_vanished_or_newly_unmeasured_case_is_a_regression_unless_allowed() -> None:
    tracked, mode = results()
    status, lines = said(tracked)
    assert (status, lines[0]) == (
        1, "regressed: forward mlp tiny cpu float32 resident no_grad: vanished (allowed: only with --allow vanished)"
    )  # fmt: skip
    assert said(tracked, allow=("vanished",))[0] == 0
    assert said(tracked, allow=("unmeasured",))[0] == 1
    lost = (Unmeasured(mode.case, "crashed", "exit code -9"),)
    status, lines = said(tracked, unmeasured=lost)
    assert (status, "newly unmeasured crashed: exit code -9" in lines[0]) == (1, True)
    assert said(tracked, unmeasured=lost, allow=("vanished",))[0] == 1
    assert said(tracked, unmeasured=lost, allow=("unmeasured",))[0] == 0


def test_new_cases_and_untrusted_groups_are_no_regressions_and_the_latter_are_told() -> None:
    assert said(*results(), *results(model="lstm"))[0] == 0
    status, lines = said(*(replace(result, trusted=False) for result in results(0.5)))
    assert (status, lines[0]) == (0, "speedups not judged, for a group is untrusted: 1")


def test_what_cannot_be_read_or_was_mistyped_ends_with_2_and_the_right_names() -> None:
    saved("head.json", *results())
    for arguments, words in {
        ("base.json", "missing.json"): "no such file",
        ("base.json", "head.json", "--allow", "speed=2%"): ", ".join(("speedup", "seconds", *MEMORY)),
        ("base.json", "head.json", "--allow", "speedup=fast"): "a percentage such as 2%",
        ("base.json", "head.json", "--allow", "speedup=2"): "a percentage such as 2%",
        ("base.json", "head.json", "--allow", "saved_bytes=-1"): "bytes such as 0, 4096 or 1MiB",
        ("base.json", "head.json", "--allow", "saved_bytes"): "bytes such as",
        ("base.json", "head.json", "--format", "xml"): "choose from terminal",
        ("base.json", "head.json", "--across", "speed"): "choose from scenario",
    }.items():
        done = gate(*arguments)
        assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
    done = CliRunner().invoke(app, ["compare", "base.json", "head.json", "--allow", "vanished"])
    assert (done.exit_code, done.stderr) == (2, "error: --allow vanished: only with --gate or --format github\n")


def test_runs_with_nothing_in_common_end_with_3_and_a_way_to_compare_them() -> None:
    gpu = saved("gpu.json", *(replace(result, case=replace(result.case, device="cuda")) for result in results()))
    done = gate("base.json", gpu)
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.endswith("they differ in their devices: compare with --across device\n")
    assert gate("base.json", gpu, "--across", "device").exit_code == 0
    assert gate("base.json", saved("other.json", *results(model="lstm"))).exit_code == 3
    assert gate("base.json", saved("empty.json")).exit_code == 3


def test_another_schema_ends_with_3() -> None:
    Path("newer.json").write_text(Path("base.json").read_text().replace('"schema": 1', '"schema": 99'))
    done = gate("base.json", "newer.json")
    assert (done.exit_code, "schema 99 cannot be read" in done.stderr) == (3, True)


def test_seconds_of_machines_that_differ_cannot_be_gated_on() -> None:
    other = {"cpu": {"brand_raw": "Xeon"}, "gradtax": {"threads": 1}}
    status, lines = said(*results(), machine=other, allow=("seconds=10%",))
    assert status == 3
    assert lines == ["error: --allow seconds: base and head are not from machines that agree (CPU)"]


def test_any_head_may_regress_and_is_named() -> None:
    saved("same.json", *results())
    saved("worse.json", *results(1.1))
    done = gate("base.json", "same.json", "worse.json")
    assert done.exit_code == 1
    assert done.stderr.startswith("regressed: worse mlp tiny no_grad: speedup")


@QUICK
@given(st.sampled_from([*MEMORY]), st.integers(0, 10**6), st.sampled_from([("", 1), ("B", 1), ("KiB", 2**10), ("MiB", 2**20)]))
def test_an_amount_of_bytes_is_read_as_it_is_written(name: str, amount: int, unit: tuple[str, int]) -> None:
    assert parse_limits([f"{name}={amount}{unit[0]}"]).memory[name].bytes == amount * unit[1]


@QUICK
@given(
    st.text(max_size=30).filter(
        lambda text: text.split("=")[0] not in ("speedup", "seconds", *MEMORY, "vanished", "unmeasured")
    )
)
def test_any_other_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(CompareError, match="choose from METRIC=AMOUNT with speedup"):
        parse_limits([text])


def loaded(name: str, *found: Result) -> Run:
    return load(Path(saved(name, *found)))


def commented(head: Run) -> str:
    compared = compare(load(Path("base.json")), [head])
    return comment(compared, regressions(compared, parse_limits([])))


def test_a_comment_has_a_headline_the_worst_regressions_and_the_rest_folded() -> None:
    lines = commented(loaded("head.json", *results(1.2))).splitlines()
    assert lines[0] == "### gradtax: 1 regression (2 cases compared)"
    assert lines[2:5] == [
        "| case             | figure  |  base |  head |       change | allowed |",
        "| ---------------- | ------- | ----: | ----: | -----------: | ------: |",
        "| mlp tiny no_grad | speedup | 1.250 | 1.200 | 0.960 ±0.001 |   1.0 % |",
    ]
    fold = lines.index("<details><summary>All cases</summary>")
    assert any(line.startswith("- base -> head: speedup: 1 of 1 cases changed: 1 slower") for line in lines[:fold])
    assert any(line.startswith("| changed | mlp tiny no_grad |") for line in lines[fold:])
    assert lines[-1] == "</details>"
    assert commented(loaded("same.json", *results())).startswith(
        "### gradtax: nothing regressed (2 cases compared)\n\n- base -> same"
    )


def test_a_comment_shows_names_as_text_and_calls_nobody() -> None:
    name = "<script>alert(1)</script>|@someone #12"
    saved("base.json", *results(model=name))
    text = commented(loaded("head.json", *results(1.1, model=name)))
    assert "\\<script>" in text
    assert "<script>" not in text.replace("\\<script>", "")
    assert "@someone" not in text
    assert "#12" not in text
    assert "\\|@" in text


def test_a_comment_never_exceeds_what_github_takes() -> None:
    cases = 500
    names = [f"{number} {'±' * 60}" for number in range(cases)]
    saved("base.json", *(result for name in names for result in results(model=name)[1:]))
    text = commented(loaded("head.json", *(result for name in names for result in results(1.1, model=name)[1:])))
    assert len(text.encode()) <= LIMIT
    assert text.endswith("\n\n</details>")
    assert "a comment on GitHub has no room for more" in text
    assert "and " + str(cases - 20) + " more" in text


@pytest.mark.parametrize("head", ["head", "±" * LIMIT])
def test_what_is_cut_off_a_comment_is_counted_however_long_the_lines_are(head: str) -> None:
    for width in range(1, 200, 3):
        lines = ["±" * width] * 4000
        text = _cut(head, lines)
        left_out = re.search(r"cut here, (\d+) lines", text)
        assert LIMIT - 2 * width - 10 < len(text.encode()) <= LIMIT or left_out is None
        assert text.splitlines().count(lines[0]) + (int(left_out[1]) if left_out else 0) == 4000


def test_the_command_prints_the_comment_and_the_gate_speaks_beside_it() -> None:
    saved("head.json", *results(1.2))
    done = gate("base.json", "head.json", "--format", "github", "--allow", "speedup=10%")
    assert (done.exit_code, done.stderr) == (0, "gate: nothing regressed (2 cases compared)\n")
    assert done.stdout.startswith("### gradtax: nothing regressed (2 cases compared)\n")


def test_commands_in_the_readme_have_only_options_that_exist() -> None:
    """The README's job for continuous integration is no file that anything runs."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    commands = re.findall(r"python -m analysis (\w+)([^`#|>\n]*)", readme)
    assert commands
    known = get_command(app).commands  # type: ignore[attr-defined]
    for name, arguments in commands:
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in arguments.split() if word.startswith("--")} <= options
