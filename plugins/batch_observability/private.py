"""
Files and folders that only their owner reads. Standard library only.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def private_folder(folder: str | Path) -> None:
    """Make a folder that only its owner reads, and the one above it."""
    for path in (os.path.dirname(folder) or os.curdir, folder):  # noqa: PTH120  (pathlib takes long to load)
        os.makedirs(path, 0o700, exist_ok=True)  # noqa: PTH103


def private_in_tmp() -> str:
    """
    Return the folder in /tmp that is this user's alone, for what has no other place.

    Raises:
        PermissionError: if somebody else has made one of that name: what is written there would be theirs to change.
        OSError: if it cannot be made.
    """
    folder = f"/tmp/batchobs-{os.geteuid()}"  # noqa: S108  (it is ours, or refused)
    try:
        os.mkdir(folder, 0o700)  # noqa: PTH102
    except FileExistsError:
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(f"{folder} is not a folder that is ours alone") from None
    return folder


def write_private(path: Path, text: str) -> None:
    """
    Write a file that only its owner reads, so that a reader sees all of the old or all of the new text.

    Raises:
        OSError: if it cannot be written; then the old one is still there.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
