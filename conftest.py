"""The pytest edge: options in, cases to pytest-benchmark, results to its JSON, the answer to the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
import pytest_benchmark.plugin
from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import get_tag, safe_dumps

from benchmarks import options
from benchmarks.environment import steady
from benchmarks.failure import Failure
from benchmarks.journal import JournalError
from benchmarks.models.own import ModelError
from benchmarks.record import NO_COMMIT, Case, Timed, Unmeasured, clean
from benchmarks.replicate import replicate
from benchmarks.saving import write_whole
from benchmarks.session import RESUME, Session

ROOT = Path(__file__).parent
SESSION = pytest.StashKey[Session]()
"""Only there with --benchmark."""
PLUGIN_STORAGE = "file://./.benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradtax", "gradtax: what gradient tracking costs")
    group.addoption(
        "--benchmark", action="store_true", help="measure: run the benchmark cases instead of the suite's own tests"
    )
    group.addoption(RESUME, action="store_true", help="go on with the latest unfinished run of the same options")

    def add(flag: str, **settings: Any) -> None:
        if "type" in settings:
            settings["type"] = partial(_parsed, flag, settings["type"])
        group.addoption(flag, **settings)

    options.add_options(add)


def _parsed(flag: str, kind: Callable[[str], Any], text: str) -> Any:
    """A wrong value is told in one line and ends with argparse's own exit status 2; pytest would make it 4."""
    try:
        return kind(text)
    except argparse.ArgumentTypeError as error:
        print(clean(f"ERROR: {flag} {error}"), file=sys.stderr)  # noqa: T201 - there is no terminal reporter yet
        raise SystemExit(2) from error


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Where the whole plan is measured on several machines, a run for each takes the place of this one."""
    chosen = config.option
    if not (chosen.benchmark and chosen.machines) or chosen.split:
        return None
    try:
        return replicate(chosen.machines, config.invocation_params.args)
    except options.OptionError as error:
        print(f"ERROR: {error}", file=sys.stderr)  # noqa: T201 - there is no terminal reporter yet
        return 2


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest-benchmark reads its options: runs are saved, with their rounds, under results/ without being asked."""
    if not config.option.benchmark:
        return
    with _ended_in_a_line():
        _choose_storage(config)
        chosen = options.parsed(config.option)
        if chosen.own_models and sys.stderr.isatty():  # one that hangs is silent until it is given up
            limit = f"each for {chosen.effort.worker_timeout:g} s at most (--worker-timeout)"
            print(clean(f"trying {', '.join(chosen.own_models)}, {limit}"), file=sys.stderr)  # noqa: T201 - as above
        describe_machine = pytest_benchmark.plugin.pytest_benchmark_generate_machine_info
        config.stash[SESSION] = Session(chosen, describe_machine, partial(_say, config))


def _say(config: pytest.Config, line: str) -> None:
    """On the terminal, also while a test's output is captured."""
    plugins: Any = config.pluginmanager
    with plugins.get_plugin("capturemanager").global_and_fixture_disabled():
        plugins.get_plugin("terminalreporter").write_line(clean(line))


@contextmanager
def _ended_in_a_line() -> Iterator[None]:
    """What leaves nothing to measure, or nothing to measure on, ends pytest."""
    try:
        yield
    except (options.OptionError, ModelError, JournalError, Failure) as error:
        pytest.exit(clean(str(error)), returncode=2)


def _choose_storage(config: pytest.Config) -> None:
    """Sets pytest-benchmark's options where the user left them at their defaults. Raises OptionError for a place that cannot be written."""
    chosen = config.option
    if getattr(chosen, "dist", "no") != "no":
        raise options.OptionError("-n: measurements side by side disturb each other; run --benchmark without pytest-xdist")
    if chosen.benchmark_json and chosen.split:
        raise options.OptionError("--benchmark-json: --split saves a file for each machine; leave one of them out")
    if chosen.benchmark_storage == PLUGIN_STORAGE:
        chosen.benchmark_storage = f"file://{ROOT / 'results'}"
    if _times_nothing(config):
        return
    commit, _, when = get_tag().partition("_")
    chosen.benchmark_autosave = chosen.benchmark_autosave or (when if commit in NO_COMMIT else f"{commit[:8]}_{when}")
    chosen.benchmark_quiet = not (chosen.benchmark_compare or chosen.benchmark_histogram or chosen.benchmark_verbose)
    if chosen.benchmark_storage.startswith("file://"):
        _require_writable("--benchmark-storage", Path(chosen.benchmark_storage.removeprefix("file://")))
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


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --benchmark the cases and nothing else, without it the suite's own tests and nothing else."""
    benchmark_cases = collection_path.is_relative_to(ROOT / "benchmarks") and collection_path.suffix == ".py"
    own_tests = collection_path.is_relative_to(ROOT / "tests")
    return (own_tests if config.option.benchmark else benchmark_cases) or None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames and SESSION in metafunc.config.stash:
        cases = [case for job in metafunc.config.stash[SESSION].jobs for case in job.cases]
        metafunc.parametrize("case", cases, ids=str)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Only what `-k` leaves is measured."""
    config = session.config
    measuring = config.stash.get(SESSION, None)
    if measuring is None or config.option.collectonly:
        return
    callspecs = (getattr(item, "callspec", None) for item in session.items)
    cases = {callspec.params["case"] for callspec in callspecs if callspec is not None}
    measuring.jobs = [job for job in (job.only(cases) for job in measuring.jobs) if job.cases]
    if _times_nothing(config):
        measuring.check()
    elif measuring.jobs:
        with _ended_in_a_line():
            measuring.begin(_folder(config), resume=config.option.resume)


def _times_nothing(config: pytest.Config) -> bool:
    chosen = config.option
    return bool(chosen.collectonly or (chosen.benchmark_disable and not chosen.benchmark_enable))


@pytest.fixture
def result_of(request: pytest.FixtureRequest) -> Callable[[Case], Timed | Unmeasured | None]:
    """What became of a case; its job is measured when its first case is asked for."""
    return _ended_in_a_line()(request.config.stash[SESSION].run.result_of)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Progress is told by job; a letter per case beside it would say nothing. `-v` lists the cases."""
    if SESSION in config.stash and config.option.verbose <= 0 and report.when == "call":
        return report.outcome, "", "FAILED" if report.failed else ""  # the word is for the list at the end
    return None


