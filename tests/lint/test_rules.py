"""What the rules say beyond what is planted: of code beside a catalog, of patterns, of the past, and of nothing."""

from __future__ import annotations

import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

from batch_observability.ledger.store import Ledger
from batch_observability.lint import history
from batch_observability.lint.gate import finish, look, sort
from batch_observability.lint.rules import RULES
from batch_observability.lint.score import scores
from batch_observability.objective import OBJECTIVES
from tests.ledger.runs import finished, run

SECOND, DAY = 10**9, 86_400 * 10**9


@pytest.fixture
def lint(tmp_path):
    """Write files and look at them; return findings as (rule, severity, line)."""

    def of(**files):
        for name, text in files.items():
            suffix = ".py" if "batch_observability" in text else ".yaml"
            (tmp_path / f"{name}{suffix}").write_text(textwrap.dedent(text), encoding="utf-8")
        paths = sorted(tmp_path.iterdir(), key=lambda path: path.suffix)
        return finish(look(paths))[0]

    return of


def short(findings):
    return [(one.rule, str(one.severity), Path(one.file).suffix, one.line) for one in findings]


CODE = "from batch_observability import SLA, BatchModel\n"


# --- Code beside a catalog ---------------------------------------------------------------------------------------


def test_a_model_in_code_whose_owner_is_in_the_catalog_is_complete(lint):
    catalog = """
    models:
      - name: churn
        owner: {team: team-risk, oncall: "@pagerduty-risk"}
        tier: 1
        runbook: https://wiki.example.com/churn
        sla: {success_rate: 99%}
    """
    assert lint(catalog=catalog, dag=CODE + "BatchModel('churn', sla=SLA(finish_within='20m'))") == []


def test_the_code_goes_before_the_catalog(lint):
    catalog = "models: [{name: churn, owner: team-risk, tier: 1}]"
    assert short(lint(catalog=catalog, dag=CODE + "BatchModel('churn', tier=3)")) == []
    (one,) = lint(catalog=catalog, dag=CODE + "BatchModel('churn', tier=2, runbook='https://x')")
    assert (one.rule, one.owner) == ("missing-objectives", "team-risk")


def test_a_team_of_the_catalog_is_reached_by_its_handle_from_code(lint):
    code = CODE + "BatchModel('churn', owner='{}', tier=1, runbook='x', sla=SLA(finish_within='1h', freshness='1d'))"
    catalog = "owners: {team-risk: {oncall: '@pagerduty-risk'}, team-quiet: {}}"
    assert lint(catalog=catalog, dag=code.format("team-risk")) == []
    assert [one.rule for one in lint(catalog=catalog, dag=code.format("team-quiet"))] == ["missing-oncall"]


def test_a_model_of_the_catalog_that_has_runs_of_its_own_is_looked_at(lint):
    code = CODE + "BatchModel('churn', owner='team-risk', tier=3)"
    assert lint(catalog="models: [{name: churn, description: x}]", dag=code) == []
    found = lint(catalog="models: [{name: churn, schedule: '@daily'}]", dag=code)
    assert short(found) == [("missing-owner", "error", ".yaml", 1), ("missing-tier", "warning", ".yaml", 1)]


def test_one_model_in_two_services_is_told_where_it_is_second(lint):
    code = CODE + "BatchModel('churn', owner='team-risk', tier=3, service='scores')"
    assert lint(catalog="models: [{name: churn, owner: x, tier: 3}]", dag=code) == []
    found = lint(catalog="models: [{name: churn, owner: x, tier: 3, service: score}]", dag=code)
    assert short(found) == [("two-services", "error", ".py", 2)]
    assert "in service 'scores' here, and in service 'score' in" in found[0].message


def test_a_task_that_is_another_model_by_the_catalog_is_a_note(lint):
    code = (
        CODE + "M = BatchModel('churn', owner='x', tier=3)\nwith DAG('nightly'):\n    Score(task_id='score', model=M)\n"
    )
    found = lint(catalog="models: [{name: other, owner: x, tier: 3, match: {dag_id: night*}}]", dag=code)
    assert short(found) == [("code-over-catalog", "note", ".py", 2)]
    assert "task nightly.score is model 'churn' here, and 'other' by its match in" in found[0].message


