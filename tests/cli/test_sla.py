"""`batchobs sla`: how models kept their promises, and how they stand, as a table, as text and as JSON."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from batch_observability.sla.promises import Subject, slot_of
from tests.cli.world import DAY, HOUR, MINUTE, NOBODY, SECOND, broken, declared, ended, here, ledger, model
from tests.ledger.runs import recovered, started

__all__ = ["here", "ledger"]

COMMAND = Path(sys.executable).with_name("batchobs")
HEADS = ["MODEL", "OWNER", "ATTAINED", "BUDGET", "BURN", "WORST", "NEXT DUE", "STATE"]


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def line_of(out, name):
    """Return the cells of a model by head."""
    heads, *lines = [cells(line) for line in out.splitlines()]
    return dict(zip(heads, next(line for line in lines if line[0] == name), strict=True))


def as_json(out, name="churn"):
    return next(one for one in json.loads(out)["models"] if one["model"] == name)


# --- What was kept -----------------------------------------------------------------------------------------------


def test_a_model_is_a_line_with_all_that_matters(here, ledger):
    churn = model(finish_within="20m", min_rows=100, success_rate=0.75)
    both = ("finish_within", "min_rows")
    ledger.apply_all(
        [
            *(ended(churn, number * DAY, kept=both, number=number) for number in range(2, 9)),
            ended(churn, 9 * DAY, "failed"),
            ended(churn, HOUR, kept=["min_rows"]),
            broken(churn, "finish_within", HOUR, run_id=f"churn-{HOUR}-0"),
            declared(churn, next_due_ns=time.time_ns() + 3 * HOUR + MINUTE),
        ]
    )
    code, out, err = here("sla")
    assert (code, err) == (0, "")
    assert cells(out.splitlines()[0]) == HEADS
    line = line_of(out, "churn")
    # 8 of 9 runs succeeded where 2.25 might have failed; 7 + 8 + 8 of 8 + 8 + 9 judgements are good.
    assert line | {"STATE": ""} == {
        "MODEL": "churn",
        "OWNER": "growth",
        "ATTAINED": "92.00%",
        "BUDGET": "55.6%",
        "BURN": "0.0x",
        "WORST": "finish_within 87.50%",
        "NEXT DUE": "in 3h",
        "STATE": "",
    }
    assert line["STATE"].startswith("breached: finish_within 20m, 1h ago")


def test_json_has_each_objective(here, ledger):
    churn = model(finish_within="20m", freshness="2d", success_rate=0.9)
    runs = [ended(churn, number * DAY, kept=["finish_within"], number=number) for number in range(1, 5)]
    ledger.apply_all([*runs, ended(churn, 6 * DAY, "failed"), broken(churn, "freshness", 5 * DAY)])
    code, out, _ = here("sla", "--json", "--since", "7d")
    found = as_json(out)
    assert code == 0
    assert found["objectives"] == {
        "finish_within": {"promise": "20m", "kept": 4, "broken": 0, "attainment": 1.0},
        "freshness": {"promise": "2d", "kept": 3, "broken": 1, "attainment": 0.75},
        "success_rate": {"promise": "0.9", "kept": 4, "broken": 1, "attainment": 0.8},
    }
    assert found["worst_objective"] == "freshness"
    assert found["attainment"] == pytest.approx(11 / 13)
    assert (found["succeeded"], found["failed"]) == (4, 1)
    assert [one["objective"] for one in found["breached"]] == ["freshness"]


def test_what_was_before_the_window_does_not_count(here, ledger):
    churn = model(finish_within="20m", success_rate=0.9)
    ledger.apply_all([ended(churn, 3 * DAY, "failed"), ended(churn, HOUR, kept=["finish_within"])])
    short, long = (as_json(here("sla", "--json", "--since", since)[1]) for since in ("1d", "7d"))
    assert (short["failed"], long["failed"]) == (0, 1)
    assert (short["attainment"], long["attainment"]) == (1.0, pytest.approx(2 / 3))


def test_the_burn_rate_is_that_of_the_end_of_the_window(here, ledger):
    churn = model(success_rate=0.9)
    ledger.apply_all([ended(churn, 5 * DAY, number=number) for number in range(16)])
    # The last thirtieth of 30 days is a day.
    ledger.apply_all([ended(churn, HOUR, number=number) for number in range(3)])
    ledger.apply(ended(churn, 2 * HOUR, "killed"))
    found = as_json(here("sla", "--json")[1])
    assert found["error_budget_left"] == pytest.approx(0.5)
    assert found["burn_rate"] == pytest.approx(2.5)
    assert line_of(here("sla")[1], "churn")["BURN"] == "2.5x"


def test_a_budget_that_allows_no_failure_is_used_up_by_the_first(here, ledger):
    strict = model(success_rate=1.0)
    ledger.apply_all([ended(strict, DAY), ended(strict, 2 * DAY, "failed")])
    assert line_of(here("sla")[1], "churn")["BUDGET"] == "none"
    assert as_json(here("sla", "--json")[1])["error_budget_left"] is None


def test_nothing_is_rounded_up_to_all(here, ledger):
    churn = model(min_rows=5)
    ledger.apply_all([ended(churn, HOUR, kept=["min_rows"], number=number) for number in range(300)])
    ledger.apply(broken(churn, "min_rows", HOUR))
    assert line_of(here("sla")[1], "churn")["ATTAINED"] == "99.66%"


def test_where_nothing_is_promised_or_judged_there_is_a_dash(here, ledger):
    ledger.apply(declared(model(owner="", finish_within="20m")))
    line = line_of(here("sla")[1], "churn")
    assert [line[head] for head in HEADS[1:7]] == ["-"] * 6
    found = as_json(here("sla", "--json")[1])
    assert (found["attainment"], found["worst_objective"], found["burn_rate"], found["next_due"]) == (None,) * 4


# --- How it stands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promised", "changes", "said"),
    [
        ({}, lambda of: [declared(of)], "never ran: it is declared"),
        ({}, lambda of: [declared(of, state="paused"), ended(of, HOUR)], "paused: it will not run"),
        ({}, lambda of: [declared(of, state="import error")], "import error: it will not run"),
        ({}, lambda of: [ended(of, 3 * HOUR)], "ok: last run success, started 3h ago"),
        ({}, lambda of: [ended(of, 3 * HOUR), ended(of, HOUR, "lost")], "failed: last run lost, started 1h ago"),
        (
            {},
            lambda of: [started("now", model=of, start_ns=time.time_ns() - 5 * MINUTE)],
            "running: 1 open, the newest run started 5m ago",
        ),
        (
            {"freshness": "1d"},
            lambda of: [ended(of, 20 * HOUR)],
            "at risk: freshness 1d: the newest success is 20h old",
        ),
        (
            {"freshness": "1d"},
            lambda of: [ended(of, 25 * HOUR + MINUTE)],
            "breached: freshness 1d: the newest success is 1d1h old",
        ),
        (
            {"min_rows": 5, "finish_within": "20m"},
            lambda of: [
                ended(of, HOUR),
                broken(of, "min_rows", HOUR),
                broken(of, "finish_within", 2 * DAY),
                declared(of, state="paused"),
            ],
            "breached: min_rows 5, 1h ago and 1 more (paused)",
        ),
    ],
)
def test_the_state_of_a_model_in_words(here, ledger, promised, changes, said):
    ledger.apply_all(changes(model(**promised)))
    code, out, _ = here("sla")
    assert code == 0
    assert line_of(out, "churn")["STATE"] == said
    found = as_json(here("sla", "--json")[1])
    assert f"{found['state']}: {found['words']}" == said


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_run_that_was_told_to_be_at_risk_is_until_it_has_ended(here, ledger, scheduled):
    churn = model(finish_within="20m")
    due_ns = time.time_ns() - HOUR
    place = {"resource": "churn.score", "dag_id": "churn", "dag_run_id": "run_of_today"}
    going = started("now", model=churn, start_ns=time.time_ns() - 17 * MINUTE, due_ns=due_ns, **place)
    slot = slot_of("scheduled" if scheduled else "manual", due_ns, "run_of_today")
    key = Subject(model=churn, source="airflow", env="prod", resource="churn.score", slot=slot).key("finish_within")
    left = time.time_ns() + 3 * MINUTE + 30 * SECOND
    ledger.apply_all([going, broken(churn, "finish_within", MINUTE, state="at_risk", key=key, deadline_ns=left)])
    assert line_of(here("sla")[1], "churn")["STATE"] == "at risk: finish_within 20m, 3m left"


@pytest.mark.parametrize(
    ("due_in_ns", "said", "overdue"),
    [
        (3 * DAY + 2 * HOUR + MINUTE, "in 3d2h", False),
        (-20 * SECOND, "now", False),
        (-(2 * HOUR + MINUTE), "overdue 2h1m", True),
    ],
)
def test_when_a_model_is_due(here, ledger, due_in_ns, said, overdue):
    ledger.apply(declared(model(), next_due_ns=time.time_ns() + due_in_ns + SECOND * (10 if due_in_ns > 0 else 0)))
    assert line_of(here("sla")[1], "churn")["NEXT DUE"] == said
    assert as_json(here("sla", "--json")[1])["overdue"] is overdue


def test_recovery_is_seen(here, ledger):
    churn = model(min_rows=5)
    ledger.apply_all([broken(churn, "min_rows", DAY), ended(churn, HOUR, kept=["min_rows"])])
    assert as_json(here("sla", "--json")[1])["state"] == "breached"
    ledger.apply(recovered(objective="min_rows", before_ns=time.time_ns(), time_ns=time.time_ns()))
    found = as_json(here("sla", "--json")[1])
    assert found["state"] == "ok"
    # It was broken all the same.
    assert found["objectives"]["min_rows"] == {"promise": "5", "kept": 1, "broken": 1, "attainment": 0.5}


# --- What is shown -----------------------------------------------------------------------------------------------


@pytest.fixture
def three(ledger):
    ledger.apply_all([declared(model("churn")), declared(model("fraud", "risk")), declared(model("price", "risk"))])


def test_models_come_by_name_and_can_be_chosen(here, three):
    def names(*arguments):
        return [cells(line)[0] for line in here("sla", *arguments)[1].splitlines()[1:]]

    assert names() == ["churn", "fraud", "price"]
    assert names("--owner", "risk") == ["fraud", "price"]
    assert names("--model", "price") == names("--model", "price", "--owner", "risk") == ["price"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "chrun"), "batchobs: --model 'chrun' is unknown to the ledger: write 'churn'"),
        (("--model", "x"), "batchobs: --model 'x' is unknown to the ledger: batchobs sla lists what there is"),
        (("--owner", "risks"), "batchobs: --owner 'risks' is unknown to the ledger: write 'risk'"),
        (
            ("--owner", "risk", "--model", "churn"),
            "batchobs: --owner 'risk': model 'churn' belongs to growth; leave one out",
        ),
        (("--since", "5x"), "batchobs sla: argument --since: '5x' is not a duration; write for example 90s, 15m"),
        (("--since", "-5m"), "batchobs sla: argument --since: "),
        (("--since", "0s"), "batchobs sla: argument --since: '0s' is not positive; write for example 15m"),
        (("--since", "99999d"), "batchobs sla: argument --since: '99999d' is longer than a ledger reaches; write for"),
        (("--sins", "5d"), "batchobs: unrecognized arguments: --sins 5d"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(here, three, arguments, said):
    code, out, err = here("sla", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_piped_it_is_one_plain_line_for_each_model_however_long(batchobs, ledger):
    name = "a" * 100
    ledger.apply_all([declared(model(name, "o" * 90)), declared(model("b", "x\n\x1b[31my\x07"))])
    done = batchobs("sla", COLUMNS="40", FORCE_COLOR="1", TERM="xterm-256color")
    assert done.returncode == 0, done.stderr
    heads, first, second = done.stdout.splitlines()
    assert first.startswith(f"{name}  {'o' * 90}  ")
    assert second.startswith("b ")
    assert "x [31my" in second
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert len(heads.split("NEXT DUE")[0]) == first.index("never ran") - len("NEXT DUE  ")


def on_a_terminal(columns, state, *arguments):
    """Return what the command shows on a terminal of so many columns."""
    environ = {"BATCHOBS_STATE_DIR": str(state), "HOME": str(state), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    shown = b""
    with subprocess.Popen([COMMAND, *arguments], env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:
            # A terminal whose last writer has gone.
            pass
        assert running.wait(60) == 0, shown
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("columns", [200, 80])
def test_on_a_terminal_it_is_a_table_with_colours_that_fits(ledger, tmp_path, columns):
    churn = model("customer-churn-score", finish_within="20m")
    ledger.apply_all([broken(churn, "finish_within", DAY), declared(churn), declared(model("b"))])
    shown = on_a_terminal(columns, tmp_path / "state", "sla")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "\x1b[1;31mbreached" in shown
    assert "──" in plain
    lines = [line.rstrip() for line in plain.splitlines()]
    assert max(map(len, lines)) <= columns
    (row,) = [line for line in lines if "customer-c" in line]
    assert "breached" in row
    assert ("breached: finish_within 20m, 1d ago" in row) is (columns == 200)


def test_text_of_others_does_not_command_a_terminal(ledger, tmp_path):
    ledger.apply(declared(model("b", "x\n\x1b[5my [red]z")))
    shown = on_a_terminal(200, tmp_path / "state", "sla")
    assert "\x1b[5m" not in shown
    assert "x [5my [red]z" in shown


def test_without_a_ledger_there_is_no_model_and_none_is_made(here, tmp_path):
    code, out, err = here("sla")
    assert (code, err) == (0, "")
    assert out.startswith("no model is known yet")
    assert json.loads(here("sla", "--json")[1])["models"] == []
    assert here("sla", "--model", "churn")[0] == 2
    assert not (tmp_path / "state").exists()


def test_a_ledger_that_cannot_be_asked_is_one_line_and_exit_code_1(here):
    code, out, err = here("sla", BATCHOBS_LEDGER_URL=NOBODY)
    assert (code, out) == (1, "")
    assert err.startswith("batchobs: ledger postgresql://me@127.0.0.1:1/runs cannot be reached")
    assert err.count("\n") == 1


def test_who_stops_reading_hears_no_complaint(ledger, tmp_path):
    ledger.apply_all([declared(model(f"m{number}")) for number in range(2000)])
    environ = {"BATCHOBS_STATE_DIR": str(tmp_path / "state"), "HOME": str(tmp_path)}
    shell = f"'{COMMAND}' sla | head -1"
    done = subprocess.run(
        ["sh", "-c", shell], check=False, env={**environ, "PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.stdout.startswith("MODEL")
    assert done.stderr == ""


def test_a_model_of_another_version_is_listed(here, ledger):
    odd = {**model(), "objectives": {"finish_soon": "yes"}, "terms": {}}
    ledger.apply(ended(odd, HOUR))
    assert line_of(here("sla")[1], "churn")["STATE"].startswith("ok")
