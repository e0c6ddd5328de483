"""`batchobs spool`: what waits on this host, since when and why; and sending it."""

from __future__ import annotations

import json
import logging
import time

import pytest

from batch_observability import cli
from batch_observability.export.signals import METRICS, TRACES
from batch_observability.export.spool import Spool
from batch_observability.export.target import taken_by
from batch_observability.ledger.records import encode
from tests.export.batches import run_batch
from tests.ledger.runs import finished, run

NOBODY = "http://127.0.0.1:9"
HOUR_NS = 3600 * 10**9
MUTED = ("ddtrace.internal.writer", "datadog.dogstatsd", "opentelemetry.exporter")


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "state" / "spool", 256, 168)


@pytest.fixture
def batchobs_here(monkeypatch, capsys, tmp_path):
    """Return a function that runs the command in this process; returns exit code, output and errors."""
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    before = {name: logging.getLogger(name).propagate for name in MUTED}
    ours = list(logging.getLogger("batch_observability").handlers)

    def call(*arguments, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code = cli.main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    yield call
    for name, propagate in before.items():
        logging.getLogger(name).propagate = propagate
    logging.getLogger("batch_observability").handlers[:] = ours


def keep(spool, *targets, change=None, takes=None, hours=0, batch=None):
    wanted = {target: takes or taken_by(target) for target in targets}
    then_ns, paths = time.time_ns() - int(hours * HOUR_NS), []
    for entry in spool.put(batch or run_batch(), wanted, encode(change) if change else None):
        entry.release()
        name = f"{then_ns:020d}{entry.path.name[20:]}"
        paths.append(entry.path.rename(entry.path.with_name(name)))
    return paths


# --- status ------------------------------------------------------------------------------------------------------


def test_where_nothing_waits_that_is_said(batchobs_here, spool):
    assert batchobs_here("spool", "status") == (0, f"spool {spool.folder}\nnothing waits\n", "")
    code, out, _ = batchobs_here("spool", "status", "--json")
    assert (code, json.loads(out)) == (0, {"folder": str(spool.folder), "waiting": []})


def test_status_says_what_waits_since_when_and_why(batchobs_here, spool):
    keep(spool, "datadog", takes=frozenset({TRACES, METRICS}), hours=2.5)
    keep(spool, "spool", takes=frozenset({TRACES}))
    keep(spool, change=finished(), hours=36)
    spool.note("datadog", "the Agent is away")
    path = keep(spool, "otlp", takes=frozenset({TRACES}))[0]
    path.rename(f"{path}.broken")
    code, out, err = batchobs_here("spool", "status")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"spool {spool.folder}",
        "  datadog  1 metrics, 1 traces; 0.0 MB, the oldest for 2.5 h",
        "           because the Agent is away",
        "  ledger   1 change; 0.0 MB, the oldest for 1.5 d",
        "           being sent, or whoever sent it was ended: batchobs spool replay",
        "  otlp     nothing; 0.0 MB, the oldest for 0 s",
        "           1 files that cannot be used (*.broken)",
        "  spool    1 traces; 0.0 MB, the oldest for 0 s",
        "           because no backend is configured; once one is, it goes there",
    ]


def test_status_as_json_has_the_same(batchobs_here, spool):
    paths = keep(spool, "datadog", takes=frozenset({TRACES, METRICS}))
    spool.note("datadog", "the Agent is away")
    code, out, _ = batchobs_here("spool", "status", "--json")
    assert code == 0
    assert json.loads(out)["waiting"] == [
        {
            "target": "datadog",
            "files": {METRICS: 1, TRACES: 1},
            "size": sum(path.stat().st_size for path in paths),
            "since_ns": min(int(path.name[:20]) for path in paths),
            "broken": 0,
            "reason": "the Agent is away",
        }
    ]


@pytest.mark.parametrize("action", ["status", "replay"])
def test_a_spool_that_cannot_be_read_is_one_line_and_exit_code_1(batchobs_here, spool, action):
    spool.folder.parent.mkdir(parents=True)
    spool.folder.write_text("a file in place of the folder")
    code, out, err = batchobs_here("spool", action, BATCHOBS_EXPORT="spool")
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("batchobs: the spool cannot be read, ")


# --- replay ------------------------------------------------------------------------------------------------------


def test_where_nothing_waited_that_is_said(batchobs_here):
    assert batchobs_here("spool", "replay", BATCHOBS_EXPORT="otlp") == (0, "nothing waited\n", "")
    code, out, _ = batchobs_here("spool", "replay", "--json")
    assert code == 0
    assert json.loads(out) == {
        "sent": {},
        "refused": {},
        "dropped": {},
        "unreadable": [],
        "untold": 0,
        "complete": True,
        "waiting": [],
    }