# --- Patterns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "severity"),
    [
        ("{dag_id: churn_*}", "{dag_id: churn_*}", "error"),
        ("{dag_id: churn_*}", "{dag_id: '*_daily'}", "error"),
        ("{dag_id: churn_*}", "{task_id: score}", "warning"),
        ("{dag_id: churn_*}", "{dag_id: '*_weekly'}", "warning"),
        # Exceptions from a rule.
        ("{dag_id: churn_*}", "{dag_id: churn_daily}", None),
        ("{dag_id: churn_*}", "{dag_id: churn_*, task_id: score}", None),
        ("{dag_id: '*'}", "{dag_id: '*', task_id: score}", None),
        ("{dag_id: churn_*}", "{dag_id: fraud_*}", None),
        ("{dag_id: '*_daily'}", "{dag_id: '*_weekly'}", None),
        ("{dag_id: 'churn_[ab]'}", "{dag_id: 'churn_[cd]'}", None),
        ("{dag_id: 'churn_[ab]'}", "{dag_id: 'churn_[bc]'}", "error"),
    ],
)
def test_patterns_overlap_or_are_exceptions(lint, one, other, severity):
    entries = [f"{{name: {name}, owner: x, tier: 3, match: {match}}}" for name, match in (("one", one), ("two", other))]
    for first, second in (entries, entries[::-1]):
        found = lint(catalog=f"models:\n- {first}\n- {second}\n")
        assert short(found) == ([("two-models-one-task", severity, ".yaml", 3)] if severity else [])


def test_an_overlap_names_a_task_and_who_wins(lint):
    found = lint(
        catalog="""
        models:
          - {name: all, owner: x, tier: 3, match: {dag_id: churn_*}}
          - {name: scores, owner: x, tier: 3, match: {task_id: score}}
        """
    )
    assert found[0].message.endswith("both match task churn_.score: it is 'all', whose pattern says more of it")


# --- What says nothing -------------------------------------------------------------------------------------------


def test_a_mistake_in_a_catalog_is_told_once(lint):
    """A tier or an SLA that is wrong is not missing, too."""
    catalog = """
    models:
      - name: churn
        owner: {team: team-risk, oncall: nobody}
        tier: 1
        runbook: https://wiki.example.com
        sla: {finish_by: 25:00}
      - {name: fraud, owner: "a|b", tier: 0}
    """
    assert {one.rule for one in lint(catalog=catalog)} == {"catalog"}


def test_a_relative_env_file_is_looked_for_beside_the_catalog(lint, tmp_path):
    catalog = "models: [{name: churn, owner: x, tier: 3, schedule: '@daily', env_file: job.env}]"
    assert [one.rule for one in lint(catalog=catalog)] == ["missing-env-file"]
    (tmp_path / "job.env").write_text("A=1", encoding="utf-8")
    assert finish(look([tmp_path / "catalog.yaml"]))[0] == []


