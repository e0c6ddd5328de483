"""`batchobs check` looks once, `batchobs watch` again and again: what is broken is told once and printed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batch_observability import schema
from batch_observability.export.spool import Spool
from batch_observability.ledger.records import encode
from tests.cli.world import (
    DAY,
    HOUR,
    MINUTE,
    NOBODY,
    airflow_database,
    broken,
    declared,
    ended,
    here,
    ledger,
    model,
)
from tests.export.batches import run_batch
from tests.ledger.runs import recovered
from tests.live import wait_until
from tests.sidecar.frames import log_lines, spooled

__all__ = ["here", "ledger"]

COMMAND = Path(sys.executable).with_name("batchobs")
CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
STALE = model(freshness="1d")
NIGHTLY = model("nightly", "risk", start_within="15m")


def breached_of(out):
    return [(one["model"], one["objective"]) for one in json.loads(out)["breached"]]


# --- check: what is broken ---------------------------------------------------------------------------------------


def test_where_all_is_kept_that_is_said(here, ledger):
    ledger.apply_all([ended(model(freshness="2d", min_rows=5), HOUR, kept=["min_rows"]), declared(model("b"))])
    assert here("check") == (0, "all promises are kept (2 models)\n", "")
    assert here("check", "--model", "b")[1] == "all promises are kept (1 model)\n"
    code, out, _ = here("check", "--json")
    assert (code, json.loads(out)) == (0, {"breached": [], "told": [], "complete": True, "models": 2})


def test_what_a_run_has_broken_is_a_line_with_all_that_matters(here, ledger):
    churn = model(min_rows=5)
    due_ns = 1_780_293_600 * 10**9
    ledger.apply(broken(churn, "min_rows", 2 * HOUR, reason="wrote 3 rows", due_ns=due_ns, told_by="sidecar"))
    code, out, err = here("check")
    assert (code, err) == (1, "")
    (line,) = out.splitlines()
    parts = line.split("  ")
    assert parts[:7] == [
        "breached",
        "churn",
        "churn.score",
        "min_rows 5",
        "wrote 3 rows",
        "due 2026-06-01T06:00:00Z",
        "owner growth",
    ]
    assert parts[7].startswith("since 20")
    assert parts[7].endswith("Z (2h ago)")


def test_what_broke_before_the_window_is_left_out(here, ledger):
    churn = model(min_rows=5)
    ledger.apply_all([broken(churn, "min_rows", 3 * DAY), declared(churn)])
    assert here("check")[:2] == (0, "all promises are kept (1 model)\n")
    code, out, _ = here("check", "--since", "4d", "--json")
    assert (code, breached_of(out)) == (1, [("churn", "min_rows")])


def test_what_is_kept_again_is_not_broken_now(here, ledger):
    ledger.apply_all([broken(model(min_rows=5), "min_rows", HOUR), declared(model(min_rows=5))])
    ledger.apply(recovered(objective="min_rows", before_ns=time.time_ns(), time_ns=time.time_ns()))
    assert here("check")[0] == 0


def test_what_is_found_is_told_once_and_stays_broken(here, ledger, tmp_path):
    ledger.apply(declared(STALE))
    code, out, err = here("check", "--json")
    assert (code, err) == (1, "")
    (told,) = json.loads(out)["told"]
    assert (told["event"], told["model"], told["owner"], told["told_by"]) == ("breached", "churn", "growth", "check")
    assert breached_of(out) == [("churn", "freshness")]
    # The model as a whole is not well, however long ago that was told.
    for _ in range(2):
        code, out, _ = here("check", "--json", "--since", "1s")
        assert (code, breached_of(out), json.loads(out)["told"]) == (1, [("churn", "freshness")], [])
    (line,) = log_lines(tmp_path / "state")
    assert (line["level"], line[schema.LOG_OBJECTIVE]) == ("error", "freshness")


def test_what_recovers_is_told_too(here, ledger):
    ledger.apply(declared(STALE))
    assert here("check")[0] == 1
    ledger.apply(ended(STALE, MINUTE))
    code, out, _ = here("check", "--json")
    (told,) = json.loads(out)["told"]
    assert (code, told["event"], told["model"], told["owner"]) == (0, "recovered", "churn", "growth")


def test_to_look_once_sends_no_gauges(here, ledger, tmp_path):
    ledger.apply(ended(model(freshness="2d"), HOUR))
    assert here("check")[0] == 0
    assert not (tmp_path / "state" / "spool").exists() or spooled(tmp_path / "state", "metrics") == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 1),
        (("--model", "churn"), 1),
        (("--model", "fraud"), 0),
        (("--owner", "risk"), 0),
        (("--owner", "growth"), 1),
    ],
)
def test_only_what_is_asked_for_decides_the_exit_code(here, ledger, arguments, code):
    ledger.apply_all([declared(STALE), declared(model("fraud", "risk"))])
    found, out, _ = here("check", "--json", *arguments)
    assert found == code
    assert breached_of(out) == ([("churn", "freshness")] if code else [])
    assert len(json.loads(out)["told"]) == code


# --- check: what Airflow has -------------------------------------------------------------------------------------


@pytest.fixture
def paused(ledger, tmp_path):
    """A DAG that was due three days ago and is paused; returns the URL of its Airflow's database."""
    due_ns = (time.time_ns() - 3 * DAY) // 10**9 * 10**9
    ledger.apply(declared(NIGHTLY))
    return airflow_database(tmp_path / "airflow.db", "nightly", due_ns)


