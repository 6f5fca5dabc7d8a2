"""The journal: a run that was killed anywhere goes on and ends as if it had not been; what cannot be trusted is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from stand_in_jobs import FACTS, groups_of, jobs, measured, run_to_the_end

from benchmarks.journal import Journal, JournalError, identity, resumable, unfinished
from benchmarks.models import Source
from benchmarks.plan import Job
from benchmarks.record import GroupResult
from benchmarks.saving import from_lines

JOBS = jobs(3)


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "killed" not in request.node.name:
        monkeypatch.setattr(os, "fsync", lambda _: None)


class Killed(BaseException):
    """As sudden as a test can be."""


def dying_in(last: Any, chosen: Iterable[Any]) -> Iterator[GroupResult]:
    for job in chosen:
        if job == last:
            raise Killed
        yield from measured([job])


def killed_in(folder: Path, job: Any, chosen: list[Any] = JOBS) -> Path:
    """The journal of a run that ended in `job` without a word."""
    with pytest.raises(Killed):
        run_to_the_end(folder, chosen, lambda left: dying_in(job, left))
    (path,) = unfinished(folder)
    release(path)
    return path


def release(path: Path) -> None:
    """What the kernel does with a process that has ended: its descriptors are closed."""
    for number in list(Path("/proc/self/fd").iterdir()):
        if os.path.realpath(number) == str(path):
            os.close(int(number.name))


SHORT = jobs(2, "pages_kept")


def test_truncated_at_any_byte_it_is_gone_on_with(tmp_path: Path) -> None:
    whole = groups_of(run_to_the_end(tmp_path / "whole", SHORT))
    content = killed_in(tmp_path / "first", SHORT[1], SHORT).read_bytes()
    first_line = content.index(b"\n") + 1
    for size in range(len(content)):
        path = tmp_path / ".unfinished_1.jsonl"
        path.write_bytes(content[:size])
        if size < first_line:
            with pytest.raises(JournalError, match="line 1 is not what was written"):
                run_to_the_end(tmp_path, SHORT)
        else:
            saved = run_to_the_end(tmp_path, SHORT)
            assert groups_of(saved) == whole, size
            saved.unlink()


def test_a_flipped_bit_is_refused_by_its_line_or_measured_again_never_believed(tmp_path: Path) -> None:
    whole = groups_of(run_to_the_end(tmp_path / "whole", SHORT))
    content = killed_in(tmp_path / "first", SHORT[1], SHORT).read_bytes()
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    path = tmp_path / ".unfinished_1.jsonl"
    for place in range(len(content)):
        line = sum(end < place for end in ends) + 1
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        last = line == len(ends) or (line == len(ends) - 1 and place in ends)
        if last:
            assert groups_of(run_to_the_end(tmp_path, SHORT)) == whole
        else:
            with pytest.raises(JournalError, match=f"line {line} is not what was written"):
                run_to_the_end(tmp_path, SHORT)


def test_what_was_cut_off_is_told(tmp_path: Path) -> None:
    path = killed_in(tmp_path, JOBS[2])
    path.write_bytes(path.read_bytes()[:-5])
    with closing(Journal.resume(tmp_path, JOBS, FACTS)) as journal:
        assert journal.told == [f"{path}: line 7, the last, has no end; what it held is measured again"]


def test_a_job_that_ended_the_run_twice_is_crashed_and_the_run_goes_on(tmp_path: Path) -> None:
    for _ in range(2):
        killed_in(tmp_path, JOBS[1])
    with closing(Journal.resume(tmp_path, JOBS, FACTS)) as journal:
        assert journal.missing == [JOBS[2]]
        assert any("model_1" in line and "ended 2 times" in line for line in journal.told)
    groups = {group["group"]["model"]: group for group in groups_of(run_to_the_end(tmp_path, JOBS))}
    assert list(groups) == ["model_0", "model_1", "model_2"]
    assert {one["status"] for one in groups["model_1"]["unmeasured"]} == {"crashed"}
    assert [one["case"]["mode"] for one in groups["model_1"]["unmeasured"]] == ["tracked", "detach", "no_grad"]
    assert groups["model_1"]["timed"] == []


def test_a_job_that_was_left_in_order_is_not_what_ended_the_run(tmp_path: Path) -> None:
    for number in range(3):
        left = Journal.resume(tmp_path, JOBS, FACTS) if number else Journal.begin(tmp_path, JOBS, FACTS, "")
        next(left.begun(left.missing))
        left.close()
    with closing(Journal.resume(tmp_path, JOBS, FACTS)) as journal:
        assert journal.missing == JOBS


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


def test_the_latest_of_the_same_identity_is_chosen(tmp_path: Path) -> None:
    ours, _ = (Journal.begin(tmp_path, JOBS, facts, "") for facts in (FACTS, FACTS | {"torch": "2.14.0"}))
    ours.close()
    with closing(Journal.resume(tmp_path, JOBS, FACTS)) as resumed:
        assert resumed.path == ours.path


def test_a_run_that_could_be_gone_on_with_is_told_with_its_command_also_beside_a_journal_without_a_line(tmp_path: Path) -> None:
    assert resumable(tmp_path) == ""
    path = killed_in(tmp_path, JOBS[1])
    path.with_name(".unfinished_9.jsonl").touch()
    assert resumable(tmp_path).endswith("ended after 1 of 3 jobs; go on with: pytest --resume")
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
    journal = Journal.begin(tmp_path, JOBS, FACTS, "")
    list(journal.kept(measured(journal.begun(JOBS))))
    journal.close()
    (tmp_path / "0001_run.json").write_text(journal.path.stem)
    with pytest.raises(JournalError, match=r"saved as 0001_run\.json"):
        Journal.resume(tmp_path, JOBS, FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["0001_run.json"]


@pytest.mark.parametrize("vanished", [True, False])
def test_a_journal_that_cannot_be_written_says_so_after_handing_on_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, vanished: bool
) -> None:
    journal = Journal.begin(tmp_path, JOBS, FACTS, "")
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
    journal.close()


def test_a_signal_while_a_line_is_written_leaves_none_or_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.begin(tmp_path, JOBS, FACTS, "")
    content = journal.path.read_bytes()

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(journal.begun(JOBS))
    assert journal.path.read_bytes() == content
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert next(journal.begun(JOBS)) == JOBS[0]
    journal.close()
    assert from_lines(journal.path.read_bytes())[2] == ""


def test_an_identity_changes_with_jobs_options_files_and_machine(tmp_path: Path) -> None:
    def identified(chosen: list[Job], *, in_process: bool = False, torch: str = "2.13.0") -> dict[str, Any]:
        return identity(chosen, {"in_process": in_process}, {"torch": torch})

    own = tmp_path / "own.py"
    own.write_text("one = 1")
    job, other = (
        Job(scenario="forward", source=source, device="cpu", dtype="float32", modes=("tracked",))
        for source in (Source("one", "own", f"{own}:one"), Source("mlp", "tiny"))
    )
    first = identified([job])
    assert first == identified([job])
    assert first not in (
        identified([other]), identified([job, other]), identified([job], in_process=True), identified([job], torch="2.14.0"),
    )  # fmt: skip
    own.write_text("one = 2")
    assert first != identified([job])


def test_long_runs_leave_nothing_open(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(20):
        run_to_the_end(tmp_path, jobs(1))
    assert set(Path("/proc/self/fd").iterdir()) <= before