def test_what_waits_is_sent_and_that_is_said(batchobs, agent, spool):
    ours, theirs = run("ours"), run("theirs")
    batch = run_batch()
    keep(spool, "otlp", change=finished(of=ours), batch=batch)
    keep(spool, "spool")
    keep(spool, change=finished(of=theirs, token="theirs"))
    keep(spool, "otlp", change=finished(of=theirs, token="another's"))
    broken = keep(spool, "otlp", takes=frozenset({TRACES}))[0]
    broken.write_text("{")
    done = batchobs("spool", "replay", OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "sent 3 changes of the ledger",
        "sent 7 files to otlp",
        "left out 1 runs that were told already",
        "dropped 1: unreadable",
        f"skipped: {broken} holds no JSON line",
    ]
    assert done.returncode == 0
    assert f"{batch.spans[0].trace_id:032x}" in {span["trace_id"] for span in agent.otlp_spans()}
    assert "1 files that cannot be used" in batchobs("spool", "status").stdout


def test_what_is_left_is_exit_code_1_with_the_reason_and_nothing_else_is_said(batchobs, spool):
    keep(spool, "otlp", takes=frozenset({TRACES}))
    done = batchobs("spool", "replay", OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY, OTEL_EXPORTER_OTLP_TIMEOUT="0.5")
    assert done.returncode == 1
    assert done.stderr == ""
    still, files, reason = done.stdout.splitlines()
    assert still == "still waiting:"
    assert files.startswith("  otlp     1 traces; 0.0 MB, the oldest for ")
    assert reason.startswith("           because the OTLP endpoint did not take the traces: ")


def test_what_is_left_as_json(batchobs_here, spool):
    keep(spool, "datadog", takes=frozenset({METRICS}))
    code, out, err = batchobs_here(
        "spool", "replay", "--json", BATCHOBS_EXPORT="datadog", DD_DOGSTATSD_URL="unix:///nobody.socket"
    )
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert found["refused"] == {"datadog": "DogStatsD at unix:///nobody.socket did not take the metrics"}
    assert found["waiting"][0]["files"] == {METRICS: 1}
    assert found["waiting"][0]["reason"] == found["refused"]["datadog"]


def test_what_waits_for_a_target_that_is_not_chosen_is_left_and_exit_code_1(batchobs_here, spool):
    keep(spool, "datadog", takes=frozenset({TRACES}))
    code, out, _ = batchobs_here("spool", "replay", BATCHOBS_EXPORT="spool")
    assert code == 1
    assert out.startswith("still waiting:\n  datadog  1 traces")


def test_what_waits_for_a_backend_to_be_configured_is_no_failure(batchobs_here, spool):
    keep(spool, "spool", takes=frozenset({TRACES}))
    code, out, _ = batchobs_here("spool", "replay", BATCHOBS_EXPORT="spool")
    assert code == 0
    assert "because no backend is configured" in out


def test_a_ledger_that_cannot_be_used_is_the_reason_why_its_changes_are_left(batchobs_here, spool):
    keep(spool, change=finished())
    (spool.folder.parent / "ledger.db").write_bytes(b"no database at all\n" * 1000)
    code, out, err = batchobs_here("spool", "replay", BATCHOBS_EXPORT="spool")
    assert (code, err) == (1, "")
    assert "  ledger   1 change" in out
    assert "file is not a database" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("spool",), "required: COMMAND"),
        (("spool", "send"), "invalid choice: 'send'"),
        (("spool", "replay", "--fast"), "unrecognized arguments: --fast"),
        (("doctor", "--timeout", "0"), "argument --timeout: '0': write a number of seconds above 0 and up to 3600"),
        (("doctor", "--timeout", "3601"), "argument --timeout: '3601': write a number of seconds above 0"),
        (("doctor", "--timeout", "soon"), "argument --timeout: 'soon': write a number of seconds above 0"),
        (("doctor", "--timeout", "nan"), "argument --timeout: 'nan': write a number of seconds above 0"),
    ],
)
def test_a_mistake_in_what_is_asked_is_exit_code_2(capsys, arguments, said):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[-1]


def test_a_setting_that_cannot_be_used_is_exit_code_2(batchobs_here):
    code, out, err = batchobs_here("spool", "status", BATCHOBS_SPOOL_MAX_MB="lots")
    assert (code, out) == (2, "")
    assert err == "batchobs: setting BATCHOBS_SPOOL_MAX_MB is 'lots': write a whole number, 1 or more\n"
