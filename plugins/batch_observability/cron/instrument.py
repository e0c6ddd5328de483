"""
`batchobs run --instrument`: OpenTelemetry's instrumentations for what is installed where the job runs.

A job is any command, which may start Python at any depth; so they are switched on by the environment.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from batch_observability.config import ConfigError

_FOLDER = str(Path(__file__).with_name("instrumentation"))
_PATH = "PYTHONPATH"
_PYTHON = re.compile(r"python[0-9.]*")
_NEEDED = ("opentelemetry.distro", "opentelemetry.instrumentation", "opentelemetry.exporter.otlp.proto.http")
_ASK = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {_NEEDED})))"
_ANSWERS_WITHIN_S = 20


def instrumented(environment: Mapping[str, str], words: Sequence[str]) -> dict[str, str]:
    """
    Return an environment in which each Python of a command is instrumented.

    Raises:
        ConfigError: if the command is a Python that has not what it takes; what a shell starts is not known before.
    """
    python = shutil.which(words[0], path=environment.get("PATH"))
    if python is not None and _PYTHON.fullmatch(Path(python).name) and not _has_all(python):
        packages = "opentelemetry-distro opentelemetry-exporter-otlp-proto-http"
        raise ConfigError(
            f"--instrument: {python} has no OpenTelemetry to instrument with; install it: {python} -m pip install "
            f"{packages}, then {Path(python).with_name('opentelemetry-bootstrap')} -a install"
        )
    given = environment.get(_PATH)
    # An empty part is the folder that the job runs in.
    rest = [part for part in given.split(os.pathsep) if part != _FOLDER] if given else []
    return {**environment, _PATH: os.pathsep.join([_FOLDER, *rest])}


def _has_all(python: str) -> bool:
    """Ask an interpreter whether it finds the packages."""
    if Path(python).parent == Path(sys.executable).parent:
        from importlib.util import find_spec

        try:
            return all(map(find_spec, _NEEDED))
        except ImportError:
            return False
    import subprocess

    try:
        asked = subprocess.run(  # noqa: S603  (it is about to be run anyway)
            [python, "-c", _ASK], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWERS_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        # It will say so itself when it is started.
        return True
    return asked.returncode == 0
