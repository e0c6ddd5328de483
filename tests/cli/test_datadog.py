"""`batchobs datadog agent-config`: YAML that an Agent reads, with the folders of this host."""

from __future__ import annotations

import fnmatch

import pytest
import yaml


@pytest.fixture
def printed(batchobs):
    """Return a function that prints the configuration; returns its two documents."""

    def call(**variables):
        done = batchobs("datadog", "agent-config", **variables)
        assert (done.returncode, done.stderr) == (0, "")
        logs, agent = yaml.safe_load_all(done.stdout)
        return logs["logs"], agent

    return call


def test_without_an_airflow_the_runs_are_tailed(printed, tmp_path):
    logs, agent = printed()
    assert logs == [
        {
            "type": "file",
            "path": str(tmp_path / "state" / "logs" / "batch_models.jsonl"),
            "service": "batch_observability",
            "source": "batch_observability",
            "auto_multi_line_detection": False,
        }
    ]
    assert agent == {
        "logs_enabled": True,
        "logs_config": {"file_wildcard_selection_mode": "by_modification_time"},
        "otlp_config": {
            "receiver": {"protocols": {"grpc": {"endpoint": "127.0.0.1:4317"}, "http": {"endpoint": "127.0.0.1:4318"}}},
            "logs": {"enabled": False},
        },
    }


def test_task_logs_are_where_airflow_writes_them(printed, tmp_path):
    (tmp_path / "airflow.cfg").write_text("[logging]\nbase_log_folder = {AIRFLOW_HOME}/our logs\n")
    logs, _ = printed(AIRFLOW_HOME=str(tmp_path), BATCHOBS_AIRFLOW_SERVICE="flow")
    _, plain, mapped = logs
    folder = f"{tmp_path}/our logs/dag_id=d/run_id=manual__2026-09-21T06:30:00+00:00/task_id=g.t"
    assert fnmatch.fnmatch(f"{folder}/attempt=1.log", plain["path"])
    assert fnmatch.fnmatch(f"{folder}/attempt=1.log", plain["path"].replace("attempt=*", "attempt=[0-9]"))
    assert mapped["path"].endswith("task_id=*/map_index=*/attempt=*.log")
    assert {plain["service"], mapped["service"]} == {"flow"}


def test_airflows_own_file_names_are_respected(printed, tmp_path):
    template = "{{ ti.dag_id }}/{{ ti.task_id }}/{%% if ti.map_index >= 0 %%}{{ ti.map_index }}/{%% endif %%}x.log"
    logs, _ = printed(
        AIRFLOW__LOGGING__BASE_LOG_FOLDER="/var/log/airflow",
        AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE=template,
        AIRFLOW_HOME=str(tmp_path),
    )
    assert [one["path"] for one in logs[1:]] == ["/var/log/airflow/*/*/x.log", "/var/log/airflow/*/*/*/x.log"]


def test_the_environment_is_on_all_of_it(printed):
    logs, agent = printed(DD_ENV='staging: "a"')
    assert [one["tags"] for one in logs] == [['env:staging: "a"']]
    assert agent["env"] == 'staging: "a"'


def test_lines_that_are_shipped_are_not_tailed_as_well(printed, tmp_path):
    logs, agent = printed(BATCHOBS_SHIP_LOGS="true", AIRFLOW_HOME=str(tmp_path))
    assert logs == []
    assert agent["otlp_config"]["logs"] == {"enabled": True}


@pytest.mark.parametrize(("part", "key"), [("logs", "logs"), ("agent", "logs_enabled")])
def test_one_part_can_be_written_to_its_file(batchobs, part, key):
    done = batchobs("datadog", "agent-config", "--part", part)
    (document,) = yaml.safe_load_all(done.stdout)
    assert key in document


def test_a_name_of_a_folder_may_hold_anything(printed, tmp_path):
    odd = tmp_path / 'a: "b" #c \u00e4'
    logs, _ = printed(BATCHOBS_STATE_DIR=str(odd))
    assert logs[0]["path"] == str(odd / "logs" / "batch_models.jsonl")