def pytest_sessionstart(session: pytest.Session) -> None:
    if SESSION in session.config.stash and session.config.option.verbose <= 0:
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.showfspath = reporter._show_progress_info = False  # the jobs are the progress


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.update(steady(machine_info))
    if SESSION in config.stash:
        machine_info.update(config.stash[SESSION].machine_info)


def _folder(config: pytest.Config) -> Path | None:
    """Where runs are saved; None where that is no folder."""
    storage = config._benchmarksession.storage  # type: ignore[attr-defined]
    return storage.get("") if isinstance(storage, FileStorage) else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    config = session.config
    measuring = config.stash.get(SESSION, None)
    if measuring is not None:
        measuring.signals.ignore()
        with measuring.telling("the run could not be saved"):
            _save(config, measuring)
        measuring.end()
        run = measuring.run
        in_vain = (not measuring.saved and _folder(config) is not None) if run.results else bool(run.unmeasured)
        if in_vain and session.exitstatus == pytest.ExitCode.OK and not _times_nothing(config):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED  # what cannot be measured is skipped, but a run is for measuring
    yield


def _save(config: pytest.Config, measuring: Session) -> None:
    """In the place of pytest-benchmark, which saves nothing where nothing could be timed, and that is a finding all the same."""
    plugin: Any = config._benchmarksession  # type: ignore[attr-defined]
    name, dump = plugin.save or plugin.autosave, plugin.json
    plugin.save = plugin.autosave = plugin.json = None
    if plugin.disabled or not (plugin.benchmarks or measuring.run.unmeasured):
        return
    commit = config.hook.pytest_benchmark_generate_commit_info(config=config)
    config.hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit)
    run = config.hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=plugin.benchmarks,
        include_data=True,
        machine_info=plugin.get_machine_info(),
        commit_info=commit,
    )
    config.hook.pytest_benchmark_update_json(config=config, benchmarks=plugin.benchmarks, output_json=run)
    parts, folder = list(measuring.parts(run)), _folder(config)
    if dump:
        with measuring.telling(f"{dump} could not be written"):  # which is not the run's loss
            write_whole(dump, _json(parts[0]))
    if folder is not None:
        measuring.save(folder, name, map(_json, parts))
    else:
        for part in parts:
            plugin.storage.save(part, name)


def _json(run: dict[str, Any]) -> bytes:
    content: bytes = safe_dumps(run, ensure_ascii=True, indent=1).encode()
    return content


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The answer on one screen, then where the run and its page are."""
    measuring = config.stash.get(SESSION, None)
    if measuring is None or _times_nothing(config):
        return
    if measuring.run.results or measuring.run.unmeasured:
        terminalreporter.section("what gradient tracking costs")
        with measuring.telling(f"the summary could not be made; the run is {next(iter(measuring.saved), 'not saved')}"):
            _show_ending(terminalreporter, measuring)
    for line in measuring.told:
        terminalreporter.write_line(clean(f"warning: {line}"))


def _show_ending(terminalreporter: Any, measuring: Session) -> None:
    from analysis import ending, read  # pandas takes a second, which collecting need not wait for

    measured = measuring.run
    run = read.Run(read.as_read(measured.results), read.as_read(measured.unmeasured))
    findings = [str(finding) for finding in measuring.findings]
    for line in ending.lines(run, findings, measuring.saved):
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    if SESSION in config.stash:
        config.stash[SESSION].signals.restore()
