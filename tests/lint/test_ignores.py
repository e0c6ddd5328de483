"""Comments silence a rule on their line, and those that silence nothing are told."""

from __future__ import annotations

import textwrap

import pytest

from batch_observability.lint.gate import finish, look
from batch_observability.lint.ignores import ignores_of


@pytest.fixture
def lint(tmp_path):
    def of(text, name="batch_models.yaml", looked=()):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        findings, silenced = finish(look([path]), looked=looked)
        return [(one.rule, one.line) for one in findings], silenced

    return of


def test_a_comment_silences_a_rule_on_its_line(lint):
    text = """\
    models:
      - name: churn  # batchobs: ignore=missing-owner
        tier: 3
      - name: fraud
        tier: 3
    """
    assert lint(text) == ([("missing-owner", 4)], 1)


def test_a_comment_that_stands_alone_is_about_the_line_below(lint):
    text = """\
    models:
      # It is going to be deleted. batchobs: see issue 3
      # batchobs: ignore=missing-owner, missing-tier
      - name: churn
    """
    assert lint(text) == ([], 2)


def test_another_rule_is_not_silenced_and_the_comment_is_told(lint):
    text = """\
    models:
      - name: churn  # batchobs: ignore=missing-runbook
        tier: 3
      - {name: fraud, owner: x, tier: 3}  # why not? # batchobs: ignore=no-such-rule
    """
    assert lint(text) == ([("missing-owner", 2), ("unused-ignore", 2), ("unused-ignore", 4)], 0)


def test_a_comment_about_what_was_not_looked_at_is_none_too_many(lint):
    text = "models:\n- {name: churn, owner: x, tier: 3}  # batchobs: ignore=tight-objective\n"
    assert lint(text) == ([], 0)
    assert lint(text, looked=["tight-objective"]) == ([("unused-ignore", 2)], 0)


def test_in_python_too_but_not_in_a_text(lint):
    text = '''\
    from batch_observability import BatchModel, observe

    BatchModel("churn", tier=3)  # batchobs: ignore=missing-owner
    # batchobs: ignore=missing-owner
    BatchModel("fraud", tier=3)
    """
    # batchobs: ignore=missing-owner
    """
    BatchModel("stock", tier=3)
    '''
    assert lint(text, "dag.py") == ([("missing-owner", 9)], 2)


def test_of_a_file_that_is_no_python_the_comments_that_can_be_read_count(lint):
    assert lint("x = (  # batchobs: ignore=dag-file\n", "dag.py") == ([], 1)


def test_a_file_that_cannot_be_read_has_none(tmp_path):
    assert ignores_of(str(tmp_path / "gone.yaml")) == []
