"""
Where a host's catalog is: what the setting `catalog` says, else the first of two places that has one.

It is the same for every process of a host, whatever folder it runs in: a job must not have another owner because cron
starts it elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from batch_observability.config import Settings

NAME = "batch_models.yaml"
# Where there is no Airflow.
SYSTEM = Path("/etc/batchobs") / NAME


def paths_of(settings: Settings) -> list[Path]:
    """Return the files and folders of a host's catalog; none if it has none."""
    if settings.catalog:
        return configured(settings.catalog)
    return next(([path] for path in usual() if is_there(path)), [])


def configured(text: str) -> list[Path]:
    """Return the paths that a setting names."""
    return [_own(part) for part in text.split(os.pathsep) if part.strip()]


def usual() -> list[Path]:
    """Return where a catalog is looked for, if the setting says nothing."""
    return [_own(f"{os.environ.get('AIRFLOW_HOME') or '~/airflow'}/{NAME}"), SYSTEM]


def watched(settings: Settings) -> list[Path]:
    """Return all files and folders that a catalog would be other of, if they changed, came or went."""
    paths = configured(settings.catalog) if settings.catalog else usual()
    return [
        file for path in paths for file in (path, *(sorted(path.glob("*.y*ml")) if is_there(path, folder=True) else ()))
    ]


def is_there(path: Path, *, folder: bool = False) -> bool:
    """Whether there is a file, or a folder, that may be seen."""
    try:
        return path.is_dir() if folder else path.is_file()
    except OSError:
        return False


def _own(text: str) -> Path:
    try:
        return Path(text.strip()).expanduser()
    except RuntimeError:
        # A user without a home, as in some containers: there is no such file then.
        return Path(text.strip())
