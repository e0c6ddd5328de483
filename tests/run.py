"""
Runs all tests but those that have a target of their own: `python -m tests.run`, which is `make test`.

First those that run in this process, on every processor, and the package's branch coverage must not fall below a
floor; then those that start a real Airflow, one after the other, for they measure times. Arguments go to pytest,
`python -m tests.run tests/unit -x`; coverage is then left out, for a part of the tests says nothing about it.

Most tests start processes and say within how many seconds these have done something; on few processors those of another
test may have been in their way. So what fails beside others is run again, alone, and has to pass there.

`python -m tests.run thorough`, which is `make test-thorough`, runs what takes long to prove: the folder of that name,
and what is marked so elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# These start servers, and take minutes.
LIVE = ("airflow_e2e", "live")
# Many tests wait for processes of their own, and leave a processor to others meanwhile.
WORKERS = (os.cpu_count() or 2) * 3 // 2
# Runs of their own: each fills two processors for minutes.
THOROUGH = "thorough"
APART = ("faults", "neighbours", "promises", THOROUGH)
COVERAGE_FLOOR = 90


def folders() -> tuple[list[str], list[str]]:
    """Return the folders of tests that run in this process, and those of tests that start a real Airflow."""
    found = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")} - set(APART)
    return [str(TESTS / name) for name in sorted(found - set(LIVE))], [str(TESTS / name) for name in LIVE]


def run(*arguments: str) -> int:
    """Run pytest in a process of its own; return its exit code."""
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def run_and_try_again(found: list[str], *arguments: str) -> int:
    """As `run`; what fails is run once more, one after the other, with nothing beside it."""
    code = run(*found, *arguments)
    if code != pytest.ExitCode.TESTS_FAILED:
        return code
    print("once more, alone, what has failed:", flush=True)
    return run(*found, "--last-failed", "--last-failed-no-failures=none")


def main(arguments: list[str]) -> int:
    """Run pytest; return its exit code."""
    os.chdir(TESTS.parent)
    near, live = folders()
    if arguments == [THOROUGH]:
        apart = "--numprocesses=auto"
        return run_and_try_again([str(TESTS / THOROUGH)], apart) or run_and_try_again(near, "-m", THOROUGH, apart)
    if arguments:
        named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
        return run(*arguments, *([] if named else [*near, *live]))
    coverage = ["--cov=batch_observability", "--cov-branch", "--cov-report=term:skip-covered"]
    quick = ["-m", f"not {THOROUGH}", f"--numprocesses={WORKERS}", "--durations=5"]
    enough = [sys.executable, "-m", "coverage", "report", "--format=total", f"--fail-under={COVERAGE_FLOOR}"]
    return (
        run_and_try_again(near, *quick, *coverage)
        or subprocess.run(enough, check=False).returncode
        or run_and_try_again(live, "--durations=5")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
