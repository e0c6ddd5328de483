"""`batchobs crontab` reads crontabs and has their jobs observed; a job that did not run is missed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batch_observability.cron import declaring, known
from batch_observability.cron.crontab import encoded
from batch_observability.sla.promises import unix_ns
from tests.cli.world import DAY, HOUR, MINUTE, here, ledger, model
from tests.cron.crontabs import CRONTABS
from tests.ledger.runs import finished, run

__all__ = ["here", "ledger"]

OWN = str(Path(sys.executable).with_name("batchobs"))
NIGHTLY = "10 3 * * * /opt/score.py --all\n@daily cd /x && ./roll.sh\n@reboot /opt/start\n"


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a crontab, and gives its path."""

    def write(text, name="jobs"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else encoded(text))
        return str(path)

    return write


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


# --- wrap and unwrap ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CRONTABS if "observed" not in name])
def test_a_file_is_the_same_after_wrap_and_unwrap(file, name, monkeypatch, capfdbinary, tmp_path):
    from batch_observability import cli

    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))
    options = ["--system"] if name.startswith("system/") else []
    assert cli.main(["crontab", "wrap", file(CRONTABS[name]), *options]) == 0
    there = capfdbinary.readouterr().out
    assert cli.main(["crontab", "unwrap", file(there), *options]) == 0
    assert capfdbinary.readouterr().out == encoded(CRONTABS[name])