def test_a_run_that_never_came_is_missed_as_long_as_it_does_not_come(here, paused):
    for told in (1, 0):
        code, out, err = here("check", "--json", **{CONN: paused})
        (one,) = json.loads(out)["breached"]
        assert (code, err, len(json.loads(out)["told"])) == (1, "", told)
        assert (one["model"], one["objective"], one["missed"]) == ("nightly", "start_within", True)
    line = here("check")[1]
    assert line.startswith("missed  nightly  nightly.score  start_within 15m  not started, ")
    assert "its DAG is paused" in line


def test_airflow_is_found_by_its_configuration(here, paused, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "airflow.cfg").write_text("[database]\nsql_alchemy_conn = sqlite:///$HOME/airflow.db\n")
    assert here("check", AIRFLOW_HOME=str(home))[0] == 1


def test_airflow_is_found_by_its_home(here, paused, tmp_path):
    assert here("check", AIRFLOW_HOME=str(tmp_path))[0] == 1


def test_without_airflow_nothing_is_expected_of_it(here, paused, tmp_path):
    assert here("check", AIRFLOW_HOME=str(tmp_path / "elsewhere"))[:2] == (0, "all promises are kept (1 model)\n")


@pytest.mark.parametrize(
    "url",
    ["postgresql+psycopg://me:{secret}@127.0.0.1:1/airflow", "sqlite:///{folder}/nowhere.db", "sqlite:///{folder}"],
)
def test_an_airflow_that_cannot_be_asked_is_one_line_and_exit_code_1(here, paused, tmp_path, url):
    secret = "s" * 12
    code, out, err = here("check", **{CONN: url.format(secret=secret, folder=tmp_path)})
    assert (code, out) == (1, "")
    assert err.startswith("batchobs: Airflow's database ")
    assert f"cannot be asked: start it, install its driver, or set {CONN} to where it is" in err
    assert err.count("\n") == 1
    assert secret not in err
    assert not (tmp_path / "nowhere.db").exists()


def test_an_address_that_only_a_command_knows_is_a_mistake(here, paused):
    code, out, err = here("check", **{f"{CONN}_CMD": "cat /run/secret"})
    assert (code, out) == (2, "")
    assert err == f"batchobs: option [database] sql_alchemy_conn_cmd of Airflow is not read by batchobs: set {CONN}\n"


