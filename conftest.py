"""The pytest edge: options in, cases to pytest-benchmark, results to its JSON, the table to the terminal."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from textwrap import shorten
from typing import Any

import pytest
from pytest_benchmark.utils import get_tag

from analysis.render import WIDTH, rendered
from analysis.tables import summary_tables
from benchmarks import options
from benchmarks.device import ALLOCATORS, DEVICES
from benchmarks.models import DTYPES, MODELS, SIZES
from benchmarks.models.own import ModelError
from benchmarks.modes import DEFAULT_MODES, MODES
from benchmarks.record import Case, Group, Timed, Unmeasured, tidy_rows
from benchmarks.scenarios import SCENARIOS
from benchmarks.session import Session
from benchmarks.suite import Outcome

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"
SESSION = pytest.StashKey[Session]()
SAVED_BEFORE = pytest.StashKey[set[Path]]()
PLUGIN_STORAGE = "file://./.benchmarks"


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main() -> Generator[None, int, int]:
    """A value that our options cannot take is told in one line and exit status 2; pytest's own usage errors end with 4."""
    try:
        return (yield)
    except pytest.UsageError as error:
        if not isinstance(error.__cause__, (options.OptionError, ModelError)):
            raise
        print(f"ERROR: {error}", file=sys.stderr)  # noqa: T201 - there is no terminal reporter yet
        return 2


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradtax", "gradtax: what gradient tracking costs")
    add = group.addoption
    add("--benchmark", action="store_true", help="measure: run the benchmark cases instead of the suite's own tests")
    add("--models", metavar="NAMES", help=f"built-in models, comma-separated: {', '.join(MODELS)} (default: all)")
    add("--model", metavar="SPEC", action="append", default=[], dest="own_models",
        help="your own model, path/to/file.py:function or package.module:function; the function takes no arguments, or "
        "`size`, and returns (module, inputs). Repeatable. The built-in models then run only with --models")  # fmt: skip
    add("--sizes", metavar="NAMES", help=f"{', '.join(SIZES)} (default: {','.join(options.DEFAULT_SIZES)})")
    add("--modes", metavar="NAMES", help=f"{', '.join(MODES)}, or those of a scenario, or all (default: {','.join(DEFAULT_MODES)}; "
        "a scenario's own)")  # fmt: skip
    add("--freeze", metavar="PATTERN", action="append", default=[],
        help="one more mode: tracked, but parameters whose name matches, such as encoder.*, do not require grad. Repeatable")  # fmt: skip
    add("--scenarios", metavar="NAMES", help=f"how models are run: {', '.join(SCENARIOS)} (default: all, each with small models of its "
        "own; forward alone where --models, --model or --sizes are given)")  # fmt: skip
    add("--device", metavar="NAMES", help=f"{', '.join(DEVICES)} (default: the accelerator if there is one, else cpu)")
    add("--dtype", metavar="NAMES", help=f"{', '.join(DTYPES)} (default: float32)")
    add(
        "--allocator",
        metavar="NAMES",
        help=f"how memory is kept while timing on a CPU: {', '.join(ALLOCATORS)} (default: both)",
    )
    add("--threads", metavar="N", default=f"{options.THREADS}", help="threads that torch computes with (default: %(default)s)")
    add("--budget", metavar="SECONDS", default=f"{options.BUDGET_SECONDS:g}", help="timing per group (default: %(default)s)")
    add("--precision", metavar="FRACTION", default=f"{options.PRECISION:g}",
        help="stop timing a group once the 99 %% interval of every speedup is within this fraction (default: %(default)s)")  # fmt: skip
    add("--timeout", metavar="SECONDS", default=f"{options.TIMEOUT_SECONDS:g}",
        help="give a process of a group up after this long (default: %(default)s)")  # fmt: skip
    add("--processes", metavar="N", default=f"{options.PROCESSES}",
        help="repeat a group's timing in so many processes; their spread widens the intervals (default: %(default)s)")  # fmt: skip
    add("--retries", metavar="N", default=f"{options.RETRIES}",
        help="time a group again, so many times at most, if its placebo shows that it cannot be trusted (default: %(default)s)")  # fmt: skip
    add("--in-process", action="store_true", help="no clean room: everything in this process, for debuggers and profilers")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest-benchmark reads its options: runs are saved, with their rounds, under results/ without being asked."""
    if not config.option.benchmark:
        return
    chosen = config.option
    try:
        parsed = options.parse(
            models=chosen.models, own_models=chosen.own_models, sizes=chosen.sizes, modes=chosen.modes, freeze=chosen.freeze,
            scenarios=chosen.scenarios, device=chosen.device, dtype=chosen.dtype, allocator=chosen.allocator,
            threads=chosen.threads, budget=chosen.budget, precision=chosen.precision, timeout=chosen.timeout,
            processes=chosen.processes, retries=chosen.retries, in_process=chosen.in_process,
        )  # fmt: skip
        _choose_storage(config)
        config.pluginmanager.unregister(name="hypothesispytest")  # loads hypothesis, for a second, only to say nothing
        gc.freeze()  # pytest collects five times as it ends; torch's modules stay anyway
        config.stash[SAVED_BEFORE] = _saved_runs(config)
        config.stash[SESSION] = Session(parsed)
    except (options.OptionError, ModelError) as error:
        raise pytest.UsageError(str(error)) from error


def _choose_storage(config: pytest.Config) -> None:
    """Sets pytest-benchmark's options where the user left them at their defaults. Raises OptionError for a place that cannot be written."""
    chosen = config.option
    if getattr(chosen, "dist", "no") != "no":
        raise options.OptionError("-n: measurements side by side disturb each other; run --benchmark without pytest-xdist")
    if chosen.benchmark_storage == PLUGIN_STORAGE:
        chosen.benchmark_storage = f"file://{RESULTS}"
    if chosen.benchmark_disable or chosen.collectonly:
        return
    commit, _, when = get_tag().partition("_")
    chosen.benchmark_save_data = True
    chosen.benchmark_autosave = chosen.benchmark_autosave or f"{commit[:8]}_{when}"
    chosen.benchmark_quiet = not (chosen.benchmark_compare or chosen.benchmark_histogram or chosen.benchmark_verbose)
    folder = _storage_folder(config)
    if folder is not None:
        _require_writable("--benchmark-storage", folder)
    if chosen.benchmark_json:
        _require_writable("--benchmark-json", chosen.benchmark_json.parent)


