"""The journal: a run that was killed anywhere goes on and ends as if it had not been; what cannot be trusted is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.journal import Journal, JournalError, identity, resumable, unfinished
from benchmarks.models import Source
from benchmarks.plan import Job
from benchmarks.record import GroupResult, from_lines
from benchmarks.selfcheck.faults import killed_where_something_is_written
from benchmarks.selfcheck.stand_ins import FACTS, StandInJob, groups_of, jobs, left_after, measured, run_to_the_end

JOBS = jobs(3)


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Killed(BaseException):
    """As sudden as a test can be."""


def killed_in(folder: Path, job: Any, chosen: list[Any] = JOBS) -> Path:
    """The journal of a run that ended in `job` without a word."""

    def measure(left: Iterable[Any]) -> Iterator[GroupResult]:
        for each in left:
            if each == job:
                raise Killed
            yield from measured([each])

    with pytest.raises(Killed):
        run_to_the_end(folder, chosen, measure)
    (path,) = unfinished(folder)
    for number in list(Path("/proc/self/fd").iterdir()):  # what the kernel does with a process that has ended
        if os.path.realpath(number) == str(path):
            os.close(int(number.name))
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Any:
    """The groups of a run that nothing interrupted, which leaves its file and nothing else."""
    saved = run_to_the_end(tmp_path / "whole", JOBS)
    assert saved.name == "0001_run.json"
    assert sorted(saved.parent.iterdir()) == [saved, saved.with_suffix(".md")]
    return groups_of(saved)


def test_a_killed_run_measures_what_is_missing_and_ends_as_if_it_had_not_been_killed(tmp_path: Path, whole: Any) -> None:
    assert resumable(tmp_path) == ""
    path = killed_in(tmp_path, JOBS[1])
    assert resumable(tmp_path).endswith("ended after 1 of 3 jobs; go on with: pytest --resume")
    begun = []

    def noting(chosen: Iterable[Any]) -> Iterator[GroupResult]:
        for job in chosen:
            begun.append(job)
            yield from measured([job])

    assert groups_of(run_to_the_end(tmp_path, JOBS, noting)) == whole
    assert begun == JOBS[1:]
    assert not path.exists()


SHORT = [StandInJob(f"model_{number}", allocators=("pages_kept",)) for number in range(2)]


@pytest.fixture
def short(tmp_path: Path) -> tuple[bytes, Any]:
    """The journal of a short run that was killed, and the groups of one that was not."""
    content = killed_in(tmp_path / "killed", SHORT[1], SHORT).read_bytes()
    return content, groups_of(run_to_the_end(tmp_path / "whole", SHORT))


def gone_on_with(folder: Path, content: bytes) -> Any:
    (folder / ".unfinished_1.jsonl").write_bytes(content)
    saved = run_to_the_end(folder, SHORT)
    groups = groups_of(saved)
    saved.unlink()
    return groups


def places(content: bytes) -> list[int]:
    """Every seventh byte, and those around the ends of lines."""
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    return sorted({*range(0, len(content), 7), *(end + step for end in ends[:-1] for step in (-1, 0, 1)), len(content) - 1})


def test_truncated_anywhere_it_is_gone_on_with(tmp_path: Path, short: tuple[bytes, Any]) -> None:
    content, whole = short
    first_line = content.index(b"\n") + 1
    for size in range(len(content)):
        if size < first_line:
            with pytest.raises(JournalError, match="line 1 is not what was written"):
                gone_on_with(tmp_path, content[:size])
        else:
            assert gone_on_with(tmp_path, content[:size]) == whole, size


def test_a_flipped_bit_is_refused_by_its_line_or_measured_again_never_believed(
    tmp_path: Path, short: tuple[bytes, Any]
) -> None:
    content, whole = short
    lines = content.count(b"\n")
    for place in places(content):
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        line = content.count(b"\n", 0, place) + 1
        if line == lines or (line == lines - 1 and content[place] == ord("\n")):
            assert gone_on_with(tmp_path, flipped) == whole, place
        else:
            with pytest.raises(JournalError, match=f"line {line} is not what was written"):
                gone_on_with(tmp_path, flipped)


def test_what_was_cut_off_is_told_and_segments_say_when_and_how_much(tmp_path: Path) -> None:
    path = killed_in(tmp_path, JOBS[2])
    path.write_bytes(path.read_bytes()[:-5])
    with closing(Journal.resume(tmp_path, JOBS, FACTS)) as journal:
        assert journal.told == [f"{path}: line 7, the last, has no end; what it held is measured again"]
        list(journal.kept(measured(journal.begun(journal.missing))))
        assert [segment["jobs"] for segment in journal.segments] == [2, 1]
        assert all(segment["started"] <= segment["ended"] for segment in journal.segments)


def test_killed_before_or_after_any_change_of_the_disk_it_ends_as_if_it_had_not_been(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tried,) = killed_where_something_is_written()
    assert tried.times > 60
    assert tried.broken == []


def test_a_job_that_ended_the_run_twice_is_crashed_and_the_run_goes_on(tmp_path: Path) -> None:
    for _ in range(2):
        killed_in(tmp_path, JOBS[1])
    with closing(Journal.resume(tmp_path, JOBS, FACTS)) as journal:
        assert journal.missing == [JOBS[2]]
        assert any("model_1" in line and "ended 2 times" in line for line in journal.told)
    groups = {group["group"]["model"]: group for group in groups_of(run_to_the_end(tmp_path, JOBS))}
    assert list(groups) == ["model_0", "model_1", "model_2"]
    lost = [(one["case"]["mode"], one["status"]) for one in groups["model_1"]["unmeasured"]]
    assert lost == [("tracked", "crashed"), ("detach", "crashed"), ("no_grad", "crashed")]
    assert groups["model_1"]["timed"] == []


def test_a_job_that_was_left_in_order_is_not_what_ended_the_run(tmp_path: Path) -> None:
    left_after(tmp_path, JOBS, 0)
    for _ in range(3):
        with closing(Journal.resume(tmp_path, JOBS, FACTS)) as journal:
            assert journal.missing == JOBS
            next(journal.begun(journal.missing))


def test_a_second_writer_ends_at_once_and_names_the_first(tmp_path: Path) -> None:
    with closing(Journal.begin(tmp_path, JOBS, FACTS, "")) as first:
        content = first.path.read_bytes()
        with pytest.raises(JournalError, match=f"process {os.getpid()} is writing it"):
            Journal.resume(tmp_path, JOBS, FACTS)
        assert first.path.read_bytes() == content
        assert resumable(tmp_path) == ""
    Journal.resume(tmp_path, JOBS, FACTS).close()


@pytest.mark.parametrize(
    ("facts", "difference"),
    [
        (FACTS | {"torch": "2.14.0"}, "torch: 2.13.0 then, 2.14.0 now"),
        ({"torch": "2.13.0", "environment": {}}, "code of the suite: 0123 then, None now; environment: None then, {} now"),
    ],
)
def test_another_identity_is_refused_with_what_differs_and_nothing_is_touched(
    tmp_path: Path, facts: dict[str, Any], difference: str
) -> None:
    path = killed_in(tmp_path, JOBS[1])
    content = path.read_bytes()
    with pytest.raises(JournalError) as caught:
        Journal.resume(tmp_path, JOBS, facts)
    assert str(caught.value) == f"{path}: cannot be gone on with: {difference}; leave out --resume"
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_the_latest_of_the_same_identity_is_gone_on_with(tmp_path: Path) -> None:
    path = left_after(tmp_path, JOBS, 1)
    Journal.begin(tmp_path, JOBS, FACTS | {"torch": "2.14.0"}, "").close()
    path.with_name(".unfinished_9.jsonl").touch()
    assert "ended after 0 of 3 jobs" in resumable(tmp_path)
    with closing(Journal.resume(tmp_path, JOBS, FACTS)) as resumed:
        assert resumed.path == path


def test_a_journal_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, content: 0)
    with pytest.raises(JournalError, match="No space left on device; --benchmark-storage names another place"):
        Journal.begin(tmp_path, JOBS, FACTS, "")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="File exists; --benchmark-storage names another place"):
        Journal.begin(tmp_path / "file", JOBS, FACTS, "")


def test_a_saved_run_whose_journal_was_not_removed_is_not_saved_again(tmp_path: Path) -> None:
    path = left_after(tmp_path, JOBS, 3)
    (tmp_path / "0001_run.json").write_text(path.stem)
    with pytest.raises(JournalError, match=r"saved as 0001_run\.json"):
        Journal.resume(tmp_path, JOBS, FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["0001_run.json"]


@pytest.mark.parametrize("vanished", [True, False])
def test_a_journal_that_cannot_be_written_says_so_after_handing_on_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, vanished: bool
) -> None:
    with closing(Journal.begin(tmp_path, JOBS, FACTS, "")) as journal:
        results = journal.kept(measured(journal.begun(JOBS)))
        there = [next(results) for _ in range(3)]
        size = journal.path.stat().st_size
        if vanished:
            journal.path.unlink()
        else:
            write = os.write
            monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:10]))
        there.append(next(results))
        with pytest.raises(JournalError, match="was removed" if vanished else "No space left"):
            next(results)
        assert there == list(measured(JOBS[:2]))
        assert vanished or journal.path.stat().st_size == size


def test_a_signal_while_a_line_is_written_leaves_none_or_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with closing(Journal.begin(tmp_path, JOBS, FACTS, "")) as journal:
        content = journal.path.read_bytes()
        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(journal.begun(JOBS))
        assert journal.path.read_bytes() == content
        monkeypatch.setattr(os, "fsync", lambda _: None)
        assert next(journal.begun(JOBS)) == JOBS[0]
    assert from_lines(journal.path.read_bytes())[2] == ""


def test_an_identity_changes_with_jobs_options_files_and_machine(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("one = 1")
    job = Job(scenario="forward", source=Source("one", "own", f"{own}:one"), device="cpu", dtype="float32", modes=("tracked",))
    other = Job(scenario="forward", source=Source("mlp", "tiny"), device="cpu", dtype="float32", modes=("tracked",))

    def of(*jobs: Job, in_process: bool = False, torch: str = "2.13.0") -> Any:
        return identity(jobs, {"in_process": in_process}, {"torch": torch})

    first, others = of(job), [of(other), of(job, other), of(job, in_process=True), of(job, torch="2.14.0")]
    assert of(job) == first
    own.write_text("one = 2")
    assert first not in [*others, of(job)]
