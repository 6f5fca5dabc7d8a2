"""Files that appear under their names complete or not at all, never in the place of another run's; and the lines of a journal."""

from __future__ import annotations

import os
import platform
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

_HERE = f"@{platform.node()}"
"""Ends the names of temporary files. They begin with the number of the process that writes."""


def write_whole(path: Path, content: bytes) -> None:
    """Puts `content` at `path`, in the place of what may be there. Raises OSError that names `path`, and leaves nothing behind then."""
    try:
        with _written(path.parent, content) as part:
            part.replace(path)
        synchronise(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def save_numbered(folder: Path, name: str, content: bytes) -> Path:
    """Saves as NNNN_`name`.json, with the first number that no file of `folder` has yet, and returns where. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name[:4]) for path in folder.glob("[0-9][0-9][0-9][0-9]_*.json")]
    with _written(folder, content) as part:
        for number in count(max(taken, default=0) + 1):
            path = folder / f"{number:04}_{name}.json"
            if any(folder.glob(f"{number:04}_*.json")):
                continue
            with suppress(FileExistsError):  # another run was faster
                os.link(part, path)  # unlike a rename it never replaces what is there
                break
    synchronise(folder)
    return path


@contextmanager
def _written(folder: Path, content: bytes) -> Iterator[Path]:
    """A temporary file with `content` on the disk."""
    with temporary(folder) as (descriptor, path):
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield path


@contextmanager
def temporary(folder: Path) -> Iterator[tuple[int, Path]]:
    """A new file in `folder`, open for reading and writing; its name is gone afterwards, unless it was given another."""
    sweep(folder)
    descriptor, name = tempfile.mkstemp(_HERE, f".gradtax-{os.getpid()}-", folder)
    path = Path(name)
    try:
        os.fchmod(descriptor, 0o644)
        yield descriptor, path
    finally:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes what processes of this computer left behind that were killed while they wrote."""
    for path in folder.glob(f".gradtax-*{_HERE}"):
        writer = path.name.split("-")[1]
        if writer.isdecimal() and not psutil.pid_exists(int(writer)):
            path.unlink(missing_ok=True)


def synchronise(folder: Path) -> None:
    """Has the names in `folder` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the journal of a run that is not finished."""

    number: int
    """From 1."""
    kind: Literal["run", "segment", "machines", "begun", "left", "done"]
    """What run it is, in the first line; a process began to write; where it measures, if not here; a job was begun, given up by an
    orderly end, measured."""
    at: str
    """When it was written, in ISO 8601."""
    payload: dict[str, Any]


def to_line(line: Line) -> bytes:
    """A list of the checksum, in eight characters, and the line, as JSON."""
    content = msgspec.json.encode(line)
    return b'["%08x",%s]\n' % (zlib.crc32(content), content)


def from_lines(content: bytes) -> tuple[list[Line], int, str]:
    """The lines of a journal, how many of its bytes they are, and what is wrong with the rest, empty where nothing is.

    A last line may be torn or wrong, which the end of a machine explains. Raises ValueError for a wrong line with others behind it.
    """
    lines: list[Line] = []
    end = 0
    *whole, rest = content.split(b"\n")
    for number, text in enumerate(whole, 1):
        line = _line(text)
        if line is None or line.number != number:
            if rest or number < len(whole):
                raise ValueError(f"line {number} is not what was written, and others follow it: the journal cannot be trusted")
            return lines, end, f"line {number}, the last, is not what was written"
        lines.append(line)
        end += len(text) + 1
    return lines, end, f"line {len(whole) + 1}, the last, has no end" if rest else ""


def _line(text: bytes) -> Line | None:
    content = text[12:-1]
    if text != b'["%08x",%s]' % (zlib.crc32(content), content):
        return None
    return msgspec.json.decode(content, type=Line)
