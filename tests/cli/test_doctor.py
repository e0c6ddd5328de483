"""`batchobs doctor`: what applies and why, and whether it arrives."""

from __future__ import annotations

import json
import secrets

import pytest

from batch_observability import cli
from batch_observability.cli import doctor
from tests.export.otlp_intake import serving
from tests.live import wait_until

NOBODY = "http://127.0.0.1:9"


def test_all_that_an_agent_takes_is_good(batchobs, agent, dogstatsd, tmp_path):
    done = batchobs("doctor", DD_TRACE_AGENT_URL=agent.apm_url, DD_DOGSTATSD_URL=dogstatsd.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert f"datadog: DD_TRACE_AGENT_URL is {agent.apm_url}" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if " datadog  " in line] == ["✓", "✓", "✓"]
    (span,) = agent.spans("batch_model.check")
    assert f"trace {span['meta']['_dd.p.tid']}{span['trace_id']:016x}:" in done.stdout
    wait_until(lambda: dogstatsd.metrics("batch_model.telemetry.dropped"), "the metric is there", 5)
    (line,) = (tmp_path / "state" / "logs" / "batch_models.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["event"] == "batchobs doctor was here"


def test_all_that_an_otlp_endpoint_takes_is_good(batchobs, agent):
    done = batchobs("doctor", "--json", OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["targets"] == ["otlp"]
    assert [(one["signal"], one["problem"]) for one in found["findings"]] == [
        ("traces", ""),
        ("metrics", ""),
        ("logs", ""),
        ("rows", ""),
    ]
    assert [span["trace_id"] for span in agent.otlp_spans("batch_model.check")] == [found["trace_id"]]


def test_each_signal_that_is_not_taken_is_told_with_what_to_do(batchobs):
    done = batchobs(
        "doctor",
        "--timeout",
        "30",
        DD_TRACE_AGENT_URL=NOBODY,
        DD_DOGSTATSD_URL="udp://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    assert done.returncode == 1
    assert done.stderr == ""
    assert "✗ datadog  traces" in done.stdout
    assert "-> start the Agent, or set DD_TRACE_AGENT_URL or DD_AGENT_HOST to where it is" in done.stdout
    assert "-> switch DogStatsD on in the Agent, or set DD_DOGSTATSD_URL to where it is" in done.stdout
    assert "-> start the collector, or set OTEL_EXPORTER_OTLP_ENDPOINT to where it is" in done.stdout


def test_a_backend_that_never_answers_is_given_up(batchobs):
    done = batchobs("doctor", "--timeout", "0.001", DD_TRACE_AGENT_URL=NOBODY)
    assert done.returncode == 1
    assert "no answer within 0.001 s" in done.stdout


def test_an_intake_of_logs_that_is_away_is_told(batchobs):
    variables = {"BATCHOBS_EXPORT": "datadog-logs", "DD_LOGS_CONFIG_LOGS_DD_URL": NOBODY}
    done = batchobs("doctor", **variables)
    assert done.returncode == 1
    assert "✗ datadog-logs logs" in done.stdout
    assert "DD_API_KEY is not set: without it Datadog takes nothing" in done.stdout
    done = batchobs("doctor", **variables, DD_API_KEY=secrets.token_hex(16))
    assert f"Datadog's log intake at {NOBODY}/api/v2/logs did not answer" in done.stdout


def test_without_agent_and_collector_datadogs_intake_gets_one_of_each(batchobs):
    with serving() as intake:
        variables = {"BATCHOBS_AGENTLESS": "true", "BATCHOBS_AGENTLESS_URL": intake.url, **intake.environ}
        done = batchobs("doctor", **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"agentless: BATCHOBS_AGENTLESS and DD_API_KEY are set, and the intake is {intake.url}" in done.stdout
        assert [line.split()[:3:2] for line in done.stdout.splitlines() if "✓ agentless" in line] == [
            ["✓", "traces"],
            ["✓", "metrics"],
            ["✓", "logs"],
        ]
        assert f"trace {intake.spans[0]['trace_id']}:" in done.stdout
        intake.statuses = {signal: [403] for signal in ("traces", "metrics", "logs")}
        done = batchobs("doctor", **variables)
        assert done.returncode == 1
        assert done.stdout.count("check DD_API_KEY, and DD_SITE, which it belongs to") == 3
        assert done.stdout.count("-> set DD_API_KEY and DD_SITE to those of your organisation") == 3
        assert intake.key not in done.stdout + done.stderr


def test_a_key_alone_does_not_switch_agentless_on(batchobs):
    done = batchobs("doctor", DD_API_KEY=secrets.token_hex(16))
    assert done.returncode == 0
    assert "spool: no backend is configured; for DD_API_KEY set BATCHOBS_AGENTLESS=true" in done.stdout


def test_without_a_backend_the_spool_takes_all_and_keeps_nothing_of_the_check(batchobs, tmp_path):
    done = batchobs("doctor", BATCHOBS_EXPORT="spool")
    assert done.returncode == 0
    assert "BATCHOBS_EXPORT is spool" in done.stdout
    assert list((tmp_path / "state" / "spool").glob("*/*.jsonl")) == []


def test_a_state_folder_that_cannot_be_written_is_told(batchobs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = batchobs("doctor", BATCHOBS_EXPORT="spool", BATCHOBS_STATE_DIR=str(tmp_path / "file"))
    assert done.returncode == 1
    assert "-> make it writable, or set BATCHOBS_STATE_DIR to a folder that is" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (("doctor",), {"BATCHOBS_EXPORT": "dogs"}, "setting BATCHOBS_EXPORT is 'dogs': 'dogs' is no target"),
        (("doctor",), {"BATCHOBS_WAIT_AT_END": "maybe"}, "setting BATCHOBS_WAIT_AT_END is 'maybe': write auto"),
        (("doctor", "--timeout", "-1"), {}, "argument --timeout: '-1': write a number of seconds above 0"),
        (("docter",), {}, "invalid choice: 'docter'"),
        ((), {}, "required: COMMAND"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(batchobs, arguments, variables, said):
    done = batchobs(*arguments, **variables)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr.splitlines()[-1]


def test_a_misspelt_setting_is_pointed_out(batchobs):
    done = batchobs("doctor", BATCHOBS_EXPORT="spool", BATCHOBS_EXPROT="datadog")
    assert "BATCHOBS_EXPROT is no setting of ours: is it misspelt?" in done.stdout


def test_settings_of_airflow_cfg_are_read_without_importing_airflow(batchobs, tmp_path):
    (tmp_path / "airflow.cfg").write_text("[batch_observability]\nexport = spool\n")
    done = batchobs("doctor", "--json", AIRFLOW_HOME=str(tmp_path))
    assert json.loads(done.stdout)["targets"] == ["spool"]


def test_missing_packages_come_with_the_command_that_installs_them(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("BATCHOBS_EXPORT", "otlp")
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(doctor, "installed", lambda _name: False)
    assert cli.main(["doctor"]) == 1
    assert "-> pip install 'airflow-batch-observability[otlp]'" in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [True, False])
def test_in_process_it_prints_the_same(monkeypatch, capsys, tmp_path, as_json):
    monkeypatch.setenv("BATCHOBS_EXPORT", "spool")
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path))
    assert cli.main(["doctor", *(["--json"] if as_json else [])]) == 0
    out = capsys.readouterr().out
    assert (json.loads(out)["targets"] == ["spool"]) if as_json else ("Signals go to spool" in out)


def test_in_process_a_backend_that_is_away_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("BATCHOBS_EXPORT", "otlp")
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOBODY)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    assert cli.main(["doctor", "--timeout", "20"]) == 1
    assert "the OTLP endpoint did not take the traces" in capsys.readouterr().out


def test_a_ledger_that_cannot_be_reached_is_told_without_its_password(batchobs):
    secret = "x" * 20
    address = f"postgresql://me:{secret}@127.0.0.1:1/runs"
    done = batchobs("doctor", BATCHOBS_EXPORT="spool", BATCHOBS_LEDGER_URL=address)
    assert done.returncode == 1
    assert "✗ ledger" in done.stdout
    assert "set BATCHOBS_LEDGER_URL to where it is" in done.stdout
    assert secret not in done.stdout + done.stderr


def test_it_leaves_the_making_of_the_ledger_to_the_first_run(batchobs, tmp_path):
    assert batchobs("doctor", BATCHOBS_EXPORT="spool").returncode == 0
    assert not (tmp_path / "state" / "ledger.db").exists()
