"""Files that appear under their names complete, or not at all."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Through a file beside it, which is on the disk before it takes the name; a next run removes what a killed one leaves of it.

    Raises OSError that names `path`.
    """
    part = path.with_name(f".gradtax-{platform.node()}-{os.getpid()}-part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _synchronise(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
