"""Files that appear under their names complete or not at all, and never in the place of another run's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Puts `content` at `path`, in the place of what may be there. Raises OSError, and leaves nothing behind then."""
    with _written(path.parent, content) as temporary:
        temporary.replace(path)
    _synchronise(path.parent)


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
    _synchronise(folder)
    return path


@contextmanager
def _written(folder: Path, content: bytes) -> Iterator[Path]:
    """A temporary file in `folder` with `content` on the disk; gone afterwards, unless it was renamed."""
    descriptor, name = tempfile.mkstemp(prefix=".gradtax-", dir=folder)
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


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
