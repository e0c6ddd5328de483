"""The page says what the code does."""

from __future__ import annotations

from pathlib import Path

from batch_observability.lint.rules import CHEAP, RULES
from batch_observability.lint.score import COSTS
from batch_observability.lint.series import Assumed

PAGE = (Path(__file__).parents[2] / "docs" / "lint.md").read_text(encoding="utf-8")
FLAT = " ".join(PAGE.split())


def test_the_page_has_the_row_of_each_rule_and_no_other():
    rows = [f"| `{rule.id}` | {rule.severity} | {rule.description} | {rule.remedy} |" for rule in RULES.values()]
    table = PAGE.partition("| rule | |")[2].partition("\n\n")[0].splitlines()
    assert table[2:] == rows


def test_the_page_says_which_rules_airflow_looks_at():
    said = FLAT.partition("parsed to be kept: ")[2].partition("`BATCHOBS_LINT`")[0]
    assert said.split("`")[1::2] == [rule.id for rule in CHEAP]


def test_the_page_says_what_is_assumed_and_what_a_finding_costs():
    assumed = Assumed()
    assert f"| {assumed.stages}, {assumed.measurements} |" in PAGE
    assert f"| `--failing` | {assumed.failing:.0%} |" in PAGE
    assert f"| `--breaking` | {assumed.breaking:.0%} |" in PAGE
    error, warning, note = COSTS.values()
    assert f"loses {error} for each error and {warning} for each warning" in FLAT
    assert note == 0