def test_a_pipe_goes_through_both(tmp_path):
    content = encoded(CRONTABS["latin"])
    environ = {"BATCHOBS_STATE_DIR": str(tmp_path), "HOME": str(tmp_path), "LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    for verb in ("wrap", "unwrap"):
        ended = subprocess.run([OWN, "crontab", verb, "-"], input=content, env=environ, capture_output=True, check=True)
        assert ended.stderr == b""
        before, content = content, ended.stdout
    assert b"run --model" in before
    assert content == encoded(CRONTABS["latin"])


def test_jobs_call_the_command_where_it_is_if_cron_does_not_find_it(here, file, tmp_path):
    assert here("crontab", "wrap", file("0 1 * * * /opt/a.sh\n"))[1].startswith(f"0 1 * * * {OWN} run --model a ")
    text = f"PATH={Path(OWN).parent}:/bin\n0 1 * * * /opt/a.sh\n"
    assert "\n0 1 * * * batchobs run --model a " in here("crontab", "wrap", file(text))[1]


def test_what_would_change_is_shown_first(here, file, state):
    code, out, _ = here("crontab", "wrap", "--diff", file(NIGHTLY))
    assert code == 0
    assert "\n-10 3 * * * /opt/score.py --all\n" in out
    assert f"\n+10 3 * * * {OWN} run --model score --schedule '10 3 * * *' -- /opt/score.py --all\n" in out
    # Nothing is installed yet.
    assert known.known(state) == {}
    assert here("crontab", "unwrap", "--diff", file(NIGHTLY)) == (0, "", "")


def test_a_diff_says_where_no_newline_is(here, file):
    out = here("crontab", "wrap", "--diff", file("0 1 * * * /opt/a.sh"))[1]
    assert out.splitlines()[4] == "\\ No newline at end of file"


def test_what_cannot_be_wrapped_is_told_and_stays(here, file):
    path = file("61 * * * * x\nSHELL=/bin/csh\n0 1 * * * y\n")
    code, out, err = here("crontab", "wrap", path)
    assert (code, out) == (0, "61 * * * * x\nSHELL=/bin/csh\n0 1 * * * y\n")
    first, second = err.splitlines()
    assert first.startswith(f"batchobs: {path}:1: schedule '61 * * * *' is wrong: minute '61' is not 0 to 59")
    assert second == f"batchobs: {path}:3: SHELL is '/bin/csh': only jobs of a POSIX shell are wrapped"


def test_a_crontab_of_the_host_has_users(here, file):
    out = here("crontab", "wrap", file(CRONTABS["system/sysstat"], "cron.d/sysstat"))[1]
    assert f"5-55/10 * * * * root {OWN} run --model debian-sa1 " in out


# --- list and check ----------------------------------------------------------------------------------------------


def test_a_job_is_listed_with_all_that_matters(here, file, tmp_path):
    catalog = file("models:\n  - name: score\n    owner: growth\n", "catalog.yaml")
    text = "CRON_TZ=Europe/London\n" + NIGHTLY
    code, out, err = here("crontab", "list", "--catalog", catalog, file(text), TZ="UTC")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["LINE", "MODEL", "DUE", "NEXT", "OWNER", "PROBLEMS"]
    assert lines[1].split("  ")[0] == "2"
    assert "score" in lines[1]
    assert "At 03:10 every day (Europe/London)" in lines[1]
    assert " 03:10 " in lines[1]
    assert lines[1].endswith("growth  not observed")
    assert "When the host starts" in lines[3]


def test_a_list_is_json_for_others(here, file):
    path = file(NIGHTLY + "nonsense\n")
    out = json.loads(here("crontab", "list", "--json", path, TZ="UTC")[1])
    assert out["file"] == path
    score, roll, start, wrong = out["jobs"]
    assert (score["model"], score["schedule"], score["observed"]) == ("score", "10 3 * * *", False)
    due = datetime.fromisoformat(score["next_due"])
    assert (due.hour, due.minute, due.tzinfo) == (3, 10, UTC)
    assert timedelta(0) < due - datetime.now(UTC) <= timedelta(days=1)
    assert (roll["due"], start["next_due"]) == ("At 00:00 every day", None)
    assert wrong["line"] == 4
    assert wrong["problems"] == [
        "'nonsense' is no job: write schedule and command, for example 10 3 * * * /opt/score.py"
    ]


def test_a_crontab_with_nothing_wrong_passes(here, file):
    assert here("crontab", "check", file(NIGHTLY)) == (0, "", "")
    assert here("crontab", "check", file(here("crontab", "wrap", file(NIGHTLY))[1])) == (0, "", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("61 * * * * x", "schedule '61 * * * *' is wrong: minute '61' is not 0 to 59"),
        (
            "@hourly {own} run --schedule @daily -- x",
            "--schedule is '@daily', and the line is due '@hourly': write the same",
        ),
        ("@hourly {own} run --schedule @hourly --timezone UTC -- x", "--timezone is 'UTC', and CRON_TZ is ''"),
        (
            "@hourly /nowhere/batchobs run -- x",
            "'/nowhere/batchobs' is not found on cron's PATH '/usr/bin:/bin': write {own}",
        ),
        ("@daily {own} run --model a -- x\n@daily {own} run --model a -- y", "model 'a' is in line 1 too"),
    ],
)
def test_what_is_wrong_is_a_line_with_its_place(here, file, line, said):
    path = file(f"{line.format(own=OWN)}\n")
    code, out, err = here("crontab", "check", path)
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert out.startswith(f"{path}:")
    assert said.format(own=OWN) in out


