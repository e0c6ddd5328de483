"""A command with and without `batchobs run` before it, under the same conditions, and what came of it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

BATCHOBS = (str(Path(sysconfig.get_path("scripts")) / "batchobs"), "run", "--")
DEADLINE_S = 60


@dataclass(frozen=True)
class Case:
    """
    A command, and what it is started with.

    Attributes:
        words: the command.
        stdin: bytes that it reads, None for /dev/null.
        closed: standard streams that are closed.
        before: done in the process that becomes the command.
        into: a shell's redirections and pipes after the command, as `>f 2>&1 | head -c 5`.
        environment: variables beside the usual ones; None takes one away.
        makes: what it writes in its folder counts too.
    """

    words: tuple[str, ...]
    stdin: bytes | None = None
    closed: tuple[int, ...] = ()
    before: Callable[[], object] | None = None
    into: str = ""
    environment: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Came:
    """Exit status, what it wrote, and the files that it made."""

    status: int
    out: bytes
    err: bytes
    files: dict[str, bytes]


def run(case: Case, folder: Path, prefix: tuple[str, ...]) -> Came:
    """Run a case in a folder of its own."""
    folder.mkdir()
    words = (*prefix, *case.words)
    if case.into:
        # `pipefail` tells how the command ended, not what it was piped to.
        words = ("bash", "-c", f'set -o pipefail; "$@" {case.into}', "bash", *words)

    def before() -> None:
        for descriptor in case.closed:
            os.close(descriptor)
        if case.before:
            case.before()

    environment = {**os.environ, **case.environment}
    done = subprocess.run(
        words,
        input=case.stdin,
        stdin=subprocess.DEVNULL if case.stdin is None else None,
        capture_output=True,
        cwd=folder,
        env={name: value for name, value in environment.items() if value is not None},
        preexec_fn=before,
        timeout=DEADLINE_S,
        check=False,
    )
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    return Came(done.returncode, done.stdout, done.stderr, files)


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """Return a command that runs code, with `os`, `sys` and `signal` at hand."""
    return (sys.executable, "-I", "-S", "-c", f"import os, sys, signal, time\n{code}", *arguments)


def shell(code: str) -> tuple[str, ...]:
    """Return a command that runs a script."""
    return ("sh", "-c", code)


def limited(what: int, soft: int) -> Callable[[], object]:
    """Return what sets a limit."""
    return lambda: resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))


def ignoring(*numbers: int) -> Callable[[], object]:
    """Return what makes a process ignore signals."""
    return lambda: [signal.signal(number, signal.SIG_IGN) for number in numbers]


def blocking(*numbers: int) -> Callable[[], object]:
    """Return what makes a process block signals."""
    return lambda: signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
