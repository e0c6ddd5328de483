"""
Runs all tests but those that have a target of their own: `python -m tests.run`, which is `make test`.

First those that run in this process, then those that start a real Airflow, all in one pytest with one summary; the
package's branch coverage must not fall below a floor. Arguments go to pytest, `python -m tests.run tests/unit -x`;
coverage is then left out, for a part of the tests says nothing about it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# These start servers, and take minutes.
LAST = ("airflow_e2e", "live")
# Runs of their own: each fills two processors for minutes.
APART = ("faults", "neighbours", "promises")
COVERAGE_FLOOR = 90


def folders() -> list[str]:
    """Return the folders that hold tests, the slow ones last, without those that are run apart."""
    found = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")} - set(APART)
    return [str(TESTS / name) for name in sorted(found, key=lambda name: (name in LAST, name))]


def main(arguments: list[str]) -> int:
    """Run pytest; return its exit code."""
    os.chdir(TESTS.parent)
    if not arguments:
        coverage = ["--cov=batch_observability", "--cov-branch", f"--cov-fail-under={COVERAGE_FLOOR}"]
        return pytest.main([*folders(), *coverage, "--cov-report=term:skip-covered", "--durations=5"])
    named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
    return pytest.main([*arguments, *([] if named else folders())])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