def test_the_same_schedule_by_another_name_is_no_mistake(here, file):
    assert here("crontab", "check", file(f"0  0 * * * {OWN} run --schedule @daily -- x\n"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("list", "nowhere"),
            "crontab nowhere cannot be read: No such file or directory; name another, or - for stdin",
        ),
        (("check", "--catalog", "nowhere", "-"), "catalog nowhere cannot be read: No such file or directory"),
        (("forget", "nothing"), "job 'nothing' is not expected: write one of those that are (none)"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(here, arguments, said, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, out, err = here("crontab", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"batchobs: {said}")


def test_a_mistake_in_the_catalogs_schedule_has_its_line(here, file):
    catalog = file("models:\n  - name: score\n    schedule: 61 * * * *\n", "catalog.yaml")
    code, _, err = here("crontab", "check", "--catalog", catalog, file(NIGHTLY))
    assert code == 2
    assert err.startswith(f"batchobs: {catalog}:3: schedule of model 'score': schedule '61 * * * *' is wrong")


def test_without_a_file_it_is_the_users_own(here, tmp_path):
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = -l ] && echo "0 1 * * * /opt/mine.sh"\n')
    program.chmod(0o755)
    out = here("crontab", "list", "--json", PATH=f"{program.parent}:/usr/bin:/bin")[1]
    assert json.loads(out)["jobs"][0]["model"] == "mine"
    program.write_text("#!/bin/sh\necho no crontab for me >&2; exit 1\n")
    assert here("crontab", "list")[2] == "batchobs: crontab -l: no crontab for me; name a file, or - for stdin\n"
    assert here("crontab", "list", PATH="")[2] == "batchobs: crontab -l cannot be run: name a file, or - for stdin\n"


# --- Jobs that did not run ---------------------------------------------------------------------------------------


def noted(state, name="score", schedule="* * * * *", ago_ns=DAY, **promised):
    """Write down a job that is known for so long."""
    known.note(state, name, model(name, **promised), schedule, "UTC", by=known.BY_RUN)
    path = next(path for path in (state / "jobs").glob("*.json") if path.name.startswith(f"{name}-"))
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "since_ns": time.time_ns() - ago_ns}))
    return known.known(state)[name]


def began(ledger, name, start_ns, outcome="success", **values):
    of_run = run(
        f"{name}-{start_ns}",
        source="cron",
        resource=name,
        job=name,
        dag_id="",
        task_id="",
        dag_run_id="",
        model=model(name),
        start_ns=start_ns,
        **values,
    )
    ledger.apply(
        finished(of=of_run, outcome=outcome, token=of_run.run_id, end_ns=start_ns + 1, stages=(), measurements=())
    )


def daily(ago):
    """Return a schedule that was due so long ago, and when that was."""
    due = (datetime.now(UTC) - ago).replace(second=0, microsecond=0)
    return f"{due.minute} {due.hour} * * *", unix_ns(due)


def missed(out):
    return [(one["model"], one["objective"], one["missed"]) for one in json.loads(out)["breached"]]


