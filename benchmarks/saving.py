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

_TEMPORARY = f".gradtax-{platform.node()}-"
"""What names of temporary files begin with; the number of the process that writes follows."""


def write_whole(path: Path, content: bytes) -> None:
    """Puts `content` at `path`, in the place of what may be there. Raises OSError, and leaves nothing behind then."""
    with _written(path.parent, content) as temporary:
        temporary.replace(path)
    synchronise(path.parent)


def save_numbered(folder: Path, name: str, content: bytes) -> Path:
    """Saves as NNNN_`name`.json, with the first number that no file of `folder` has yet, and returns where. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name[:4]) for path in folder.glob("[0-9][0-9][0-9][0-9]_*.json")]
    with _written(folder, content) as temporary:
        for number in count(max(taken, default=0) + 1):
            path = folder / f"{number:04}_{name}.json"
            if any(folder.glob(f"{number:04}_*.json")):
                continue
            with suppress(FileExistsError):  # another run was faster
                os.link(temporary, path)  # unlike a rename it never replaces what is there
                break
    synchronise(folder)
    return path


@contextmanager
def _written(folder: Path, content: bytes) -> Iterator[Path]:
    """A temporary file in `folder` with `content` on the disk; gone afterwards, unless it was renamed."""
    sweep(folder)
    descriptor, name = tempfile.mkstemp(prefix=f"{_TEMPORARY}{os.getpid()}-", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o644)
        yield path
    finally:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes what processes of this computer left behind that were killed while they wrote."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        writer = path.name.removeprefix(_TEMPORARY).partition("-")[0]
        if not psutil.pid_exists(int(writer)):
            path.unlink(missing_ok=True)


def synchronise(folder: Path) -> None:
    """Has the names in `folder` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
