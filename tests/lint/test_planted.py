"""Each mistake is found at its file and line, and nothing is found where there is none."""

from __future__ import annotations

from collections import Counter

import pytest

from batch_observability.lint.findings import Severity
from batch_observability.lint.gate import finish, look
from batch_observability.lint.rules import RULES
from tests.lint import clean, planted

# 44 mistakes each.
SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_planted_mistake_is_found_at_its_file_and_line(seed, tmp_path):
    mistakes = planted.plant(tmp_path, seed)
    findings, _ = finish(look([tmp_path]))
    found = Counter((one.rule, one.file, one.line) for one in findings)
    missed = [one for one in mistakes if (one.rule, one.file, one.line) not in found]
    assert missed == []
    # Nothing is found in a line in which nothing was planted.
    places = {(one.file, one.line) for one in mistakes}
    assert [one for one in findings if (one.file, one.line) not in places] == []


def test_enough_is_planted(tmp_path):
    assert len(planted.plant(tmp_path, 0)) * len(SEEDS) >= 200


def test_each_rule_that_reads_files_is_planted():
    needs_more = {"tight-objective", "custom-metrics", "unused-ignore", "dag-file", "code-over-catalog"}
    assert {*planted.IN_CATALOG, *planted.IN_CODE} == {*RULES} - needs_more


@pytest.mark.parametrize("seed", range(50))
def test_nothing_is_found_in_clean_catalogs(seed, tmp_path):
    paths = clean.write(tmp_path, seed)
    findings, _ = finish(look(paths))
    assert [one for one in findings if one.severity.reaches(Severity.WARNING)] == []
    assert [one for one in findings if one.rule == "unused-ignore"] == []