def test_a_job_that_did_not_run_is_missed_once(here, ledger, state):
    schedule, due_ns = daily(timedelta(hours=2))
    noted(state, schedule=schedule)
    code, out, err = here("check", "--json")
    assert (code, err) == (1, "")
    assert missed(out) == [("score", "start_within", True)]
    (told,) = json.loads(out)["told"]
    assert (told["job"], told["resource"], told["promise"], told["owner"]) == ("score", "score", "5m", "growth")
    assert told["due"] == datetime.fromtimestamp(due_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    code, out, _ = here("check", "--json")
    assert (code, missed(out), json.loads(out)["told"]) == (1, [("score", "start_within", True)], [])


def test_a_job_that_ran_is_not_missed(here, ledger, state):
    schedule, due_ns = daily(timedelta(hours=2))
    noted(state, schedule=schedule)
    began(ledger, "score", due_ns + 10**9)
    assert here("check")[0] == 0


def test_a_job_that_failed_did_run(here, ledger, state):
    schedule, due_ns = daily(timedelta(hours=2))
    noted(state, schedule=schedule)
    began(ledger, "score", due_ns + 10**9, "failed")
    assert here("check")[0] == 0


def test_a_job_that_began_late_is_late_and_not_missed(here, ledger, state):
    schedule, due_ns = daily(timedelta(hours=2))
    noted(state, schedule=schedule)
    began(ledger, "score", due_ns + 7 * MINUTE)
    out = here("check", "--json")[1]
    assert missed(out) == [("score", "start_within", False)]
    assert json.loads(out)["breached"][0]["reason"] == "started 2m late"


def test_a_job_that_waited_for_the_one_before_is_the_one_that_it_says(here, ledger, state):
    schedule, due_ns = daily(timedelta(hours=2))
    noted(state, schedule=schedule)
    began(ledger, "score", due_ns + HOUR, due_ns=due_ns - DAY)
    assert missed(here("check", "--json")[1]) == [("score", "start_within", True)]


def test_a_job_that_may_start_later_is_given_that_time(here, ledger, state):
    schedule, _ = daily(timedelta(minutes=10))
    noted(state, schedule=schedule, start_within="30m")
    assert here("check")[0] == 0
    schedule, _ = daily(timedelta(hours=1))
    noted(state, "other", schedule=schedule, start_within="30m")
    assert missed(here("check", "--json")[1]) == [("other", "start_within", True)]


def test_what_was_due_before_the_schedule_was_known_is_not_missed(here, ledger, state):
    schedule, _ = daily(timedelta(hours=2))
    noted(state, schedule=schedule, ago_ns=HOUR)
    assert here("check")[0] == 0


@pytest.mark.parametrize(("after", "is_for"), [(0, True), (2, True), (59, True), (61, False), (-1, False)])
def test_a_run_is_for_what_was_due_when_it_began(state, after, is_for):
    now_ns = time.time_ns()
    job = noted(state)
    due_ns = job.upcoming[-1]
    assert due_ns - now_ns > 58 * MINUTE
    found = known.note(state, "score", job.model, "* * * * *", "UTC", by=known.BY_RUN).due_at(due_ns + after * 10**9)
    assert (found == due_ns) == is_for


def test_due_times_are_computed_once_in_a_while(state, monkeypatch):
    job = noted(state)
    path = next((state / "jobs").iterdir())
    old = [due_ns - DAY for due_ns in job.upcoming]
    path.write_text(json.dumps({**json.loads(path.read_text()), "upcoming": old}))
    again = known.note(state, "score", job.model, "* * * * *", "UTC", by=known.BY_RUN)
    assert again.upcoming[0] <= time.time_ns() < again.upcoming[-1]
    monkeypatch.setitem(sys.modules, "batch_observability.cron.schedule", None)
    assert known.note(state, "score", job.model, "* * * * *", "UTC", by=known.BY_RUN) == again


def test_a_scheduled_job_promises_to_start_unless_it_says_when():
    plain, own = model(finish_within="1h"), model(start_within="1h")
    assert known.promising(plain, "@daily")["objectives"] == {"start_within": "5m", "finish_within": "1h"}
    assert known.promising(plain, "") == plain
    assert known.promising(own, "@daily") == own


def test_a_schedule_that_changes_is_known_from_then_on(state):
    first = noted(state, schedule="10 3 * * *")
    known.note(state, "score", first.model, "10 4 * * *", "UTC", by=known.BY_RUN)
    job = known.known(state)["score"]
    assert job.since_ns > time.time_ns() - MINUTE
    assert known.note(state, "score", first.model, "10 4 * * *", "UTC", by=known.BY_RUN) == job


def test_a_host_that_was_down_misses_the_newest(here, ledger, state):
    noted(state, schedule="* * * * *")
    out = json.loads(here("check", "--json")[1])
    assert 40 < len([one for one in out["told"] if one["missed"]]) <= 50


def test_a_job_of_another_host_is_missed_when_that_is_silent(here, ledger, state):
    schedule, due_ns = daily(timedelta(hours=2))
    job = noted(state, schedule=schedule)
    ledger.apply(declaring.declared(job, due_ns))
    known.forget(state, "score")
    assert missed(here("check", "--json")[1]) == [("score", "start_within", True)]


def test_the_ledger_knows_of_a_job_that_never_ran(here, ledger, state):
    noted(state, schedule="10 3 * * *", ago_ns=0)
    assert here("check")[0] == 0
    (job,) = ledger.jobs("cron")
    assert (job.name, job.schedule, job.model["owner"]) == ("score", "10 3 * * * UTC", "growth")
    assert time.time_ns() < job.next_due_ns <= time.time_ns() + DAY


def next_due(here):
    (one,) = json.loads(here("sla", "--json")[1])["models"]
    return one["next_due"] and datetime.fromisoformat(one["next_due"]), one["overdue"]


@pytest.mark.parametrize("is_known_here", [True, False])
@pytest.mark.parametrize("is_late", [True, False])
def test_a_job_is_due_next_after_it_began_last(here, ledger, state, is_known_here, is_late):
    schedule, due_ns = daily(timedelta(hours=2))
    job = noted(state, schedule=schedule, ago_ns=7 * DAY)
    began(ledger, "score", time.time_ns() - (3 if is_late else 1) * HOUR)
    if not is_known_here:
        # What it said of the next time was long ago.
        ledger.apply(declaring.declared(job, due_ns - 5 * DAY))
        known.forget(state, "score")
    due, overdue = next_due(here)
    assert unix_ns(due) == (due_ns if is_late else due_ns + DAY)
    assert overdue == is_late


def test_a_job_that_is_due_at_no_time_that_can_be_told_has_no_next_time(here, ledger, state):
    noted(state, schedule="@reboot")
    began(ledger, "score", time.time_ns() - HOUR)
    assert next_due(here) == (None, False)


def test_a_job_of_the_catalog_is_expected_as_long_as_it_is_there(here, ledger, state, file):
    catalog = file("models:\n  - name: score\n    schedule: '@daily'\n    timezone: UTC\n", "catalog.yaml")
    assert here("check", "--catalog", catalog)[0] == 0
    assert known.known(state)["score"].by == known.BY_CATALOG
    assert [job.name for job in ledger.jobs("cron")] == ["score"]
    catalog = file("models:\n  - name: other\n", "catalog.yaml")
    assert here("check", "--catalog", catalog)[0] == 0
    assert known.known(state) == {}


def test_what_a_job_says_itself_counts_more_than_the_catalog(here, ledger, state, file):
    noted(state, schedule="10 3 * * *", ago_ns=0)
    catalog = file("models:\n  - name: score\n    schedule: '@hourly'\n", "catalog.yaml")
    here("check", "--catalog", catalog)
    assert known.known(state)["score"].schedule == "10 3 * * *"


def test_wrapped_jobs_are_expected_and_unwrapped_ones_no_more(here, ledger, state, file):
    there = here("crontab", "wrap", file(NIGHTLY))[1]
    assert set(known.known(state)) == {"score", "roll"}
    assert here("check")[0] == 0
    assert {job.name for job in ledger.jobs("cron") if job.schedule} == {"score", "roll"}
    assert here("crontab", "unwrap", file(there))[1] == NIGHTLY
    assert known.known(state) == {}
    assert {job.name for job in ledger.jobs("cron") if job.schedule} == set()


def test_a_job_that_is_forgotten_is_missed_no_more(here, ledger, state):
    schedule, _ = daily(timedelta(minutes=2))
    noted(state, schedule=schedule)
    assert here("check")[0] == 0
    assert here("crontab", "forget", "score") == (0, "", "")
    assert known.known(state) == {}
    assert [job.schedule for job in ledger.jobs("cron")] == [""]
    assert here("check")[0] == 0


def test_a_job_that_was_wrapped_and_never_ran_makes_the_ledger(here, state, file):
    here("crontab", "wrap", file(NIGHTLY))
    assert here("check") == (0, "all promises are kept (2 models)\n", "")


def test_what_installs_a_check_is_printed(here, tmp_path):
    code, out, err = here("watch", "--install-hint", DD_API_KEY="k" * 8)
    assert (code, err) == (0, "")
    assert f"ExecStart={OWN} check\n" in out
    assert f"* * * * * {OWN} check >/dev/null 2>&1\n" in out
    assert "OnCalendar=minutely" in out
    assert "DD_API_KEY" in out
    assert "k" * 8 not in out
