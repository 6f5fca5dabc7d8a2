"""Saved files are whole or not there, and no run takes the place of another's."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.saving import save_numbered, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_what_was_there_under_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old")
    write_whole(path, b"new")
    assert (path.read_bytes(), names(tmp_path)) == (b"new", ["run.json"])
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_written_is_named_and_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No such file or directory") as caught:
        write_whole(tmp_path / "nowhere" / "page.html", b"")
    assert caught.value.filename == str(tmp_path / "nowhere" / "page.html")
    monkeypatch.setattr(os, "fsync", full)
    for save in (lambda: write_whole(path, b"new"), lambda: save_numbered(tmp_path, "run", b"new")):
        with pytest.raises(OSError, match="No space left"):
            save()
        assert (path.read_bytes(), names(tmp_path)) == (b"old", ["run.json"])


def test_runs_are_numbered_after_the_highest_number_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "machine"
    assert save_numbered(folder, "first", b"1") == folder / "0001_first.json"
    (folder / "0007_old.json").touch()
    (folder / "notes.json").touch()
    assert save_numbered(folder, "next", b"2") == folder / "0008_next.json"
    assert (folder / "0008_next.json").read_bytes() == b"2"


def test_a_run_that_is_overtaken_takes_the_next_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others save while it is written, and between the look at the folder and the link."""
    link = os.link

    def overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        target.write_bytes(b"another's")
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    monkeypatch.setattr(os, "fsync", lambda _: (tmp_path / "0001_another.json").touch())
    assert save_numbered(tmp_path, "run", b"ours") == tmp_path / "0003_run.json"
    assert (tmp_path / "0002_run.json").read_bytes() == b"another's"


def test_what_a_killed_process_left_goes_and_what_others_write_is_let_be(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = platform.node()
    living, elsewhere = f".gradtax-{os.getppid()}-abc@{here}", f".gradtax-{gone.pid}-abc@not-{here}"
    for name in (f".gradtax-{gone.pid}-abc@{here}", living, elsewhere, f".gradtax-mine@{here}"):
        (tmp_path / name).touch()
    write_whole(tmp_path / "page.html", b"whole")
    assert names(tmp_path) == sorted([living, elsewhere, f".gradtax-mine@{here}", "page.html"])
