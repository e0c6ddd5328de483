"""Where a job has next to nothing: as systemd and cron start it, and users that have no home."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import batch_observability
from tests.cron.jobs import COMMAND
from tests.cron.side_by_side import BATCHOBS
from tests.live import wait_until

MINIMAL = ("env", "-i", "PATH=/usr/bin:/bin")
STARTS = "import sys; from batch_observability.cli import main; sys.exit(main())"


def test_a_job_runs_in_a_minimal_environment():
    command = [*MINIMAL, f"BATCHOBS_STATE_DIR={os.environ['BATCHOBS_STATE_DIR']}"]
    for _ in range(2):
        done = subprocess.run([*command, *BATCHOBS, "sh", "-c", "echo hello; exit 3"], capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"hello\n", b"")


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "xx_YY"])
def test_bytes_pass_in_any_locale(locale):
    command = [*MINIMAL, f"BATCHOBS_STATE_DIR={os.environ['BATCHOBS_STATE_DIR']}", f"LC_ALL={locale}", *COMMAND]
    said = os.fsencode("h\xe4llo ") + b"\xff\xfe"
    for _ in range(2):
        done = subprocess.run([*command, "--", "printf", "%s", said], capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, b"")


@dataclass(frozen=True)
class Nobody:
    """A user that nobody knows, and how `batchobs` is started for it."""

    uid: int
    batchobs: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it has its state, for it has no home."""
        return Path(f"/tmp/batchobs-{self.uid}")

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.batchobs, "run", "--", *words], capture_output=True, check=False)

    def processes(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["uids"]) if one.info["uids"].real == self.uid]


@pytest.fixture
def nobody():
    """Become a user of its own for each test; what it runs is a copy, for this checkout may be its owner's alone."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    uid = random.randrange(50_000, 60_000)
    becomes = ("setpriv", f"--reuid={uid}", "--clear-groups", *MINIMAL)
    new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3"):
        if not subprocess.run([*becomes, python, "-c", new_enough], capture_output=True, check=False).returncode:
            break
    else:
        pytest.skip("no Python 3.11 that every user can run")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        package = Path(batch_observability.__file__).parent
        shutil.copytree(package, Path(folder, package.name), ignore=shutil.ignore_patterns("__pycache__"))
        for path in Path(folder).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        starts = (*becomes, f"PYTHONPATH={folder}", "BATCHOBS_EXPORT=spool", python, "-c", STARTS)
        user = Nobody(uid, starts)
        yield user
        wait_until(lambda: not user.processes(), "its observers are done", 60, user.processes)
    shutil.rmtree(user.folder, ignore_errors=True)


def test_a_job_runs_for_a_user_that_nobody_knows(nobody):
    for _ in range(2):
        done = nobody.run("id", "-u")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{nobody.uid}\n".encode(), b"")
    assert nobody.folder.stat().st_mode & 0o777 == 0o700
    assert list((nobody.folder / "state/ready").iterdir())


def test_nothing_is_written_to_a_folder_that_somebody_else_has_made_for_that_user(nobody):
    nobody.folder.mkdir()
    nobody.folder.chmod(0o777)
    done = nobody.run("id", "-u")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{nobody.uid}\n".encode(), b"")
    wait_until(lambda: not nobody.processes(), "its observer is done", 60, nobody.processes)
    assert list(nobody.folder.iterdir()) == []
