"""
Runs all tests but those that have a target of their own: `python -m tests.run`, which is `make test`.

First those that run in this process, on every processor, and the package's branch coverage must not fall below a
floor; then those that start a real Airflow, one after the other, for they measure times. Arguments go to pytest,
`python -m tests.run tests/unit -x`; coverage is then left out, for a part of the tests says nothing about it.

`python -m tests.run thorough`, which is `make test-thorough`, runs what takes long to prove: the folder of that name,
and what is marked so elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def main(arguments: list[str]) -> int:
    """Run pytest; return its exit code."""
    os.chdir(TESTS.parent)
    near, live = folders()
    if arguments == [THOROUGH]:
        return run(str(TESTS / THOROUGH), "--numprocesses=auto") or run(*near, "-m", THOROUGH, "--numprocesses=auto")
    if arguments:
        named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
        return run(*arguments, *([] if named else [*near, *live]))
    coverage = ["--cov=batch_observability", "--cov-branch", f"--cov-fail-under={COVERAGE_FLOOR}"]
    quick = ["-m", f"not {THOROUGH}", f"--numprocesses={WORKERS}", "--durations=5"]
    failed = run(*near, *quick, *coverage, "--cov-report=term:skip-covered")
    return failed or run(*live, "--durations=5")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