def _require_writable(option: str, folder: Path) -> None:
    """Before minutes of measuring, not after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"{option} {folder}: runs cannot be saved there: {error.strerror}; name a folder that can be written"
        raise options.OptionError(reason) from error


def _storage_folder(config: pytest.Config) -> Path | None:
    """Where runs are saved, None where that is no folder (elasticsearch)."""
    storage: str = config.option.benchmark_storage
    return None if "://" in storage and not storage.startswith("file://") else Path(storage.removeprefix("file://"))


def _saved_runs(config: pytest.Config) -> set[Path]:
    folder = _storage_folder(config)
    return set(folder.glob("*/[0-9][0-9][0-9][0-9]_*.json")) if folder else set()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --benchmark the cases and nothing else, without it the suite's own tests and nothing else."""
    benchmark_cases = collection_path.is_relative_to(ROOT / "benchmarks") and collection_path.suffix == ".py"
    own_tests = collection_path.is_relative_to(ROOT / "tests")
    return (own_tests if config.option.benchmark else benchmark_cases) or None


def pytest_sessionstart(session: pytest.Session) -> None:
    if SESSION in session.config.stash and session.config.option.verbose <= 0:
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.showfspath = reporter._show_progress_info = False  # the groups are the progress


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames and SESSION in metafunc.config.stash:
        cases = [case for planned in metafunc.config.stash[SESSION].planned for case in planned.cases]
        metafunc.parametrize("case", cases, ids=str)


def pytest_collection_finish(session: pytest.Session) -> None:
    if SESSION in session.config.stash:
        callspecs = (getattr(item, "callspec", None) for item in session.items)
        cases = (callspec.params.get("case") for callspec in callspecs if callspec is not None)
        session.config.stash[SESSION].select(case for case in cases if isinstance(case, Case))


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """What harms the measurement that is about to begin."""
    if SESSION not in config.stash or _times_nothing(config):
        return []
    return [f"warning: {finding}" for finding in config.stash[SESSION].conditions.before]


def _times_nothing(config: pytest.Config) -> bool:
    chosen = config.option
    return bool(chosen.collectonly or (chosen.benchmark_disable and not chosen.benchmark_enable))