@pytest.mark.parametrize(
    ("field", "value", "severity"),
    [
        ("version", "1.2.3.4", None),
        ("version", "2024.1", None),
        ("version", "20240601", "warning"),
        ("version", "1.2+20240601", "warning"),
        ("version", "1717200000", "error"),
        ("version", "2024-06-01T12:30", "error"),
        ("version", "deadbeef", None),
        ("version", "3f9c1ab2", "warning"),
        ("version", "${VERSION}", "error"),
        ("service", "churn-v2", None),
        ("service", "api-10.0.0.1", "warning"),
        ("name", "manual__churn", "error"),
        ("name", "q3-2024", None),
        ("owner", "team {ds}", "error"),
    ],
)
def test_values_of_one_run_are_no_tags(lint, field, value, severity):
    fields = {"name": "churn", "owner": "x", "tier": "3", field: f"'{value}'"}
    found = lint(catalog=f"models: [{{{', '.join(f'{key}: {one}' for key, one in fields.items())}}}]")
    assert [(one.rule, one.severity) for one in found] == ([("unbounded-tag", severity)] if severity else [])


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ("schedule: '@hourly', sla: {freshness: 1h}", False),
        ("schedule: '@hourly', sla: {freshness: 59m}", True),
        # Over the weekend it is older, which may be meant: on weekdays it can be kept.
        ("schedule: '0 6 * * 1-5', sla: {freshness: 26h}", False),
        ("schedule: '0 6 * * 1-5', sla: {freshness: 5h}", True),
        ("schedule: '@reboot', sla: {freshness: 1s}", False),
        ("schedule: '@daily', match: {dag_id: churn}, sla: {freshness: 1h}", False),
        ("sla: {freshness: 1h, min_duration: 5m, finish_within: 6m}", False),
        ("sla: {min_duration: 5m, finish_within: 5m}", True),
    ],
)
def test_what_no_run_can_keep_is_told(lint, fields, found):
    rules = [one.rule for one in lint(catalog=f"models: [{{name: churn, owner: x, tier: 3, {fields}}}]")]
    assert rules == (["impossible-objective"] if found else [])


def test_a_schedule_that_cannot_be_is_told_once(lint):
    found = lint(catalog="models: [{name: churn, owner: x, tier: 3, schedule: '61 * * * *', sla: {freshness: 1m}}]")
    assert [one.rule for one in found] == ["bad-schedule"]


# --- The past ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path):
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", 10)) as opened:
        opened.migrate()
        yield opened


def remember(ledger, count=100, outcome="success", **values):
    """Write runs, one a day: of the n-th of them each value may be a function of n."""
    now, changes = time.time_ns(), []
    for number in range(count):
        of = {key: value(number) if callable(value) else value for key, value in values.items()}
        start = now - (count - number) * DAY // 4
        took, late = of.pop("took", 60), of.pop("late", 0)
        past = run(
            f"{outcome}-{number}", start_ns=start, due_ns=start - late * SECOND, dag_run_id=f"{outcome}-{number}"
        )
        changes.append(finished(of=past, outcome=outcome, token=past.run_id, end_ns=start + took * SECOND, **of))
    ledger.apply_all(changes)


def tight(ledger, tmp_path, **promised):
    path = tmp_path / "batch_models.yaml"
    sla = ", ".join(f"{name}: {value}" for name, value in promised.items())
    path.write_text(f"models:\n- name: churn\n  owner: x\n  tier: 3\n  sla: {{{sla}}}\n", encoding="utf-8")
    (subject,) = look([path]).subjects
    found = list(history.tight_objectives(subject, ledger, time.time_ns()))
    assert {RULES["tight-objective"].finding(one).line for one in found} <= {5}
    return [one.text for one in found]


def test_an_objective_that_the_past_would_have_broken_is_told_with_what_was_seen(ledger, tmp_path):
    remember(ledger, took=lambda n: 600 + 10 * n)
    (said,) = tight(ledger, tmp_path, finish_within="20m")
    assert said == (
        "finish_within of model 'churn' is 20m, and of its last 100 runs 1 in 20 took 25m40s or more: "
        "39 would have broken it"
    )
    assert tight(ledger, tmp_path, finish_within="27m") == []
    assert len(tight(ledger, tmp_path, min_duration="11m")) == 1
    assert tight(ledger, tmp_path, min_duration="10m") == []