# --- check: what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "--since", "5x"), "batchobs check: argument --since: '5x' is not a duration; write for example 90s"),
        (("check", "--model", "chrun"), "batchobs: --model 'chrun' is unknown to the ledger: write 'churn'"),
        (("check", "--owner", "x"), "batchobs: --owner 'x' is unknown to the ledger: batchobs sla lists what there is"),
        (("watch", "--interval", "-1"), "batchobs watch: argument --interval: '-1': write a number of seconds above 0"),
        (("watch", "--interval", "5m"), "batchobs watch: argument --interval: '5m': write a number of seconds above 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(here, ledger, arguments, said):
    ledger.apply(declared(model()))
    code, out, err = here(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_ledger_that_cannot_be_asked_is_one_line_and_exit_code_1(here):
    code, out, err = here("check", "--json", BATCHOBS_LEDGER_URL=NOBODY)
    assert (code, json.loads(out)) == (1, {"breached": [], "told": [], "complete": False, "models": 0})
    assert err.startswith("batchobs: ledger postgresql://me@127.0.0.1:1/runs cannot be reached")
    assert err.count("\n") == 1


@contextlib.contextmanager
def locked(ledger_path):
    """Let nobody write to a ledger meanwhile."""
    with contextlib.closing(sqlite3.connect(ledger_path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_what_cannot_be_claimed_is_not_called_kept(here, ledger, tmp_path):
    ledger.apply(declared(STALE))
    with locked(tmp_path / "state" / "ledger.db"):
        code, out, err = here("check", BATCHOBS_LEDGER_TIMEOUT="0.2")
    assert (code, out) == (1, "")
    assert "database is locked" in err
    assert err.count("\n") == 1
    code, out, _ = here("check", "--json")
    assert (code, len(json.loads(out)["told"])) == (1, 1)


def test_where_nothing_ever_ran_nothing_is_made(here, tmp_path):
    assert here("check") == (0, "all promises are kept (0 models)\n", "")
    assert not (tmp_path / "state").exists()


# --- watch -------------------------------------------------------------------------------------------------------


@pytest.fixture
def watch(tmp_path):
    """Return a function that starts `batchobs watch`; gives the process, and files of what it prints."""
    started = []
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("DD_", "OTEL_", "BATCHOBS_"))
    }

    def start(*arguments, **variables):
        environ = {**inherited, "AIRFLOW_HOME": str(tmp_path / "none"), "BATCHOBS_EXPORT": "spool", **variables}
        environ["BATCHOBS_STATE_DIR"] = str(tmp_path / "state")
        out, err = tmp_path / "out", tmp_path / "err"
        with out.open("wb") as printed, err.open("wb") as complained:
            command = [COMMAND, "watch", "--interval", "0.2", *arguments]
            started.append(subprocess.Popen(command, env=environ, stdout=printed, stderr=complained))
        return started[-1], out, err

    yield start
    for process in started:
        process.kill()
        process.wait()


def events(out):
    return [(one["event"], one["model"], one["objective"]) for one in map(json.loads, out.read_text().splitlines())]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watch_prints_what_is_told_until_it_is_stopped(ledger, watch, number):
    ledger.apply_all(
        [declared(STALE), declared(model("old", min_rows=5)), broken(model("old", min_rows=5), "min_rows", DAY)]
    )
    process, out, err = watch("--json")
    wait_until(lambda: ("breached", "churn", "freshness") in events(out), "what it has found itself", 30)
    churn = model("fraud", min_rows=5)
    ledger.apply(broken(churn, "min_rows", MINUTE))
    wait_until(lambda: ("breached", "fraud", "min_rows") in events(out), "what somebody else has told", 30)
    ledger.apply(ended(STALE, MINUTE))
    wait_until(lambda: ("recovered", "churn", "freshness") in events(out), "what is kept again", 30)
    process.send_signal(number)
    assert process.wait(30) == 0
    # What was broken before is known.
    assert len(events(out)) == 3
    assert err.read_text() == ""


def test_watch_prints_lines_and_what_is_at_risk(ledger, watch):
    ledger.apply(ended(STALE, 20 * HOUR))
    process, out, _ = watch()
    wait_until(lambda: out.read_text().endswith("\n"), "a line", 30)
    process.terminate()
    assert process.wait(30) == 0
    (line,) = out.read_text().splitlines()
    assert line.startswith("at risk  churn  -  freshness 1d  the newest success is 20h")
    assert "owner growth" in line


def test_watch_sends_what_waits_in_the_spool(ledger, watch, tmp_path):
    spool = Spool(tmp_path / "state" / "spool", 256, 168)
    change = ended(model(min_rows=5), HOUR)
    for entry in spool.put(run_batch(), {}, encode(change)):
        entry.release()
    process, _, _ = watch()
    name = change.run.run_id
    wait_until(lambda: ledger.outcomes([name]) == {name: "success"}, "the change is in the ledger", 30)
    process.terminate()
    assert process.wait(30) == 0


def test_watch_outlives_a_ledger_that_is_away(ledger, watch, tmp_path):
    ledger.apply(declared(STALE))
    path = tmp_path / "state" / "ledger.db"
    with locked(path):
        process, out, err = watch("--json", BATCHOBS_LEDGER_TIMEOUT="0.2")
        wait_until(lambda: "database is locked" in err.read_text(), "a complaint", 30)
        assert process.poll() is None
    wait_until(lambda: events(out) == [("breached", "churn", "freshness")], "what is broken", 30)
    process.terminate()
    assert process.wait(30) == 0
    assert len(set(err.read_text().splitlines())) == err.read_text().count("\n")


def test_watch_waits_for_the_first_run_where_nothing_ever_ran(watch, tmp_path):
    process, _, err = watch()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    process.terminate()
    assert process.wait(30) == 0
    assert err.read_text() == ""
    assert not (tmp_path / "state").exists()
