"""
Files and folders that only their owner reads. Standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner reads, and the one above it."""
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


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