def test_each_objective_has_its_own_measure(ledger, tmp_path):
    remember(ledger, late=lambda n: 10 * n, rows_read=1000, rows_written=lambda n: n, rows_rejected=lambda n: n)
    assert "began after 15m40s or more" in tight(ledger, tmp_path, start_within="5m")[0]
    assert "wrote 5 rows or less" in tight(ledger, tmp_path, min_rows=50)[0]
    assert "rejected 9.4% of their rows or more" in tight(ledger, tmp_path, max_rejected_ratio=0.05)[0]
    assert "came after 6h or more" in tight(ledger, tmp_path, freshness="5h")[0]
    assert "were late by" in tight(ledger, tmp_path, finish_by="'00:01 UTC'")[0]
    kept = {
        "start_within": "1h",
        "min_rows": 0,
        "max_rejected_ratio": 0.5,
        "freshness": "1d",
        "finish_by": "'+1d 00:01'",
    }
    assert set(kept) | {"finish_within", "min_duration", "success_rate"} == set(OBJECTIVES)
    assert tight(ledger, tmp_path, **kept) == []


def test_a_success_rate_is_held_against_its_window(ledger, tmp_path):
    remember(ledger, 40)
    remember(ledger, 10, outcome="failed")
    assert tight(ledger, tmp_path, success_rate="80%", finish_within="1h") == []
    assert tight(ledger, tmp_path, success_rate="99%") == [
        "success_rate of model 'churn' is 99.00%, and 40 of its 50 runs within 30d succeeded, 80.00%"
    ]


def test_of_few_runs_nothing_is_said(ledger, tmp_path):
    remember(ledger, history.LEAST_RUNS - 1, took=3600)
    assert tight(ledger, tmp_path, finish_within="1s", success_rate="100%", freshness="1s") == []
    remember(ledger, 1, outcome="failed")
    assert len(tight(ledger, tmp_path, success_rate="100%")) == 1


def test_retries_count_from_the_first_try(ledger, tmp_path):
    now, changes = time.time_ns(), []
    for number in range(30):
        start = now - (number + 1) * DAY
        for try_number, (outcome, offset) in enumerate((("retrying", 0), ("success", 3600)), 1):
            past = run(
                f"{number}-{try_number}",
                start_ns=start + offset * SECOND,
                dag_run_id=f"{number}",
                try_number=try_number,
            )
            changes.append(finished(of=past, outcome=outcome, token=past.run_id, end_ns=past.start_ns + 60 * SECOND))
    ledger.apply_all(changes)
    assert "took 1h1m or more" in tight(ledger, tmp_path, finish_within="20m")[0]


# --- Scores, and what is read ------------------------------------------------------------------------------------


def test_an_owner_has_the_mean_of_its_models(lint, tmp_path):
    lint(
        catalog="""
        models:
          - {name: a, owner: team-risk, tier: 3}
          - {name: b, owner: team-risk, tier: 2}
          - {name: c, owner: team-risk}
          - {name: d, tier: 3}
        """
    )
    read = look([tmp_path / "catalog.yaml"])
    found = [
        (one.owner, one.score, one.models, one.errors, one.warnings) for one in scores(read.subjects, finish(read)[0])
    ]
    assert found == [("(nobody)", 75, 1, 1, 0), ("team-risk", 90, 3, 0, 3), ("", 86, 4, 1, 3)]
    assert scores([], []) == []


def test_a_score_does_not_fall_below_nothing(lint, tmp_path):
    lint(catalog="models: [{name: a-20240601, tier: 1, version: '{{ds}}', service: 'x-1717200000'}]")
    read = look([tmp_path / "catalog.yaml"])
    assert [one.score for one in scores(read.subjects, finish(read)[0])] == [0, 0]


def test_a_folder_of_dag_files_has_its_catalogs_by_their_names(tmp_path):
    for name in (
        "dag.py",
        "sub/more.py",
        "batch_models.yaml",
        "sub/batch_models_x.yml",
        "other.yaml",
        "batch_models.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    for name in (".venv/x.py", "site-packages/x.py", "__pycache__/x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    catalogs, scripts = sort([tmp_path])
    assert [path.name for path in catalogs] == ["batch_models.yaml", "batch_models_x.yml"]
    assert [path.name for path in scripts] == ["dag.py", "more.py"]
    (tmp_path / "only").mkdir()
    assert sort([tmp_path / "only"]) == ([tmp_path / "only"], [])
