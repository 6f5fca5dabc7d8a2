"""Files that appear under their names complete or not at all, and never in the place of another run's."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

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