@pytest.fixture
def find(request: pytest.FixtureRequest) -> Callable[[Case], Timed | Unmeasured | None]:
    """What became of a case; its group is measured when it is first asked for."""
    config = request.config
    plugins = config.pluginmanager
    progress = TerminalProgress(plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager"))

    def find_shown(case: Case) -> Timed | Unmeasured | None:
        return config.stash[SESSION].find(case, progress, contract_only=_times_nothing(config))

    return find_shown


class TerminalProgress:
    """A line per group; on a terminal it follows what is measured, piped to a file it is written once."""

    def __init__(self, reporter: Any, capture: Any) -> None:
        self._reporter, self._capture = reporter, capture
        self._line = ""

    def begins(self, number: int, total: int, group: Group, seconds_left: float) -> None:
        what = f"{group.scenario} {group.model} {group.size} {group.device} {group.dtype} {group.allocator}"
        left = f"{seconds_left / 60:.0f} min" if seconds_left >= 100 else f"{seconds_left:.0f} s"
        self._line = f"[{number:{len(str(total))}}/{total}] {what}, about {left} left"
        self._show(self._line, final=not self._reporter.isatty)

    def says(self, text: str) -> None:
        if self._reporter.isatty:
            self._show(f"{self._line}: {text}"[:WIDTH])

    def ends(self, outcome: Outcome) -> None:
        if self._reporter.isatty:
            self._show(self._line, final=True)
        for one in outcome.unmeasured:
            text = shorten(f"{one.case.mode}: {one.status}: {one.reason}", WIDTH - 4, placeholder=" ...")
            self._show(f"    {text}", final=True)

    def _show(self, line: str, *, final: bool = False) -> None:
        with self._capture.global_and_fixture_disabled():
            if self._reporter.isatty:
                self._reporter.rewrite(line, erase=True)
            else:
                self._reporter.write(line)
            if final:
                self._reporter.write("\n")
                self._reporter.flush()


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Progress is told by group; a letter per case beside it would say nothing. `-v` lists the cases."""
    if SESSION in config.stash and config.option.verbose <= 0 and report.when == "call":
        return report.outcome, "", "FAILED" if report.failed else ""  # the word is for the list at the end
    return None


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    for name in ("hz_actual", "hz_actual_friendly"):  # they change from second to second
        machine_info.get("cpu", {}).pop(name, None)
    if SESSION in config.stash:
        machine_info["gradtax"] = config.stash[SESSION].machine_facts()


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    if SESSION in config.stash:
        output_json["gradtax"] = config.stash[SESSION].top_level()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """pytest-benchmark saves no run in which nothing was timed; what could not be measured is a finding all the same."""
    _save_what_is_only_unmeasured(session)
    yield


def _save_what_is_only_unmeasured(session: pytest.Session) -> None:
    config = session.config
    plugin = config._benchmarksession  # type: ignore[attr-defined]
    if SESSION not in config.stash or plugin.benchmarks or not config.stash[SESSION].unmeasured or plugin.disabled:
        return
    commit = config.hook.pytest_benchmark_generate_commit_info(config=config)
    run = config.hook.pytest_benchmark_generate_json(
        config=config, benchmarks=[], include_data=True, machine_info=plugin.get_machine_info(), commit_info=commit
    )
    config.hook.pytest_benchmark_update_json(config=config, benchmarks=[], output_json=run)
    plugin.storage.save(run, plugin.save or plugin.autosave)
    if plugin.json:
        plugin.save_json(run)
    plugin.save = plugin.autosave = plugin.json = None


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    if session is None or not (session.results or session.unmeasured):
        return
    tables = summary_tables(tidy_rows(session.results), session.unmeasured, session.broken_invariants)
    write = terminalreporter.write_line
    if session.results:
        terminalreporter.section("what gradient tracking costs")
        for line in (
            *rendered(tables, "terminal").splitlines(),
            *(f"warning: {finding}" for finding in session.conditions.after),
        ):
            write(line)
    before = config.stash[SAVED_BEFORE]
    for run in _saved_runs(config) - before:
        _show_saved(run, rendered(tables, "markdown"), write)


def _show_saved(run: Path, table: str, write: Callable[[str], None]) -> None:
    run.with_suffix(".md").write_text(f"{table}\n", encoding="utf-8")
    write("")
    write(f"saved: {_short(run)}")
    write("       and the table above beside it, as Markdown (.md)")
    name = run.name[:4] if run.parent.parent == RESULTS and Path.cwd() == ROOT else _short(run)
    write(f"next:  python -m analysis advise {name}     or report {name}, claims {name}, summarise {name} --format latex")
    write("       pytest --benchmark --model path/to/file.py:function     a model of your own")


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
