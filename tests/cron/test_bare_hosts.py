"""Where a job has next to nothing: as systemd and cron start it, and users that have no home."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cron.side_by_side import BATCHOBS


def test_a_job_runs_in_a_minimal_environment():
    command = ["env", "-i", "PATH=/usr/bin:/bin", f"BATCHOBS_STATE_DIR={os.environ['BATCHOBS_STATE_DIR']}"]
    done = subprocess.run([*command, *BATCHOBS, "sh", "-c", "echo hello; exit 3"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"hello\n", b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_job_runs_for_a_user_that_nobody_knows():
    nobody = 54_321
    command = ["setpriv", f"--reuid={nobody}", "--clear-groups", "env", "-i", "PATH=/usr/bin:/bin"]
    if subprocess.run([*command, BATCHOBS[0], "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this checkout is its owner's alone")
    done = subprocess.run([*command, *BATCHOBS, "id", "-u"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"54321\n", b"")
